//! The status of a MariaDB resource: read, change, write the difference if nobody wrote meanwhile.

use crate::cnpg::{Scope, difference};
use crate::mariadb::resource::{MariaDB, MariaDBStatus};
use anyhow::{Context, bail};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// How often a write is tried again when somebody else was faster.
const TRIES: usize = 5;

/// Applies a change to the status as it is now, and returns the resource as it is then.
pub(super) async fn update(
    scope: &Scope,
    name: &str,
    change: impl Fn(&mut MariaDBStatus),
) -> anyhow::Result<MariaDB> {
    let api = scope.api::<MariaDB>();
    for _ in 0..TRIES {
        let current = api.get(name).await.context("reading the MariaDB resource")?;
        let before = current.observed();
        let mut after = before.clone();
        change(&mut after);
        let Some(patch) = difference(&serde_json::to_value(before)?, &serde_json::to_value(after)?) else {
            return Ok(current);
        };
        let patch = json!({"metadata": {"resourceVersion": current.resource_version()}, "status": patch});
        match api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(written) => return Ok(written),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).context("writing the status"),
        }
    }
    bail!("the status was changed by somebody else {TRIES} times")
}
