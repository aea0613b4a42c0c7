//! Missing WAL: what proves it, and what does not.

use rstest::rstest;

use super::{action, ids, oracle, state};
use crate::cnpg::assess;
use crate::evidence::cnpg::{DiskSlot, DiskSlotState, ServerSlot, SlotWal, StandbyState};
use crate::evidence::{Evidence, UnreadReason};
use crate::report::{Action, VerdictKind};
use crate::testing::{SEGMENT, World, ago, at, known, name, tl, wal};

fn slot(name: &str, restart: u64, wal_status: SlotWal) -> ServerSlot {
    ServerSlot {
        name: name.to_owned(),
        active: false,
        restart: Some(at(restart)),
        wal_status,
    }
}

fn add(world: &mut World, slot: ServerSlot) {
    if let Evidence::Known(known) = &mut world.get(1).server {
        known.value.slots.push(slot);
    }
}

/// The slot's name is matched whole: `_cnpg_c_20` holds nothing for `c-2`.
#[rstest]
#[case::none(None, Action::Reseed)]
#[case::of_another(Some(slot("_cnpg_c_20", SEGMENT, SlotWal::Kept)), Action::Reseed)]
#[case::lost(Some(slot("_cnpg_c_2", SEGMENT, SlotWal::Lost)), Action::Reseed)]
#[case::begins_too_late(Some(slot("_cnpg_c_2", 30 * SEGMENT, SlotWal::Kept)), Action::Reseed)]
#[case::kept(Some(slot("_cnpg_c_2", SEGMENT, SlotWal::Kept)), Action::Wait)]
#[case::unreserved(Some(slot("_cnpg_c_2", SEGMENT, SlotWal::Unreserved)), Action::Wait)]
fn a_slot_must_be_its_own_and_hold_what_it_needs(#[case] own: Option<ServerSlot>, #[case] expected: Action) {
    let mut world = oracle::lose_slot();
    let lost = own.as_ref().is_some_and(|slot| slot.wal_status == SlotWal::Lost);
    if let Some(slot) = own {
        add(&mut world, slot);
    }
    let report = assess(&world.ev);
    assert_eq!(action(&report, 2), expected, "{report:#?}");
    assert_eq!(ids(&report).contains(&"slot-lost"), lost);
}

#[test]
fn the_oldest_segment_must_be_past_the_needed_one() {
    let mut world = oracle::lose_slot();
    wal(world.get(1)).oldest = Some((at(5 * SEGMENT), tl(1)));
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);
}

/// W11: an answer that is missing is no proof.
#[test]
fn an_unread_primary_condemns_nobody() {
    let mut world = oracle::lose_slot();
    world.get(1).disk.wal = Evidence::unread(UnreadReason::Io, "x");
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);

    let mut world = oracle::lose_slot();
    world.get(1).server = Evidence::unread(UnreadReason::ServerError, "too many clients");
    world.get(1).disk.slots = Evidence::unread(UnreadReason::Corrupt, "x");
    let report = assess(&world.ev);
    assert_eq!(report.verdict.kind, VerdictKind::Provable);
    assert_ne!(action(&report, 2), Action::Reseed);
    assert_ne!(action(&report, 3), Action::Reseed);
}

/// The slots on disk say the same while the server is down; but then there is no donor.
#[test]
fn without_a_donor_nothing_is_erased() {
    let mut world = oracle::lose_slot();
    world.stop(1);
    let report = assess(&world.ev);
    assert_eq!(action(&report, 2), Action::Blocked, "{report:#?}");
    let own = DiskSlotState {
        restart: Some(at(SEGMENT)),
        logical: false,
    };
    world.get(1).disk.slots = known(vec![DiskSlot {
        name: "_cnpg_c_2".to_owned(),
        state: known(own),
    }]);
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);
}

/// Where an archive is configured, only standing still shows that it does not serve.
#[test]
fn an_archive_may_serve_what_the_primary_lost() {
    let mut world = oracle::lose_slot();
    world.resource().wal_archive = true;
    let report = assess(&world.ev);
    assert_eq!(action(&report, 2), Action::Wait);
    assert_eq!(report.exit_code(), 6);
    world.get(2).standing_since = Some(ago(899_000));
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);
    world.get(2).standing_since = Some(ago(901_000));
    assert_eq!(action(&assess(&world.ev), 2), Action::Reseed);
    // Down, it cannot move: a start shows whether the archive serves it.
    world.crash_loop(2);
    assert_eq!(action(&assess(&world.ev), 2), Action::Restart);
    // No archive at all: nothing that a start could change.
    world.resource().wal_archive = false;
    assert_eq!(action(&assess(&world.ev), 2), Action::Reseed);
}

/// W10: on a standby the checkpoint's timeline is old until the next restart point.
#[test]
fn an_old_checkpoint_timeline_is_no_reason() {
    let mut world = oracle::switchover();
    world.streams(1);
    let report = assess(&world.ev);
    assert_eq!(
        (action(&report, 3), report.exit_code()),
        (Action::None, 0),
        "{report:#?}"
    );
    // Read from its files alone, with the server down.
    world.stop(3);
    assert_eq!(action(&assess(&world.ev), 3), Action::Restart);
}

#[test]
fn catching_up_is_left_alone() {
    let mut world = World::healthy(3);
    world.disconnect(2);
    if let Evidence::Known(known) = &mut world.get(1).server {
        let row = crate::evidence::cnpg::Standby {
            application_name: "c-2".to_owned(),
            state: StandbyState::Catchup,
            flush: None,
            replay: None,
        };
        known.value.standbys.push(row);
    }
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 2), action(&report, 2), report.exit_code()),
        ("catching up", Action::Wait, 0)
    );
}

#[test]
fn running_and_not_streaming_is_told_and_restarted_when_it_stands_still() {
    let mut world = World::healthy(3);
    world.disconnect(2);
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 2), action(&report, 2)),
        ("not streaming", Action::Wait)
    );
    assert_eq!(ids(&report), ["cnpg-replica-not-streaming"]);
    world.get(2).standing_since = Some(ago(301_000));
    assert_eq!(action(&assess(&world.ev), 2), Action::Restart);
}

#[test]
fn a_row_of_another_name_is_not_its_row() {
    let mut world = World::healthy(3);
    world.agent_down(2);
    world.get(2).remembered = None;
    if let Evidence::Known(known) = &mut world.get(1).server {
        known
            .value
            .standbys
            .iter_mut()
            .for_each(|row| row.application_name = row.application_name.replace("c-2", "c-20"));
    }
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
    assert_eq!(name(2).cnpg_slot_name(), "_cnpg_c_2");
}

/// It stands still because somebody wants it to.
#[test]
fn a_paused_replay_is_respected_and_told() {
    let mut gone = oracle::lose_slot();
    gone.resource().wal_archive = true;
    let mut idle = World::healthy(3);
    idle.disconnect(2);
    for mut world in [gone, idle] {
        world.get(2).standing_since = Some(ago(9_000_000));
        assert_ne!(action(&assess(&world.ev), 2), Action::None);
        if let Evidence::Known(known) = &mut world.get(2).server {
            known.value.replay_paused = true;
        }
        let report = assess(&world.ev);
        assert_eq!(
            (action(&report, 2), ids(&report)),
            (Action::None, vec!["replay-paused"])
        );
        assert!(
            report.diagnoses[0]
                .remedy
                .contains("SELECT pg_wal_replay_resume()")
        );
    }
}
