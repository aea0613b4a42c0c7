//! All nodes but one died at once: the survivor has the data and no quorum.

use anyhow::ensure;

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};

pub(super) const FAULT: Fault = Fault {
    name: "galera-quorum-lost",
    about: "kill all Galera nodes but this one: it lives without quorum; the operator is suspended",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let survivor = cluster.victim()?;
    // The operator would scale to 0 and so end the survivor.
    cluster.suspend().await?;
    cluster.tell(&format!("killing all but {}", survivor.name));
    let others = cluster.others()?;
    ensure!(
        others.len() > 1,
        "half of two nodes keeps quorum only by luck: three are needed"
    );
    for node in &others {
        cluster.crash(node)?;
    }
    for node in &others {
        cluster.backing_off(node).await?;
    }
    let status = cluster
        .says(survivor, "without quorum", |status| {
            status.component == "non-Primary"
        })
        .await?;
    let Err(refused) = cluster.commit(survivor, "without quorum").await else {
        anyhow::bail!("{} takes writes without quorum", survivor.name);
    };
    // ER_UNKNOWN_COM_ERROR: "WSREP has not yet prepared node for application use".
    let refused = format!("{refused:#}");
    ensure!(refused.contains("1047"), "{refused}");
    Ok(format!(
        "{} is {} at {} and refuses queries (1047); {} nodes are down",
        survivor.name,
        status.component,
        status.committed,
        others.len()
    ))
}
