//! `cargo lab bench`: the numbers that the design promises, measured on release builds.

pub mod figures;
mod idle;
pub mod triage;

use std::process::ExitCode;

use crate::cli::{Bench, BenchName};
use crate::options::{UpOptions, Which};
use crate::place::LabName;
use crate::up::{Ownership, up};
use crate::{down, prepare};

use figures::Figures;

/// Brings a lab of its own up, measures, and takes it down.
pub async fn run(which: &Which, order: &Bench) -> anyhow::Result<ExitCode> {
    // Only release builds count: a debug build makes them, and hands over.
    if !prepare::is_release() {
        let status = tokio::process::Command::new(prepare::release().await?)
            .args(std::env::args_os().skip(1))
            .arg("--prebuilt")
            .status()
            .await?;
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from));
    }
    if !order.prebuilt {
        prepare::programs().await?;
    }
    let which = Which {
        name: LabName::unique("bench"),
        root: which.root.clone(),
    };
    let place = which.place()?;
    let measured = tokio::select! {
        measured = measure(&which, order) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    down::down(&place)?;
    let figures = measured?;
    let line = figures.json();
    if let Some(file) = &order.output {
        std::fs::write(file, format!("{line}\n"))?;
    }
    if order.json {
        println!("{line}");
    } else {
        anstream::print!("{}", figures.table());
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(which: &Which, order: &Bench) -> anyhow::Result<Figures> {
    let options = UpOptions {
        pg: 3,
        ..UpOptions::default()
    };
    let client = up(which, &options, Ownership::Lifeline, &|line| {
        anstream::eprintln!("• {line}");
    })
    .await?;
    match order.bench {
        BenchName::Triage => triage::measure(&client, &which.place()?, order.runs).await,
        BenchName::Idle => idle::measure(&client, order.runs).await,
    }
}
