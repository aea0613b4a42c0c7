//! The primary's Lease (CloudNativePG 1.30): it gates promotions, it does not fence writes.

use super::state::Shared;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use std::time::{Duration, Instant};

/// Who holds the Lease after a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// We do.
    Ours,
    /// Somebody else does, and renewed it not long ago.
    Others(String),
}

/// The record as first seen, for as long as it does not change. Clocks of other machines are not trusted.
#[derive(Clone, Debug)]
struct Sighting {
    holder: String,
    renewed: Option<String>,
    at: Instant,
}

/// Our side of the Lease.
#[derive(Default)]
pub(super) struct PrimaryLease {
    sighting: Option<Sighting>,
    renewed: Option<Instant>,
    /// We held it at least once since the start.
    held: bool,
}

impl PrimaryLease {
    /// Whether another claim is due.
    pub(super) fn due(&self, retry: Duration) -> bool {
        self.renewed.is_none_or(|at| at.elapsed() >= retry)
    }

    /// Whether we held it.
    pub(super) fn was_held(&self) -> bool {
        self.held
    }

    /// Takes or renews the Lease, when it is free, ours, released or unchanged for its duration.
    pub(super) async fn claim(&mut self, shared: &Shared) -> kube::Result<Claim> {
        let me = &shared.place.instance;
        let seconds = shared.cluster().spec.primary_lease.lease_duration_seconds;
        let api = shared.scope.api::<Lease>();
        let found = api.get_opt(&shared.place.cluster).await?;
        let known = found.is_some();
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(shared.place.cluster.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let record = spec.renew_time.as_ref().map(|time| time.0.to_string());
        let patience = Duration::from_secs(u64::from(
            spec.lease_duration_seconds.map_or(seconds, i32::unsigned_abs),
        ));
        if !self.may_take(&holder, record, me, patience, Instant::now()) {
            return Ok(Claim::Others(holder));
        }
        let now = MicroTime(jiff::Timestamp::now());
        if holder != *me {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions =
                Some(spec.lease_transitions.unwrap_or(0) + i32::from(!holder.is_empty()));
        }
        spec.holder_identity = Some(me.clone());
        spec.lease_duration_seconds = i32::try_from(seconds).ok();
        spec.renew_time = Some(now);
        if known {
            api.replace(&shared.place.cluster, &PostParams::default(), &lease)
                .await?;
        } else {
            api.create(&PostParams::default(), &lease).await?;
        }
        self.renewed = Some(Instant::now());
        self.held = true;
        Ok(Claim::Ours)
    }

    fn may_take(
        &mut self,
        holder: &str,
        renewed: Option<String>,
        me: &str,
        patience: Duration,
        now: Instant,
    ) -> bool {
        if holder.is_empty() || holder == me {
            return true;
        }
        match &self.sighting {
            Some(seen) if seen.holder == holder && seen.renewed == renewed => {
                now.duration_since(seen.at) >= patience
            }
            _ => {
                self.sighting = Some(Sighting {
                    holder: holder.to_owned(),
                    renewed,
                    at: now,
                });
                false
            }
        }
    }

    /// Gives the Lease up after a clean shutdown.
    pub(super) async fn release(&mut self, shared: &Shared) {
        if !self.held {
            return;
        }
        let api = shared.scope.api::<Lease>();
        let released = async {
            let Some(mut lease) = api.get_opt(&shared.place.cluster).await? else {
                return kube::Result::<()>::Ok(());
            };
            let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
            if spec.holder_identity.as_deref() == Some(&shared.place.instance) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                api.replace(&shared.place.cluster, &PostParams::default(), &lease)
                    .await?;
            }
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(5), released).await {
            Ok(Ok(())) => self.held = false,
            Ok(Err(error)) => tracing::warn!("the Lease was not released: {error}"),
            Err(_) => tracing::warn!("the Lease was not released: no answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_over_only_after_its_record_stood_still() {
        let mut lease = PrimaryLease::default();
        let patience = Duration::from_secs(15);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let record = |text: &str| Some(text.to_owned());
        assert!(lease.may_take("", None, "c-2", patience, at(0)));
        assert!(lease.may_take("c-2", record("a"), "c-2", patience, at(0)));
        assert!(
            !lease.may_take("c-1", record("a"), "c-2", patience, at(0)),
            "first seen"
        );
        assert!(!lease.may_take("c-1", record("a"), "c-2", patience, at(14)));
        assert!(
            !lease.may_take("c-1", record("b"), "c-2", patience, at(16)),
            "renewed meanwhile"
        );
        assert!(!lease.may_take("c-1", record("b"), "c-2", patience, at(30)));
        assert!(lease.may_take("c-1", record("b"), "c-2", patience, at(31)));
    }
}
