//! The published JSON Schema accepts what the program prints, and refuses what it never prints.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use assert_cmd::Command;
use serde_json::{Value, json};

fn schema() -> Value {
    let output = Command::cargo_bin("hasteward")
        .unwrap()
        .env_clear()
        .arg("schema")
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn accepts(schema: &Value, document: &Value) -> Result<(), String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler
        .add_resource("hasteward.json", schema.clone())
        .map_err(|e| e.to_string())?;
    let index = compiler
        .compile("hasteward.json", &mut schemas)
        .map_err(|e| e.to_string())?;
    schemas.validate(document, index).map_err(|e| e.to_string())
}

fn printed(arguments: &[&str]) -> Value {
    let output = Command::cargo_bin("hasteward")
        .unwrap()
        .env_clear()
        .args(arguments)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn answers_and_early_errors_fit_the_schema() {
    let schema = schema();
    accepts(&schema, &printed(&["version", "--client", "--output", "json"])).unwrap();
    accepts(&schema, &printed(&["triage", "--output", "json"])).unwrap();
    accepts(&schema, &printed(&["triage", "--bad", "--output", "json"])).unwrap();
}

#[test]
fn what_is_never_printed_is_refused() {
    let schema = schema();
    let mut document = printed(&["version", "--client", "--output", "json"]);
    document["errors"] =
        json!([{"code": "x", "category": "no-such-category", "message": "", "retryable": false}]);
    assert!(accepts(&schema, &document).is_err());
    let mut document = printed(&["version", "--client", "--output", "json"]);
    document.as_object_mut().unwrap().remove("runId");
    assert!(accepts(&schema, &document).is_err());
}
