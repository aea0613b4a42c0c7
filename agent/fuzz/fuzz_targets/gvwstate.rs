#![no_main]
//! `gvwstate.dat`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = hasteward_agent::galera::view_state::parse(bytes);
});
