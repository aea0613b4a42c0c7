#![no_main]
//! The preamble of `galera.cache`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = hasteward_agent::galera::cache::parse(bytes);
});
