//! `hasteward man`

use std::path::Path;

use clap::CommandFactory;
use hasteward_proto::failure::Failure;

use super::environment;
use crate::args::Cli;
use crate::output::{Data, Man, Outcome};

/// Writes a page a command into `directory`.
pub(crate) fn write(directory: &Path) -> Result<Outcome, Failure> {
    let failed = |e: &std::io::Error| {
        environment(
            &format!("man pages could not be written to {}", directory.display()),
            e,
        )
    };
    std::fs::create_dir_all(directory).map_err(|e| failed(&e))?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(|e| failed(&e))?;
    let entries = std::fs::read_dir(directory).map_err(|e| failed(&e))?;
    let names = entries.filter_map(|e| e.ok()?.path().to_str().map(str::to_owned));
    let mut files: Vec<String> = names
        .filter(|n| n.contains("hasteward") && n.ends_with(".1"))
        .collect();
    files.sort();
    Ok(Outcome::done(Data::Man(Man { files })))
}
