//! The images' root file systems, as the Dockerfiles assemble them: complete enough that the program starts in them.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hasteward_lab::supervise::program;

fn assemble(component: &str, into: &Path) -> Output {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let binaries = program("hasteward-agent").unwrap().parent().unwrap().to_owned();
    let script = repository.join("deploy/image/assemble.sh");
    Command::new(script)
        .arg(component)
        .arg(binaries)
        .arg(into)
        .output()
        .unwrap()
}

#[test]
fn each_program_starts_in_its_image() {
    for component in ["agent", "coordinator"] {
        let root = tempfile::tempdir().unwrap();
        let assembled = assemble(component, root.path());
        assert!(
            assembled.status.success(),
            "{}",
            String::from_utf8_lossy(&assembled.stderr)
        );
        let program = format!("/bin/hasteward-{component}");
        let run = |user: &str| {
            let output = Command::new("chroot")
                .arg(format!("--userspec={user}"))
                .arg(root.path())
                .args([&program, "--version"])
                .output();
            output.unwrap()
        };
        for user in ["0:0", "65532:65532"] {
            let output = run(user);
            assert!(
                output.status.success(),
                "{component} as {user}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("hasteward-{component} ")));
        }
    }
}

#[test]
fn a_directory_that_holds_something_is_not_assembled_over() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("mine"), "").unwrap();
    let assembled = assemble("agent", root.path());
    assert_eq!(assembled.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&assembled.stderr).contains("not empty"));
}
