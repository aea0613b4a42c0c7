//! `hasteward-coordinator`: the same as `hasteward serve`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    hasteward_coordinator::run(hasteward_coordinator::args::Args::parse())
}
