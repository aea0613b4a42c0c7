#![no_main]
//! The log of `mariadbd --wsrep-recover`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = hasteward_agent::galera::recovered::parse(bytes);
});
