//! Services: types, ports and cluster addresses.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::object::{default, entry, text};
use crate::store::{GroupResource, Txn};

/// The first two bytes of the range of cluster addresses (10.96.0.0/16).
const RANGE: [u8; 2] = [10, 96];

/// Fills in a Service.
pub(super) fn fill(service: &mut Value, txn: &Txn<'_>) {
    let spec = entry(service, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    default(spec, "internalTrafficPolicy", "Cluster");
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        default(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            default(port, "targetPort", number);
        }
    }
    if spec.get("type").is_some_and(|t| t == "ExternalName") {
        return;
    }
    default(spec, "ipFamilies", json!(["IPv4"]));
    default(spec, "ipFamilyPolicy", "SingleStack");
    if spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
        && let Some(address) = free_address(txn)
    {
        spec.insert("clusterIP".into(), address.into());
    }
    if let Some(address) = spec.get("clusterIP").cloned() {
        spec.insert("clusterIPs".into(), json!([address]));
    }
    entry(service, "status")
        .entry("loadBalancer")
        .or_insert_with(|| json!({}));
}

fn free_address(txn: &Txn<'_>) -> Option<String> {
    let services = txn.list(&GroupResource::new("", "services"), "");
    let used: HashSet<&str> = services.iter().map(|s| text(s, &["spec", "clusterIP"])).collect();
    // 10.96.0.1 is the API server's own.
    (2..u16::MAX)
        .map(|n| format!("{}.{}.{}.{}", RANGE[0], RANGE[1], n >> 8, n & 0xff))
        .find(|address| !used.contains(address.as_str()))
}
