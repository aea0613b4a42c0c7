//! `hasteward-lab-kubelet`: see `tests/lab/README.md`.

use std::process::ExitCode;

use clap::Parser as _;
use hasteward_lab_kubelet::options::Options;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let verb = std::env::args().nth(1).unwrap_or_default();
    // Helpers are single-threaded: before any runtime exists.
    if let Some(result) = hasteward_lab_kubelet::run_helper(&verb) {
        return Ok(ExitCode::from(u8::try_from(result?).unwrap_or(255)));
    }
    let options = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    tokio::runtime::Runtime::new()?.block_on(hasteward_lab_kubelet::kubelet::run(options))?;
    Ok(ExitCode::SUCCESS)
}
