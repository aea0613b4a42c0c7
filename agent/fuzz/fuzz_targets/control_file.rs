#![no_main]
//! `global/pg_control`: as it is, and again under a right CRC, so that the fields behind it are reached.

use hasteward_agent::postgres::control_file::ControlFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    for at in [288, 292] {
        let mut sealed = bytes.to_vec();
        if sealed.len() >= at + 4 {
            let crc = crc32c::crc32c(&sealed[..at]);
            sealed[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            let _ = ControlFile::parse(&sealed);
        }
    }
});
