#![no_main]
//! The rows of `SHOW GLOBAL STATUS`, tab-separated.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut rows = hasteward_agent::galera::live::Rows::default();
    for line in text.lines() {
        let (name, value) = line.split_once('\t').unwrap_or((line, ""));
        rows.add(name, value.to_owned());
    }
    let _ = rows.server();
});
