//! What an agent may and may not do, seen from outside on a running lab.

use std::collections::BTreeSet;
use std::fs;

use hasteward_lab::options::UpOptions;
use hasteward_lab::{Lab, deploy, process};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};

/// Capabilities that write or remove files whatever their mode (capabilities(7)).
const WRITING: [u32; 3] = [0 /* CHOWN */, 1 /* DAC_OVERRIDE */, 3 /* FOWNER */];

/// The processes of one agent pod: head and hands.
struct AgentProcesses {
    node: String,
    head: Vec<i32>,
    hands: Vec<i32>,
}

async fn agents(lab: &Lab) -> Vec<AgentProcesses> {
    let pods: Api<Pod> = Api::namespaced(lab.client().clone(), deploy::NAMESPACE);
    let pods = pods.list(&ListParams::default()).await.unwrap();
    let agents = pods
        .items
        .iter()
        .filter(|pod| pod.name_any().starts_with(deploy::AGENT));
    agents
        .map(|pod| {
            let statuses = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
            let id = statuses[0]
                .container_id
                .as_ref()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned();
            let in_pod =
                |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|c| c.contains(&id));
            let (head, hands) = process::all()
                .into_iter()
                .filter(in_pod)
                .partition(|pid| uid(*pid) != 0);
            AgentProcesses {
                node: pod.spec.as_ref().unwrap().node_name.clone().unwrap(),
                head,
                hands,
            }
        })
        .collect()
}

/// A line of `/proc/<pid>/status`.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let prefix = format!("{field}:");
    text.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .unwrap()
        .trim()
        .to_owned()
}

fn uid(pid: i32) -> u32 {
    status(pid, "Uid")
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&status(pid, set), 16).unwrap()
}

/// Local addresses of sockets that listen in the network namespace of a process (state 0A in `/proc/<pid>/net/tcp`).
fn listening(pid: i32) -> Vec<String> {
    let lines = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap();
    let rows = [lines("tcp"), lines("tcp6")].concat();
    let listens = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
    rows.lines()
        .filter(listens)
        .map(|line| line.split_whitespace().nth(1).unwrap_or("?").to_owned())
        .collect()
}

#[tokio::test]
async fn the_agent_listens_on_nothing_and_only_its_hands_are_strong() {
    let lab = Lab::up(UpOptions {
        pg: 1,
        ..UpOptions::NOTHING
    })
    .await
    .unwrap();
    let agents = agents(&lab).await;
    assert_eq!(
        agents.iter().map(|a| &a.node).collect::<BTreeSet<_>>().len(),
        3,
        "one agent a node"
    );
    for agent in &agents {
        assert!(
            !agent.head.is_empty() && !agent.hands.is_empty(),
            "head and hands on {}",
            agent.node
        );
        for pid in &agent.head {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(capabilities(*pid, set), 0, "{set} of the head on {}", agent.node);
            }
            assert_eq!((uid(*pid), status(*pid, "NoNewPrivs").as_str()), (65532, "1"));
            assert_eq!(
                listening(*pid),
                Vec::<String>::new(),
                "the head on {} listens",
                agent.node
            );
        }
        for pid in &agent.hands {
            assert_eq!(
                listening(*pid),
                Vec::<String>::new(),
                "hands on {} listen",
                agent.node
            );
            let links = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
            assert!(
                links
                    .lines()
                    .skip(2)
                    .all(|line| line.trim_start().starts_with("lo:")),
                "hands have a network: {links}"
            );
            let held = capabilities(*pid, "CapEff");
            assert!(
                WRITING.iter().all(|bit| held & (1 << bit) == 0),
                "hands could write: {held:x}"
            );
        }
    }
    lab.down().unwrap();
}

#[tokio::test]
async fn the_agents_account_may_do_nothing() {
    let lab = Lab::up(UpOptions {
        pg: 0,
        ..UpOptions::NOTHING
    })
    .await
    .unwrap();
    let reviews: Api<SubjectAccessReview> = Api::all(lab.client().clone());
    let user = format!("system:serviceaccount:{}:{}", deploy::NAMESPACE, deploy::AGENT);
    for (group, resource, subresource) in [
        ("", "pods", ""),
        ("", "pods", "exec"),
        ("", "secrets", ""),
        ("", "configmaps", ""),
        ("", "nodes", ""),
        ("", "persistentvolumes", ""),
        ("", "serviceaccounts", "token"),
        ("postgresql.cnpg.io", "clusters", ""),
        ("apps", "daemonsets", ""),
    ] {
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
            let asked = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                namespace: Some(deploy::NAMESPACE.to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            };
            let spec = SubjectAccessReviewSpec {
                user: Some(user.clone()),
                groups: Some(vec![
                    "system:serviceaccounts".into(),
                    "system:authenticated".into(),
                ]),
                resource_attributes: Some(asked),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview {
                spec,
                ..SubjectAccessReview::default()
            };
            let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
            assert!(
                !answer.status.unwrap().allowed,
                "{verb} {group}/{resource}/{subresource}"
            );
        }
    }
    lab.down().unwrap();
}

#[tokio::test]
async fn a_viewer_reads_with_four_rights_and_a_stranger_is_told_whom_to_ask() {
    let lab = Lab::up(UpOptions {
        pg: 1,
        ..UpOptions::NOTHING
    })
    .await
    .unwrap();
    let stranger = lab.kubeconfig_of("stranger", "people").unwrap();
    let output = lab
        .hasteward_as(&stranger, &["get", "status", "--output", "json"])
        .await
        .unwrap();
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(
        output.stdout.contains("kubernetes-forbidden") && output.stdout.contains("hasteward-viewer"),
        "{}",
        output.stdout
    );

    let roles: Api<k8s_openapi::api::rbac::v1::RoleBinding> =
        Api::namespaced(lab.client().clone(), deploy::NAMESPACE);
    let binding = serde_json::from_value(serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "viewers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hasteward-viewer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "stranger"}],
    }))
    .unwrap();
    roles.create(&PostParams::default(), &binding).await.unwrap();
    let output = lab
        .hasteward_as(&stranger, &["get", "status", "--output", "json"])
        .await
        .unwrap();
    assert_eq!(output.code, 0, "{}", output.stdout);
    lab.down().unwrap();
}
