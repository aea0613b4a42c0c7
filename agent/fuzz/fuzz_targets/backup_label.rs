#![no_main]
//! `backup_label`.

use hasteward_agent::postgres::backup_label::BackupLabel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = BackupLabel::parse(bytes);
});
