//! `hasteward`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    hasteward::main(std::env::args_os())
}
