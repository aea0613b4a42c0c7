//! The node agent: parse, split, serve.

use std::process::ExitCode;

use clap::Parser;
use hasteward_agent::args::Args;
use hasteward_agent::{hands, head};

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the agent ends");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    head::log::start(args)?;
    head::state::prepare(&args.state_dir)?;
    // One thread until here: the hands are forked, then everything privileged is given up.
    let hands = hands::split(&args.hands())?;
    hands::become_head()?;
    head::run(args, hands)
}
