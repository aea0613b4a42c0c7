#![no_main]
//! A hold file.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = hasteward_agent::galera::config::held_by(bytes);
});
