#![no_main]
//! `grastate.dat`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = hasteward_agent::galera::grastate::parse(bytes);
});
