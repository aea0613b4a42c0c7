#![no_main]
//! Timeline histories. What is accepted increases.

use hasteward_agent::postgres::history::TimelineHistory;
use hasteward_proto::primitive::TimelineId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, &[u8])| {
    let Some(timeline) = TimelineId::new(input.0) else {
        return;
    };
    if let Ok(history) = TimelineHistory::parse(timeline, input.1) {
        assert!(
            history
                .switches
                .is_sorted_by(|a, b| a.parent < b.parent && a.at <= b.at)
        );
        assert!(history.switches.last().is_none_or(|last| last.parent < timeline));
    }
});
