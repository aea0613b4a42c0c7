//! [`Metrics`]: every metric, as typed functions over an own registry.

use std::time::Duration;

use hasteward_proto::primitive::Engine;
use hasteward_verdict::report::VerdictKind;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Triage buckets, seconds: the bar is 0.05 in the median and 0.25 at the 99th percentile.
const TRIAGE_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Every metric of the coordinator.
pub struct Metrics {
    registry: Registry,
    triage_seconds: HistogramVec,
    verdicts: IntCounterVec,
    agents: IntGaugeVec,
    identity_conflicts: IntCounter,
    enrolments: IntCounterVec,
    refused: IntCounterVec,
    watch_synced: IntGaugeVec,
    resident_bytes: IntGauge,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("hasteward_build_info", "The running release."),
            &["version"],
        )?;
        build.with_label_values(&[version]).set(1);
        registry.register(Box::new(build))?;
        let triage = HistogramOpts::new(
            "hasteward_triage_seconds",
            "Time from a triage request to its verdict.",
        )
        .buckets(TRIAGE_BUCKETS.into());
        let this = Self {
            triage_seconds: HistogramVec::new(triage, &["engine"])?,
            verdicts: IntCounterVec::new(
                Opts::new("hasteward_verdicts_total", "Verdicts given, by kind."),
                &["engine", "kind"],
            )?,
            agents: IntGaugeVec::new(Opts::new("hasteward_agents", "Agents by state."), &["state"])?,
            identity_conflicts: IntCounter::new(
                "hasteward_agent_identity_conflicts_total",
                "Times that a second live agent claimed a node that another one held.",
            )?,
            enrolments: IntCounterVec::new(
                Opts::new("hasteward_enrolments_total", "Enrolments by result."),
                &["result"],
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "hasteward_connections_refused_total",
                    "Refused connections by reason.",
                ),
                &["reason"],
            )?,
            watch_synced: IntGaugeVec::new(
                Opts::new(
                    "hasteward_watch_synced",
                    "1 where a watch is complete and current.",
                ),
                &["kind"],
            )?,
            resident_bytes: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory of the coordinator.",
            )?,
            registry,
        };
        this.registry.register(Box::new(this.triage_seconds.clone()))?;
        this.registry.register(Box::new(this.verdicts.clone()))?;
        this.registry.register(Box::new(this.agents.clone()))?;
        this.registry
            .register(Box::new(this.identity_conflicts.clone()))?;
        this.registry.register(Box::new(this.enrolments.clone()))?;
        this.registry.register(Box::new(this.refused.clone()))?;
        this.registry.register(Box::new(this.watch_synced.clone()))?;
        this.registry.register(Box::new(this.resident_bytes.clone()))?;
        Ok(this)
    }

    /// A triage gave a verdict.
    pub fn triage_done(&self, engine: Engine, kind: VerdictKind, took: Duration) {
        let engine = engine.to_string();
        self.triage_seconds
            .with_label_values(&[&engine])
            .observe(took.as_secs_f64());
        let kind = match kind {
            VerdictKind::Provable => "provable",
            VerdictKind::LeaderNotPrimary => "leader_not_primary",
            VerdictKind::Diverged => "diverged",
            VerdictKind::Undeterminable => "undeterminable",
        };
        self.verdicts.with_label_values(&[engine.as_str(), kind]).inc();
    }

    /// How many agents are in `state`.
    pub fn agents(&self, state: &str, count: usize) {
        self.agents
            .with_label_values(&[state])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Two live agents claimed one node.
    pub fn identity_conflict(&self) {
        self.identity_conflicts.inc();
    }

    /// An enrolment ended: `issued`, or why it was refused.
    pub fn enrolment(&self, result: &str) {
        self.enrolments.with_label_values(&[result]).inc();
    }

    /// A connection was refused.
    pub fn connection_refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Whether the watch of `kind` is complete and current.
    pub fn watch(&self, kind: &str, synced: bool) {
        self.watch_synced
            .with_label_values(&[kind])
            .set(i64::from(synced));
    }

    /// Resident memory, bytes.
    pub fn resident(&self, bytes: u64) {
        self.resident_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Everything in the Prometheus text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
