//! The core stays pure: nothing in its dependency tree talks to the network, to Kubernetes or to a clock's runtime.

use std::process::Command;

#[test]
fn the_dependency_tree_has_no_runtime() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            env!("CARGO_PKG_NAME"),
            "-e",
            "normal",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(tree.contains(env!("CARGO_PKG_NAME")), "{tree}");
    let banned = [
        "tokio",
        "kube",
        "tonic",
        "hyper",
        "prost",
        "k8s-openapi",
        "rustls",
        "jiff",
        "chrono",
        "nix",
        "rand",
    ];
    let names: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in banned {
        assert!(
            !names.contains(&name),
            "{name} is in the tree of a pure crate:\n{tree}"
        );
    }
}
