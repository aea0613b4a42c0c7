//! What the program says before it reaches anything: usage, exit codes, envelopes of early errors.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("hasteward").unwrap();
    // No kubeconfig, no settings of whoever runs the test.
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .args(arguments)
        .output()
        .unwrap()
}

fn envelope(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn bad_usage_is_2_and_an_envelope_for_programs() {
    for arguments in [
        &["triage", "--no-such-flag", "--output", "json"][..],
        &["--output=json", "triage", "-e", "oracle"],
        &["triage", "--output", "json", "-i", "../x"],
        &["triage", "--output", "json", "--timeout", "0"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let envelope = envelope(&output);
        assert_eq!(envelope["success"], false);
        assert_eq!(envelope["exitCode"], 2);
        assert_eq!(envelope["errors"][0]["category"], "input", "{arguments:?}");
        assert_eq!(envelope["data"], Value::Null);
    }
}

#[test]
fn missing_arguments_name_the_flag_and_its_form() {
    let output = run(&["triage", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let envelope = envelope(&output);
    assert_eq!(envelope["command"], "triage");
    let message = envelope["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("--engine") && message.contains("-e cnpg"),
        "{message}"
    );
}

#[test]
fn force_has_nothing_to_override_where_nothing_changes() {
    let output = run(&[
        "triage", "-e", "cnpg", "-c", "a", "-n", "b", "--force", "--output", "json",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(envelope(&output)["errors"][0]["code"], "nothing-to-force");
}

#[test]
fn an_unreachable_api_server_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("config");
    // Port 1 of loopback refuses at once.
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\n\
         contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n",
    )
    .unwrap();
    let output = run(&[
        "get",
        "status",
        "--output",
        "json",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--timeout",
        "2",
    ]);
    assert_eq!(
        output.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let envelope = envelope(&output);
    assert!(
        matches!(
            envelope["errors"][0]["category"].as_str(),
            Some("unreachable" | "timeout")
        ),
        "{envelope}"
    );
    assert_eq!(envelope["errors"][0]["retryable"], true);
    assert!(envelope["errors"][0]["hint"].is_string());
}

#[test]
fn no_kubeconfig_is_said() {
    let output = run(&["get", "agents", "--output", "human"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: no usable kubeconfig"), "{text}");
    assert!(text.contains("KUBECONFIG"), "{text}");
    assert!(!text.contains('\x1b'), "a pipe gets no colours: {text:?}");
}

#[test]
fn version_needs_nobody() {
    let output = run(&["version", "--client", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(envelope(&output)["data"]["client"], env!("CARGO_PKG_VERSION"));
    let text = String::from_utf8(run(&["version", "--client", "--output", "human"]).stdout).unwrap();
    assert_eq!(text, format!("hasteward   {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_output_form_carries_the_same_envelope() {
    let json = envelope(&run(&["version", "--client", "--output", "json"]));
    let line = run(&["version", "--client", "--output", "jsonl"]);
    assert_eq!(String::from_utf8_lossy(&line.stdout).lines().count(), 1);
    assert_eq!(envelope(&line)["data"], json["data"]);
    let yaml = String::from_utf8(run(&["version", "--client", "--output", "yaml"]).stdout).unwrap();
    assert!(yaml.contains("schemaVersion: v1alpha1"), "{yaml}");
}

#[test]
fn help_has_examples_and_exit_codes_and_no_short_output() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for wanted in [
        "Examples:",
        "Exit codes:",
        "triage",
        "get",
        "completion",
        "--engine",
        "--kubeconfig",
    ] {
        assert!(help.contains(wanted), "{wanted}: {help}");
    }
    assert!(!help.contains("-o, --output"), "-o belongs to export");
    let triage = String::from_utf8(run(&["triage", "--help"]).stdout).unwrap();
    assert!(triage.contains("Examples:") && triage.contains("Exit codes:"));
}

#[test]
fn secrets_in_the_environment_are_never_shown() {
    let mut command = Command::cargo_bin("hasteward").unwrap();
    let output = command
        .env("RESTIC_PASSWORD", "hunter2")
        .env("HASTEWARD_RESTIC_PASSWORD", "hunter2")
        .arg("--help")
        .output()
        .unwrap();
    assert!(!String::from_utf8(output.stdout).unwrap().contains("hunter2"));
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completion", shell]).stdout.len() > 500, "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["man", directory.path().to_str().unwrap(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let files = envelope(&output)["data"]["files"].as_array().unwrap().clone();
    assert!(
        files
            .iter()
            .any(|f| f.as_str().unwrap().ends_with("hasteward-triage.1")),
        "{files:?}"
    );
    let page = std::fs::read_to_string(directory.path().join("hasteward-triage.1")).unwrap();
    assert!(page.contains(".SH"));
}
