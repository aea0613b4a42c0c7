//! Which pod takes writes by routing: the role labels, the primary Service, and its failover. Galera itself has no
//! primary.

use super::{event, objects, status};
use crate::cnpg::{Scope, now};
use crate::mariadb::init::is_ready;
use crate::mariadb::names;
use crate::mariadb::resource::MariaDB;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// The pod that is to be the primary: the current one while it is ready, else the lowest ready ordinal.
pub(super) fn choose(current: &str, ready: &[String], auto_failover: bool) -> String {
    if !auto_failover || ready.iter().any(|pod| pod == current) {
        return current.to_owned();
    }
    ready
        .iter()
        .min_by_key(|pod| names::ordinal(pod))
        .map_or_else(|| current.to_owned(), Clone::clone)
}

/// Settles the primary and labels ready pods. Labels of pods that are not ready stay as they were.
pub(super) async fn reconcile(scope: &Scope, mariadb: &MariaDB, pods: &[Pod]) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    let settings = mariadb.galera().primary;
    let ready: Vec<String> = pods
        .iter()
        .filter(|pod| is_ready(pod))
        .map(ResourceExt::name_any)
        .collect();
    let known = mariadb.observed().current_primary;
    let current = known
        .clone()
        .unwrap_or_else(|| names::pod(&name, settings.pod_index));
    let primary = choose(&current, &ready, settings.auto_failover);
    if known.as_ref() != Some(&primary) {
        if known.is_some() {
            let message = format!("Switching primary from index {current} to {primary}");
            event(scope, mariadb, "Normal", "PrimarySwitching", &message).await;
        }
        status::update(scope, &name, |status| {
            status.current_primary = Some(primary.clone());
            status.current_primary_pod_index = names::ordinal(&primary);
            status.set_condition(
                "PrimarySwitched",
                true,
                "SwitchPrimary",
                "Switchover complete",
                &now(),
            );
        })
        .await?;
    }
    objects::point_primary(scope, &name, &primary).await?;
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        let role = if pod.name_any() == primary {
            "primary"
        } else {
            "replica"
        };
        if pod.labels().get(names::ROLE).is_none_or(|had| had != role) {
            let patch = json!({"metadata": {"labels": {names::ROLE: role}}});
            let api = scope.api::<Pod>();
            match api
                .patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_ready_pod_takes_over() {
        let ready = ["m-10".to_owned(), "m-2".to_owned()];
        assert_eq!(choose("m-0", &ready, true), "m-2");
        assert_eq!(choose("m-0", &ready, false), "m-0");
        assert_eq!(choose("m-10", &ready, true), "m-10");
        assert_eq!(choose("m-0", &[], true), "m-0");
    }
}
