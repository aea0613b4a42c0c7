#![no_main]
//! `pg_replslot/*/state`: as it is, and again under a right CRC.

use hasteward_agent::postgres::slot::SlotState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = SlotState::parse(bytes);
    let mut sealed = bytes.to_vec();
    if let Some(length) = sealed
        .get(12..16)
        .map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize)
        && let Some(checked) = sealed.get(8..16usize.saturating_add(length))
    {
        let crc = crc32c::crc32c(checked);
        sealed[4..8].copy_from_slice(&crc.to_le_bytes());
        let _ = SlotState::parse(&sealed);
    }
});
