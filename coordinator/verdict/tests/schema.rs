//! The printed models and their schema.

use hasteward_verdict::schema;

#[test]
fn the_schema_names_both_models_and_their_fields() {
    let schemas = serde_json::to_value(schema()).expect("a schema is JSON");
    let report = &schemas["TriageReport"];
    for field in [
        "engine",
        "cluster",
        "collectedAt",
        "verdict",
        "instances",
        "diagnoses",
    ] {
        assert!(report["properties"][field].is_object(), "{field}: {report:#}");
    }
    assert!(
        report["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == "verdict"))
    );
    assert!(schemas["ClusterList"]["properties"]["clusters"].is_object());
    // Whether maps keep their order is a feature of `serde_json` that any crate of one build may switch on.
    insta::with_settings!({ sort_maps => true }, {
        insta::assert_json_snapshot!("schema", schemas);
    });
}
