//! The server is killed whenever it runs: a crash loop over intact data.

use std::time::Duration;

use super::{Fault, Outcome, Scene};
use crate::process::write_whole;
use crate::wait::{Look, until};

pub(super) const FAULT: Fault = Fault {
    name: "kill-server",
    about: "kill the container whenever it runs: a crash loop, the data is intact",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let instance = scene.instance;
    let before = restarts(scene).await?.restarts;
    (scene.tell)(&format!(
        "from now on the kubelet kills the container of {instance} whenever it runs"
    ));
    write_whole(&scene.fault_file(), br#"{"crashLoop": true}"#)?;
    let seen = until(
        format!("{instance} in a crash loop"),
        Duration::from_secs(90),
        async || {
            let now = restarts(scene).await?;
            Ok(if now.restarts > before && now.backing_off {
                Look::Done(now)
            } else {
                Look::NotYet(format!(
                    "{} restarts, in back-off: {}",
                    now.restarts, now.backing_off
                ))
            })
        },
    )
    .await?;
    Ok(format!(
        "{instance} is in CrashLoopBackOff after {} restarts; its data is untouched",
        seen.restarts
    ))
}

struct Restarts {
    restarts: i32,
    backing_off: bool,
}

async fn restarts(scene: &Scene<'_>) -> anyhow::Result<Restarts> {
    let statuses = scene
        .pod()
        .await?
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let postgres = statuses.into_iter().find(|status| status.name == "postgres");
    let waiting = postgres
        .as_ref()
        .and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    Ok(Restarts {
        restarts: postgres.map_or(0, |status| status.restart_count),
        backing_off: waiting.as_deref() == Some("CrashLoopBackOff"),
    })
}
