//! Faults: each makes one kind of damage and ends only when the damage is proven. One file each; [`ALL`] lists them.

mod diverge;
mod galera_ahead;
mod galera_all_down;
mod galera_cluster;
mod galera_ddl_kill;
mod galera_double_bootstrap;
mod galera_failed_sst;
mod galera_kill;
mod galera_nil_uuid;
mod galera_partition;
mod galera_quorum_lost;
mod galera_scaled_down;
mod galera_suspended;
mod galera_zero_grastate;
mod kill_server;
mod lose_slot;

use std::fs;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;

use crate::cnpg;
use crate::container::Container;
use crate::galera;
use crate::place::Place;
use crate::up::Tell;
use crate::wait::{Look, until};

/// How long a healed instance may take to be Ready: the kubelet's back-off may have reached five minutes.
const HEAL_DEADLINE: Duration = Duration::from_secs(360);

/// What a fault works on.
pub struct Scene<'a> {
    /// The lab's API server.
    pub client: &'a Client,
    /// The lab's files.
    pub place: &'a Place,
    /// The instance to harm, e.g. `pg-2`.
    pub instance: &'a str,
    /// Tells what happens.
    pub tell: Tell<'a>,
}

type Outcome<'a> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + 'a>>;

/// One fault.
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Makes the damage; returns the proof as a sentence.
    inflict: for<'a> fn(&'a Scene<'a>) -> Outcome<'a>,
}

/// Every fault there is.
pub const ALL: &[Fault] = &[
    kill_server::FAULT,
    lose_slot::FAULT,
    diverge::FAULT,
    galera_kill::FAULT,
    galera_all_down::FAULT,
    galera_partition::FAULT,
    galera_quorum_lost::FAULT,
    galera_zero_grastate::FAULT,
    galera_failed_sst::FAULT,
    galera_double_bootstrap::FAULT,
    galera_nil_uuid::FAULT,
    galera_ahead::FAULT,
    galera_suspended::FAULT,
    galera_scaled_down::FAULT,
    galera_ddl_kill::FAULT,
];

impl Fault {
    /// The fault called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|fault| fault.name == name)
    }

    /// Makes the damage and returns the proof.
    ///
    /// # Errors
    /// Names the step that failed, or the proof that did not come in time.
    pub async fn inflict(&self, scene: &Scene<'_>) -> anyhow::Result<String> {
        (self.inflict)(scene)
            .await
            .with_context(|| format!("{} {}", self.name, scene.instance))
    }
}

/// Undoes what a fault file asks for and waits until the instance is Ready again.
///
/// # Errors
/// Says so when no fault file exists: other damage is for hasteward to repair.
pub async fn heal(scene: &Scene<'_>) -> anyhow::Result<String> {
    if galera::owns(scene.instance) {
        return galera_cluster::Cluster::of(scene).await?.heal().await;
    }
    let file = scene.fault_file();
    match fs::remove_file(&file) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "{} has no fault that can be switched off; lost history needs a repair",
                scene.instance
            )
        }
        Err(error) => return Err(error).with_context(|| format!("remove {}", file.display())),
    }
    (scene.tell)("fault switched off, waiting for the kubelet to start the container again");
    until(format!("{} Ready", scene.instance), HEAL_DEADLINE, async || {
        let pod = scene.pod().await?;
        Ok(if is_ready(&pod) {
            Look::Done(())
        } else {
            Look::not_yet("not Ready")
        })
    })
    .await?;
    Ok(format!("{} is Ready again", scene.instance))
}

impl Scene<'_> {
    /// The kubelet's fault file of the instance.
    fn fault_file(&self) -> PathBuf {
        self.place
            .faults()
            .join(format!("{}.{}", cnpg::NAMESPACE, self.instance))
    }

    /// The instance's pod.
    async fn pod(&self) -> anyhow::Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), cnpg::NAMESPACE);
        pods.get(self.instance)
            .await
            .with_context(|| format!("pod {}", self.instance))
    }

    /// The instance's container and the primary's; an error if the instance is the primary.
    async fn replica_and_primary(&self) -> anyhow::Result<(Container, Container)> {
        let primary = cnpg::primary(self.client).await?;
        if primary == self.instance {
            bail!("{primary} is the primary; this fault needs a replica");
        }
        Ok((
            Container::of(self.client, self.instance).await?,
            Container::of(self.client, &primary).await?,
        ))
    }
}

/// Whether a pod's Ready condition is True.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lower_case() {
        let mut names: Vec<&str> = ALL.iter().map(|fault| fault.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        );
        assert!(Fault::named("no-such-fault").is_none());
    }
}
