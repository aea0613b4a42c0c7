//! How an instance comes to be: `initdb` for the first, `pg_basebackup` for the others.

use super::configuration;
use super::postmaster::{Postmaster, Shutdown};
use super::sql::{Session, identifier, literal};
use super::{Place, certificates, programs};
use crate::cnpg::{Cluster, Scope};
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Secret;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Copies this program (`bootstrap-controller`).
pub(super) fn copy_program(to: &Path) -> anyhow::Result<()> {
    let from = std::env::current_exe().context("finding this program")?;
    let temporary = to.with_extension("new");
    fs::copy(&from, &temporary).with_context(|| format!("copying to {}", temporary.display()))?;
    fs::rename(&temporary, to).with_context(|| format!("renaming to {}", to.display()))
}

async fn begin(place: &Place) -> anyhow::Result<(Scope, Cluster)> {
    let client = kube::Client::try_default()
        .await
        .context("finding the API server")?;
    let scope = Scope {
        client,
        namespace: place.namespace.clone(),
    };
    let cluster = scope
        .api::<Cluster>()
        .get(&place.cluster)
        .await
        .context("reading the Cluster")?;
    certificates::refresh(place, &scope).await?;
    for directory in [
        place.sockets(),
        place.controller.join("log"),
        place.controller.join("tmp"),
    ] {
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    }
    Ok((scope, cluster))
}

/// Sets aside what lies where the data shall go: renamed when it has a readable pg_control, removed otherwise.
async fn clear(place: &Place) -> anyhow::Result<()> {
    let readable = programs::output(place, "pg_controldata", &[&place.pgdata])
        .await
        .is_ok();
    let suffix = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for path in [Some(place.pgdata.clone()), place.separate_wal()]
        .into_iter()
        .flatten()
    {
        if !path.exists() {
            continue;
        }
        if readable {
            let mut aside = path.clone().into_os_string();
            aside.push(format!("_{suffix}"));
            fs::rename(&path, &aside).with_context(|| format!("setting {} aside", path.display()))?;
        } else {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Makes the first instance.
pub(super) async fn init(place: &Place) -> anyhow::Result<()> {
    let (scope, cluster) = begin(place).await?;
    clear(place).await?;
    let initdb = cluster.initdb();
    let mut args: Vec<OsString> = [
        "--username",
        "postgres",
        "--encoding",
        "UTF8",
        "--lc-collate",
        "C",
        "--lc-ctype",
        "C",
        "-D",
    ]
    .map(OsString::from)
    .into();
    args.push(place.pgdata.clone().into());
    if let Some(wal) = place.separate_wal() {
        args.extend(["--waldir".into(), wal.into()]);
    }
    if initdb.data_checksums {
        args.push("--data-checksums".into());
    }
    if let Some(megabytes) = initdb.wal_segment_size {
        args.extend(["--wal-segsize".into(), megabytes.to_string().into()]);
    }
    programs::run(place, "initdb", &args).await?;
    configuration::refresh(place, &cluster, None).context("writing the configuration")?;

    let mut server = Postmaster::start(place, &["-c", "listen_addresses=", "-c", "archive_mode=off"])?;
    let filled = tokio::select! {
        filled = fill(place, &scope, &cluster) => filled,
        status = server.gone() => bail!("postgres left while the first instance was made: {status:?}"),
    };
    if !server.stop(Shutdown::Fast, Duration::from_secs(120)).await {
        bail!("postgres did not stop");
    }
    filled?;
    fs::write(
        place.pgdata.join(format!("cnpg_initialized-{}", place.instance)),
        "",
    )?;
    Ok(())
}

async fn wait_for_server(place: &Place) -> anyhow::Result<()> {
    let ready = async {
        while !programs::accepts_connections(place, place.sockets().as_os_str()).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ready)
        .await
        .context("the server did not start")
}

/// Roles and databases of a new cluster.
async fn fill(place: &Place, scope: &Scope, cluster: &Cluster) -> anyhow::Result<()> {
    wait_for_server(place).await?;
    let initdb = cluster.initdb();
    let session = Session::open(place, "postgres").await?;
    session
        .execute(
            "CREATE ROLE streaming_replica WITH REPLICATION LOGIN;
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO streaming_replica;
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO streaming_replica;
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO streaming_replica;
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)
                 TO streaming_replica;
             CREATE ROLE cnpg_metrics_exporter WITH LOGIN;
             GRANT pg_monitor TO cnpg_metrics_exporter;",
        )
        .await?;
    let owner = identifier(&initdb.owner);
    session
        .execute(&format!("CREATE ROLE {owner} WITH LOGIN"))
        .await?;
    let secret = format!("{}-app", place.cluster);
    if let Some(secret) = scope
        .api::<Secret>()
        .get_opt(&secret)
        .await
        .context("reading the owner's Secret")?
        && let Some(password) = secret.data.and_then(|mut data| data.remove("password"))
    {
        let password = String::from_utf8(password.0).context("the owner's password")?;
        session
            .execute(&format!("ALTER ROLE {owner} PASSWORD {}", literal(&password)))
            .await?;
    }
    session
        .execute(&format!(
            "CREATE DATABASE {} OWNER {owner}",
            identifier(&initdb.database)
        ))
        .await?;
    for statement in &initdb.post_init_sql {
        session.execute(statement).await?;
    }
    if !initdb.post_init_application_sql.is_empty() {
        let session = Session::open(place, &initdb.database).await?;
        for statement in &initdb.post_init_application_sql {
            session.execute(statement).await?;
        }
    }
    session.execute("CHECKPOINT").await
}

/// Clones the primary.
pub(super) async fn join(place: &Place, parent: &str) -> anyhow::Result<()> {
    let (_scope, cluster) = begin(place).await?;
    let host = OsString::from(parent);
    let reachable = async {
        while !programs::accepts_connections(place, &host).await {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reachable)
        .await
        .with_context(|| format!("{parent} does not accept connections"))?;
    clear(place).await?;
    let source = format!(
        "{} options='-c wal_sender_timeout=0s'",
        configuration::replica_source(place, parent)
    );
    let mut args: Vec<&OsStr> = vec![
        OsStr::new("-D"),
        place.pgdata.as_os_str(),
        OsStr::new("-v"),
        OsStr::new("-w"),
    ];
    // A spread checkpoint would only make the lab slower.
    args.push(OsStr::new("--checkpoint=fast"));
    let wal = place.separate_wal();
    if let Some(wal) = &wal {
        args.extend([OsStr::new("--waldir"), wal.as_os_str()]);
    }
    args.extend([OsStr::new("-d"), OsStr::new(&source)]);
    programs::run(place, "pg_basebackup", &args).await?;
    configuration::write_replica(place, &cluster).context("writing the replica's configuration")?;
    let control = programs::output(place, "pg_controldata", &[&place.pgdata]).await?;
    configuration::refresh(place, &cluster, Some(&control)).context("writing the configuration")?;
    Ok(())
}
