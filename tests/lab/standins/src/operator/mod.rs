//! The CloudNativePG operator.

/// Command line of the operator.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until it is stopped.
#[expect(clippy::unused_async, reason = "the signature every stand-in has")]
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("the operator is not part of this build")
}
