//! `hasteward-lab-apiserver serve | kubeconfig`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use hasteward_lab_apiserver::pki::{Authority, write_private};
use hasteward_lab_apiserver::server::write_admin_kubeconfig;
use hasteward_lab_apiserver::{Config, Server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The lab's Kubernetes API server.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Serve(Serve),
    /// Write a kubeconfig with a fresh client certificate.
    Kubeconfig(Kubeconfig),
}

#[derive(Args)]
struct Serve {
    /// Data directory; keys are made in `pki` below it.
    #[arg(long)]
    data: PathBuf,
    /// Address to listen on.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Listening socket that was handed in, by its descriptor.
    #[arg(long)]
    listen_fd: Option<i32>,
    /// Where to write the administrator's kubeconfig when ready.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// URL in that kubeconfig; the first listening address if absent.
    #[arg(long)]
    kubeconfig_server: Option<String>,
    /// Changes kept for each resource; a watch from before them gets 410.
    #[arg(long, default_value_t = 4096)]
    history: usize,
    /// JSON list of requests that shall fail; read again when it changes.
    #[arg(long)]
    fault_file: Option<PathBuf>,
    /// Append a JSON line for each request.
    #[arg(long)]
    audit_log: Option<PathBuf>,
}

#[derive(Args)]
struct Kubeconfig {
    /// Data directory of the server.
    #[arg(long)]
    data: PathBuf,
    /// User name (CN).
    #[arg(long)]
    user: String,
    /// Group (O); at most two.
    #[arg(long)]
    group: Vec<String>,
    /// URL of the server.
    #[arg(long)]
    server: String,
    /// File to write.
    #[arg(long)]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Serve(serve) => run(serve).await,
        Command::Kubeconfig(asked) => {
            let groups: Vec<&str> = asked.group.iter().map(String::as_str).collect();
            let text = Authority::load(&asked.data)?.kubeconfig(&asked.user, &groups, &asked.server)?;
            Ok(write_private(&asked.out, text.as_bytes())?)
        }
    }
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    if let Some(address) = serve.listen {
        listeners.push(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("listen on {address}"))?,
        );
    }
    if let Some(descriptor) = serve.listen_fd {
        let listener =
            hasteward_lab_apiserver::socket::inherited(descriptor).context("listening socket handed in")?;
        listeners.push(TcpListener::from_std(listener)?);
    }
    anyhow::ensure!(!listeners.is_empty(), "give --listen or --listen-fd");
    let config = Config {
        history: serve.history,
        fault_file: serve.fault_file,
        audit_log: serve.audit_log,
        ..Config::new(serve.data)
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(&config, listeners)?;
    let url = serve.kubeconfig_server.unwrap_or_else(|| server.url());
    if let Some(path) = serve.kubeconfig {
        write_admin_kubeconfig(server.api(), &url, &path)?;
    }
    tracing::info!(addresses = ?server.addresses(), "serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}
