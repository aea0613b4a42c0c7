//! The real kubectl against the server: Debian bookworm's (1.20), trixie's (1.32) and the one in `PATH`.
//!
//! `tests/fetch-kubectl.sh <dir>` brings the first two; they are looked for in `$HASTEWARD_LAB_KUBECTL` (default
//! `target/kubectl`). Under `CI` a missing one is a failure, else the case says that it was skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{LONG, Lab, running_pod};
use rstest::rstest;
use serde_json::Value;

fn program(which: &str) -> Option<PathBuf> {
    let found = if which == "PATH" {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join("kubectl"))
            .find(|p| p.is_file())
    } else {
        let dir = std::env::var_os("HASTEWARD_LAB_KUBECTL").map(PathBuf::from);
        let dir =
            dir.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/kubectl"));
        Some(dir.join(which).join("usr/bin/kubectl")).filter(|p| p.is_file())
    };
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none() || which == "PATH",
            "no kubectl of {which}: run tests/fetch-kubectl.sh"
        );
        println!("skipped: no kubectl of {which}");
    }
    found
}

#[derive(Clone)]
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    dir: PathBuf,
    /// Minor version of the client.
    minor: u32,
}

/// A child that is gone with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Kubectl {
    fn new(program: PathBuf, lab: &Lab) -> Self {
        let mut it = Self {
            program,
            kubeconfig: lab.kubeconfig_file(),
            dir: lab.dir.path().to_owned(),
            minor: 0,
        };
        let version: Value = serde_json::from_str(&it.run("version -o json")).unwrap();
        assert_eq!(version["serverVersion"]["minor"], "33");
        let minor = version["clientVersion"]["minor"].as_str().unwrap();
        it.minor = minor.trim_end_matches('+').parse().unwrap();
        it
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.dir)
            .env("KUBECONFIG", &self.kubeconfig);
        command
            .arg("--request-timeout=20s")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> (bool, String, String) {
        let out = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.success(), text(out.stdout), text(out.stderr))
    }

    /// Runs words split at spaces; the output.
    fn run(&self, line: &str) -> String {
        self.args(&line.split(' ').collect::<Vec<_>>())
    }

    fn args(&self, arguments: &[&str]) -> String {
        let (fine, out, err) = self.output(arguments);
        assert!(fine, "kubectl {arguments:?}: {out}{err}");
        out
    }

    fn fails(&self, line: &str) -> String {
        let (fine, out, err) = self.output(&line.split(' ').collect::<Vec<_>>());
        assert!(!fine, "kubectl {line} succeeded: {out}");
        err
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn start(&self, line: &str) -> (Running, BufReader<std::process::ChildStdout>) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut command = self.command(&arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (Running(child), out)
    }
}

const CRD: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.lab.example}
spec:
  group: lab.example
  scope: Namespaced
  names: {plural: things, kind: Thing, shortNames: [th]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}}}
";

fn reads(kubectl: &Kubectl) {
    let wide = kubectl.run("get pods -o wide");
    let lines: Vec<Vec<&str>> = wide.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["NAME", "READY", "STATUS", "RESTARTS"], "{wide}");
    assert_eq!(lines[1][..4], ["p", "1/1", "Running", "0"], "{wide}");
    assert!(wide.contains("10.244.1.5") && wide.contains("n1"), "{wide}");
    let json: Value = serde_json::from_str(&kubectl.run("get pod p -o json")).unwrap();
    assert_eq!(
        (&json["kind"], &json["spec"]["nodeName"]),
        (&"Pod".into(), &"n1".into())
    );
    assert!(kubectl.run("get nodes,ns,sa,cm,svc -A").contains("node/n1"));
    let described = kubectl.run("describe pod p");
    assert!(
        described.contains("Running") && described.contains("lab/x:1"),
        "{described}"
    );
    assert!(kubectl.run("describe node n1").contains("Ready"));
    assert!(kubectl.run("api-resources").contains("deployments"));
    assert!(kubectl.fails("get pod missing").contains("NotFound"));
    assert_eq!(
        kubectl.run("logs p --tail=3"),
        "log of /containerLogs/default/p/c?tailLines=3\n"
    );
    kubectl.run("wait --for=condition=Ready pod/p --timeout=10s");
    assert_eq!(kubectl.run("auth can-i create pods").trim(), "yes");
    assert_eq!(
        kubectl
            .output(&["auth", "can-i", "create", "pods", "--as", "bob"])
            .1
            .trim(),
        "no"
    );
    assert!(kubectl.fails("get pods --as bob").contains("Forbidden"));
}

fn writes(kubectl: &Kubectl) {
    let manifest = |replicas: u32, image: &str| {
        kubectl.file(
            "deploy.yaml",
            &format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    metadata: {{labels: {{a: b}}}}\n    spec:\n      containers:\n      - {{name: c, image: '{image}', env: [{{name: K, value: '1'}}]}}\n"
            ),
        )
    };
    let get = |path: &str| kubectl.args(&["get", "deploy", "d", "-o", &format!("jsonpath={{{path}}}")]);
    let file = manifest(1, "x:1");
    assert!(kubectl.args(&["apply", "-f", &file]).contains("created"));
    assert!(kubectl.args(&["apply", "-f", &file]).contains("unchanged"));
    kubectl.run("scale deployment d --replicas=3");
    assert_eq!(get(".spec.replicas"), "3");
    manifest(2, "x:2");
    assert!(kubectl.args(&["apply", "-f", &file]).contains("configured"));
    assert_eq!(
        (
            get(".spec.replicas"),
            get(".spec.template.spec.containers[*].image")
        ),
        ("2".into(), "x:2".into())
    );
    kubectl.run("label deployment d l=1");
    kubectl.run("annotate deployment d a=1");
    assert!(kubectl.fails("label deployment d l=2").contains("overwrite"));
    kubectl.args(&[
        "patch",
        "deploy",
        "d",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"L","value":"2"}]}]}}}}"#,
    ]);
    assert_eq!(get(".spec.template.spec.containers[0].env[*].name"), "L K");
    kubectl.args(&[
        "patch",
        "deploy",
        "d",
        "--type=merge",
        "-p",
        r#"{"metadata":{"labels":{"l":null,"m":"2"}}}"#,
    ]);
    kubectl.args(&[
        "patch",
        "deploy",
        "d",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/metadata/labels/m","value":"3"}]"#,
    ]);
    assert_eq!(
        (get(".metadata.labels.m"), get(".metadata.labels.l")),
        ("3".into(), String::new())
    );
    let refused = kubectl.output(&[
        "apply",
        "--server-side",
        "--field-manager=other",
        "-f",
        &manifest(5, "x:3"),
    ]);
    assert!(!refused.0 && refused.2.contains("conflict"), "{refused:?}");
    kubectl.args(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=other",
        "-f",
        &file,
    ]);
    assert_eq!(get(".spec.replicas"), "5");
    kubectl.run("create configmap made --from-literal=a=1");
    kubectl.run("create namespace made");
    kubectl.run("create serviceaccount made");
    kubectl.args(&["create", "secret", "generic", "made", "--from-literal=a=1"]);
    assert_eq!(kubectl.run("get secret made -o jsonpath={.data.a}"), "MQ==");
    kubectl.run("create deployment typed --image=x:1");
    assert_eq!(kubectl.run("get deploy typed -o jsonpath={.spec.replicas}"), "1");
    kubectl.run("delete deployment,configmap,secret,sa d made --ignore-not-found");
    kubectl.run("delete namespace made --timeout=20s");
    assert!(kubectl.fails("get deployment d").contains("NotFound"));
    if kubectl.minor >= 27 {
        assert!(
            kubectl
                .args(&["apply", "--dry-run=server", "-f", &file])
                .contains("dry run")
        );
        assert!(kubectl.fails("get deployment d").contains("NotFound"));
    }
}

fn custom(kubectl: &Kubectl) {
    kubectl.args(&["apply", "-f", &kubectl.file("crd.yaml", CRD)]);
    kubectl.run("wait --for=condition=Established crd/things.lab.example --timeout=10s");
    let thing = |size: i32| {
        kubectl.file(
            "thing.yaml",
            &format!(
                "apiVersion: lab.example/v1\nkind: Thing\nmetadata: {{name: t}}\nspec: {{size: {size}}}\n"
            ),
        )
    };
    let refused = kubectl.output(&["apply", "-f", &thing(0)]);
    assert!(!refused.0 && refused.2.contains("spec.size"), "{refused:?}");
    kubectl.args(&["apply", "-f", &thing(4)]);
    assert!(kubectl.args(&["apply", "-f", &thing(5)]).contains("configured"));
    let table = kubectl.run("get th");
    assert!(
        table.contains("SIZE") && table.lines().nth(1).unwrap().contains('5'),
        "{table}"
    );
    assert!(kubectl.run("describe thing t").contains("Size"));
    kubectl.run("delete crd things.lab.example --timeout=20s");
}

fn watches(kubectl: &Kubectl) {
    let (_child, out) = kubectl.start("get pods -w");
    let mut lines = out.lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("NAME"));
    assert!(lines.next().unwrap().contains("Running"));
    kubectl.args(
        &[
            "patch",
            "pod",
            "p",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"phase":"Failed","reason":"Evicted"}}"#,
        ][..]
            .iter()
            .copied()
            .filter(|a| kubectl.minor >= 24 || *a != "--subresource=status")
            .collect::<Vec<_>>(),
    );
    if kubectl.minor >= 24 {
        assert!(
            lines
                .by_ref()
                .take(2)
                .any(|l| l.contains("Evicted") || l.contains("Running"))
        );
    }
}

fn forwards(kubectl: &Kubectl) {
    let (_child, mut out) = kubectl.start("port-forward pod/p :80");
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let port = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|r| r.split(' ').next())
        .unwrap_or_else(|| panic!("{line}"));
    // Two connections one after the other, the first with more than any window.
    for size in [1_500_000_usize, 10] {
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
        let sent: Vec<u8> = (0..size).map(|i| i.to_le_bytes()[0]).collect();
        let copy = sent.clone();
        let sender = std::thread::spawn(move || writer.write_all(&copy).map(|()| writer));
        let mut back = vec![0; size];
        reader.read_exact(&mut back).unwrap();
        assert!(back == sent, "what was sent came back");
        sender.join().unwrap().unwrap();
    }
}

#[rstest]
#[case::bookworm("bookworm")]
#[case::trixie("trixie")]
#[case::path("PATH")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works(
    #[case] which: &str,
    #[values(reads, writes, custom, watches, forwards)] scene: fn(&Kubectl),
) {
    let Some(program) = program(which) else { return };
    let lab = Lab::start().await;
    running_pod(&lab.admin().await).await;
    let kubectl = Kubectl::new(program, &lab);
    tokio::task::spawn_blocking(move || scene(&kubectl))
        .await
        .unwrap();
    lab.server.stop().await;
}
