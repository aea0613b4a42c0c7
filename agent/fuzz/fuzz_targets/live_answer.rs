#![no_main]
//! The server's answer.

use hasteward_agent::postgres::live::answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = answer::parse(text);
});
