//! Looks at every primary now and then, so that what streamed is known before it breaks.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use hasteward_proto::primitive::ClusterRef;
use hasteward_proto::wire::agent::InspectPostgresRequest;

use super::{CnpgEngine, kubernetes, reading, target};

/// How long one primary may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How many primaries are asked at once.
const AT_ONCE: usize = 32;

/// Samples every `every`, for ever.
pub(super) async fn run(engine: &CnpgEngine, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let clusters: Vec<ClusterRef> = engine.list(None).into_iter().map(|row| row.cluster).collect();
        // An interrupted first list must not make us forget.
        if engine.caches.clusters.state().synced {
            engine.memory.forget_all_but(&clusters);
        }
        stream::iter(clusters)
            .for_each_concurrent(AT_ONCE, |cluster| async move { sample(engine, &cluster).await })
            .await;
    }
}

async fn sample(engine: &CnpgEngine, cluster: &ClusterRef) {
    let Some(object) = engine.caches.clusters.get(&cluster.namespace, &cluster.name) else {
        return;
    };
    let resource = kubernetes::resource(&object);
    let Some(primary) = &resource.current_primary else {
        return;
    };
    let Some(pod) = engine.caches.pods.get(&cluster.namespace, primary.as_str()) else {
        return;
    };
    if kubernetes::instance_of(&pod.metadata, &resource.uid).as_ref() != Some(primary) {
        return;
    }
    let Some(node) = kubernetes::pod(&pod).and_then(|p| p.node) else {
        return;
    };
    let request = InspectPostgresRequest {
        target: Some(target::target(cluster, &pod, &engine.caches)),
        always_scan_wal: false,
        budget_ms: 2_000,
    };
    // A primary that cannot be asked is triage's business; here it only means nothing new to remember.
    let Ok(reply) = engine.agents.inspect_postgres(&node, request, LIMIT).await else {
        return;
    };
    if let Some(server) = reading::server(reply.server).value().filter(|s| !s.in_recovery) {
        engine
            .memory
            .note_primary(cluster, primary, server, engine.clock.now());
    }
}
