//! High-availability slots: on the primary one for every other instance.

use super::sql::{Session, literal, text};
use crate::cnpg::{Cluster, names};
use std::collections::BTreeSet;

/// What is to be done about slots.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    create: Vec<String>,
    drop: Vec<String>,
}

/// Every expected slot is made, an unexpected one is dropped unless somebody uses it. A slot that lost its WAL is
/// left as it is: nobody notices.
fn work(expected: &BTreeSet<String>, existing: &[(String, bool)]) -> Work {
    Work {
        create: expected
            .iter()
            .filter(|name| existing.iter().all(|(had, _)| had != *name))
            .cloned()
            .collect(),
        drop: existing
            .iter()
            .filter(|(name, active)| !active && !expected.contains(name))
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// Brings the primary's slots in line with `status.instanceNames`.
pub(super) async fn reconcile(session: &Session, cluster: &Cluster, instance: &str) -> anyhow::Result<()> {
    let settings = &cluster.spec.replication_slots.high_availability;
    let expected: BTreeSet<String> = if settings.enabled {
        cluster
            .observed()
            .instance_names
            .iter()
            .filter(|name| *name != instance)
            .map(|name| names::slot(&settings.slot_prefix, name))
            .collect()
    } else {
        BTreeSet::new()
    };
    let existing: Vec<(String, bool)> = session
        .rows("SELECT slot_name, active FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary")
        .await?
        .iter()
        .map(|row| (text(row, "slot_name"), text(row, "active") == "t"))
        .filter(|(name, _)| name.starts_with(&settings.slot_prefix))
        .collect();
    let work = work(&expected, &existing);
    for name in &work.create {
        session
            .execute(&format!(
                "SELECT pg_create_physical_replication_slot({}, true)",
                literal(name)
            ))
            .await?;
    }
    for name in &work.drop {
        session
            .execute(&format!("SELECT pg_drop_replication_slot({})", literal(name)))
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_slot_goes_only_when_idle() {
        let expected = BTreeSet::from(["_cnpg_c_2".to_owned(), "_cnpg_c_3".to_owned()]);
        let existing = [
            ("_cnpg_c_2".to_owned(), false),
            ("_cnpg_c_4".to_owned(), false),
            ("_cnpg_c_5".to_owned(), true),
        ];
        assert_eq!(
            work(&expected, &existing),
            Work {
                create: vec!["_cnpg_c_3".to_owned()],
                drop: vec!["_cnpg_c_4".to_owned()]
            }
        );
    }
}
