//! `hasteward-lab-kubelet`: see `tests/lab/README.md`.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let verb = std::env::args().nth(1).unwrap_or_default();
    // Helpers are single-threaded: before any runtime exists.
    if let Some(result) = hasteward_lab_kubelet::run_helper(&verb) {
        return Ok(ExitCode::from(u8::try_from(result?).unwrap_or(255)));
    }
    Ok(ExitCode::SUCCESS)
}
