//! What every test here needs.

pub(crate) mod agent;
pub(crate) mod coordinator;
pub(crate) mod relay;
pub(crate) mod reviewer;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hasteward_coordinator::fleet::authority::Role;
use hasteward_coordinator::fleet::{CertificateAuthority, Clock, Subject, SystemClock};
use hasteward_proto::channel::{CertifiedIdentity, ChannelSettings, PersonName};
use hasteward_proto::primitive::{NodeName, UnixMillis};

/// The name that the coordinator's certificate carries.
pub(crate) const NAME: &str = "coordinator.test";
/// No wait in a test is longer.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn now() -> UnixMillis {
    SystemClock.now()
}

pub(crate) fn authority() -> Arc<CertificateAuthority> {
    Arc::new(CertificateAuthority::create(now()).unwrap())
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn node_certificate(authority: &CertificateAuthority, name: &str) -> CertifiedIdentity {
    authority.issue(&Subject::Node(node(name)), now()).unwrap()
}

pub(crate) fn person_certificate(
    authority: &CertificateAuthority,
    name: &str,
    role: Role,
) -> CertifiedIdentity {
    authority
        .issue(
            &Subject::Person {
                name: PersonName::new(name).unwrap(),
                role,
            },
            now(),
        )
        .unwrap()
}

/// Time limits that make a dead connection known within half a second.
pub(crate) fn quick() -> ChannelSettings {
    ChannelSettings {
        keep_alive_interval: Duration::from_millis(200),
        keep_alive_timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_secs(5),
        ..ChannelSettings::default()
    }
}

/// Waits for a state, level-triggered and bounded.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut state: impl FnMut() -> F) {
    let begun = tokio::time::Instant::now();
    while !state().await {
        assert!(begun.elapsed() < LONG, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A future with the limit of tests.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future)
        .await
        .unwrap_or_else(|_| panic!("not within {LONG:?}: {what}"))
}
