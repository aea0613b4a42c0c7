//! Everything that a request may need.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit::Audit;
use crate::auth::roles;
use crate::auth::tokens::{KeyError, Tokens};
use crate::background::Background;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::objects::{self, WriteOptions};
use crate::pki::{Authority, PkiError};
use crate::resource::Resource;
use crate::store::{Store, Txn};

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data directory; keys are in `pki` below it.
    pub data: PathBuf,
    /// Changes kept for each resource; a watch from before them gets 410.
    pub history: usize,
    /// How often a quiet watch with bookmarks gets one.
    pub bookmark_every: std::time::Duration,
    /// JSON that makes requests fail, read again when it changes.
    pub fault_file: Option<PathBuf>,
    /// JSON lines of every request.
    pub audit_log: Option<PathBuf>,
    /// The time.
    pub clock: Clock,
}

impl Config {
    /// The usual set-up for a data directory.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            history: 4096,
            bookmark_every: std::time::Duration::from_secs(30),
            fault_file: None,
            audit_log: None,
            clock: Clock::system(),
        }
    }
}

/// Why a server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The certificate authority.
    #[error("certificate authority")]
    Authority(#[from] PkiError),
    /// The key that signs tokens.
    #[error("token key")]
    TokenKey(#[from] KeyError),
    /// The audit log.
    #[error("open the audit log")]
    AuditLog(#[source] std::io::Error),
    /// An object that is there from the start.
    #[error("initial object: {0}")]
    InitialObject(String),
}

/// The server's parts.
pub struct Api {
    /// Objects.
    pub store: Store,
    /// Served resources.
    pub catalog: Catalog,
    /// Certificates.
    pub authority: Authority,
    /// ServiceAccount tokens.
    pub tokens: Tokens,
    /// The time.
    pub clock: Clock,
    /// Requests that shall fail.
    pub faults: Faults,
    /// Who did what.
    pub audit: Audit,
    /// How often a quiet watch with bookmarks gets one.
    pub bookmark_every: std::time::Duration,
    /// What runs beside requests.
    pub background: Background,
}

impl Api {
    /// Sets a server up with its initial namespaces, roles and bindings.
    pub fn new(config: &Config) -> Result<Arc<Self>, SetupError> {
        let authority = Authority::open(&config.data)?;
        let now = config.clock.now();
        let origin = u64::try_from(now.as_millisecond()).unwrap_or(1);
        let api = Self {
            store: Store::new(origin, config.history),
            catalog: Catalog::new(),
            tokens: Tokens::open(&config.data, config.clock.clone())?,
            authority,
            clock: config.clock.clone(),
            faults: Faults::new(config.fault_file.clone()),
            audit: Audit::open(config.audit_log.as_deref(), config.clock.clone())
                .map_err(SetupError::AuditLog)?,
            bookmark_every: config.bookmark_every,
            background: Background::default(),
        };
        api.populate()?;
        Ok(Arc::new(api))
    }

    fn populate(&self) -> Result<(), SetupError> {
        let mut initial: Vec<(&str, &str, Value)> = Vec::new();
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            initial.push(("", "Namespace", json!({"metadata": {"name": name}})));
        }
        let rbac = "rbac.authorization.k8s.io";
        initial.extend(
            roles::cluster_roles()
                .into_iter()
                .map(|r| (rbac, "ClusterRole", r)),
        );
        initial.extend(
            roles::cluster_role_bindings()
                .into_iter()
                .map(|b| (rbac, "ClusterRoleBinding", b)),
        );
        for (name, value) in [
            ("system-cluster-critical", 2_000_000_000),
            ("system-node-critical", 2_000_001_000),
        ] {
            initial.push((
                "scheduling.k8s.io",
                "PriorityClass",
                json!({"metadata": {"name": name}, "value": value}),
            ));
        }
        for (group, kind, object) in initial {
            let failed = || SetupError::InitialObject(format!("{kind} {object}"));
            let resource = self.catalog.find_kind(group, kind).ok_or_else(failed)?;
            self.write(&resource, |txn, options| {
                objects::create(txn, &resource, "", object.clone(), options)
            })
            .map_err(|e| SetupError::InitialObject(format!("{kind}: {e}")))?;
        }
        let services = self.catalog.find_kind("", "Service");
        if let Some(resource) = services {
            let service = json!({"metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}});
            self.write(&resource, |txn, options| {
                objects::create(txn, &resource, "default", service, options)
            })
            .map_err(|e| SetupError::InitialObject(format!("Service: {e}")))?;
        }
        Ok(())
    }

    /// Runs a write of a resource with the server's own options, and what follows from it.
    pub fn write<T>(&self, resource: &Resource, act: impl FnOnce(&mut Txn<'_>, &WriteOptions) -> T) -> T {
        let options = WriteOptions::server(self.clock.now());
        self.write_as(resource, &options, act)
    }

    /// Runs a write of a resource, and what follows from it in the same moment: definitions change the catalog,
    /// a namespace gets its ServiceAccount and CA bundle.
    pub fn write_as<T>(
        &self,
        resource: &Resource,
        options: &WriteOptions,
        act: impl FnOnce(&mut Txn<'_>, &WriteOptions) -> T,
    ) -> T {
        self.store.write(|txn| {
            let out = act(txn, options);
            if resource.drawer == objects::definitions() {
                let all = txn.list(&objects::definitions(), "");
                self.catalog.rebuild(all.iter().map(AsRef::as_ref));
            }
            if resource.drawer == objects::namespaces() {
                self.furnish(txn);
            }
            out
        })
    }

    /// Every living namespace has a default ServiceAccount and the CA bundle. Also called when one was deleted.
    pub(crate) fn furnish(&self, txn: &mut Txn<'_>) {
        let options = WriteOptions::server(self.clock.now());
        let namespaces = txn.list(&objects::namespaces(), "");
        for namespace in namespaces.iter().filter(|n| !crate::object::terminating(n)) {
            let namespace = crate::object::name(namespace);
            for (kind, object) in [
                ("ServiceAccount", json!({"metadata": {"name": "default"}})),
                (
                    "ConfigMap",
                    json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self.authority.certificate()}}),
                ),
            ] {
                if let Some(resource) = self.catalog.find_kind("", kind) {
                    // It being there already is the usual case.
                    let _ = objects::create(txn, &resource, namespace, object, &options);
                }
            }
        }
    }
}
