//! The objects, in memory, with one resourceVersion counter and a bounded history per resource for watches.

mod history;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use history::History;
pub use history::{Change, Event};

use crate::object;

/// Which drawer an object lies in, whatever version it is served as.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name.
    pub plural: String,
}

impl GroupResource {
    /// A drawer by its two names.
    pub fn new(group: impl Into<String>, plural: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            plural: plural.into(),
        }
    }
}

/// The name of an object within its resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, empty for cluster-wide objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key by its two names.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of(value: &Value) -> Self {
        Self::new(object::namespace(value), object::name(value))
    }
}

#[derive(Default)]
struct Drawer {
    objects: BTreeMap<Key, Arc<Value>>,
    history: History,
}

struct Inner {
    version: u64,
    origin: u64,
    drawers: HashMap<GroupResource, Drawer>,
    history_limit: usize,
    taps: Vec<mpsc::UnboundedSender<(GroupResource, Event)>>,
}

/// The store. Every write happens under one lock, so a write sees what it decides on.
pub struct Store {
    inner: Mutex<Inner>,
    latest: watch::Sender<u64>,
}

/// What a watcher gets when it asks for changes past a version.
pub enum Since {
    /// The changes, oldest first, and the version up to which they are complete.
    Changes(Vec<Event>, u64),
    /// The version lies before the kept history; the oldest version from which a watch may start.
    Expired(u64),
}

impl Store {
    /// An empty store that keeps `history_limit` changes for each resource.
    ///
    /// `origin` is the first resourceVersion. It must grow from start to start (a time will do): a client that
    /// comes with a version of an earlier life is then told that it expired instead of being given a wrong past.
    pub fn new(origin: u64, history_limit: usize) -> Self {
        let origin = origin.max(1);
        Self {
            inner: Mutex::new(Inner {
                version: origin,
                origin,
                drawers: HashMap::new(),
                history_limit: history_limit.max(1),
                taps: Vec::new(),
            }),
            latest: watch::Sender::new(origin),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in a request must not take the server with it; every write is one map operation.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` with the store to itself.
    pub fn write<T>(&self, act: impl FnOnce(&mut Txn<'_>) -> T) -> T {
        let mut inner = self.lock();
        let before = inner.version;
        let out = act(&mut Txn { inner: &mut inner });
        let after = inner.version;
        drop(inner);
        if after != before {
            self.latest.send_modify(|latest| *latest = (*latest).max(after));
        }
        out
    }

    /// One object.
    pub fn get(&self, of: &GroupResource, key: &Key) -> Option<Arc<Value>> {
        self.lock()
            .drawers
            .get(of)
            .and_then(|d| d.objects.get(key))
            .cloned()
    }

    /// Every object of a resource, in one namespace or (empty) all, with the version of that moment.
    pub fn list(&self, of: &GroupResource, namespace: &str) -> (Vec<Arc<Value>>, u64) {
        let inner = self.lock();
        (listed(&inner, of, namespace), inner.version)
    }

    /// The current version.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Tells of new versions.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Every change from now on.
    pub fn tap(&self) -> mpsc::UnboundedReceiver<(GroupResource, Event)> {
        let (to, from) = mpsc::unbounded_channel();
        self.lock().taps.push(to);
        from
    }

    /// The changes of a resource past `version`.
    pub fn since(&self, of: &GroupResource, version: u64) -> Since {
        let inner = self.lock();
        if version < inner.origin {
            return Since::Expired(inner.origin);
        }
        // A version of the future is one of another life, too.
        if version > inner.version {
            return Since::Expired(inner.version);
        }
        match inner.drawers.get(of) {
            None => Since::Changes(Vec::new(), inner.version),
            Some(drawer) => match drawer.history.since(version) {
                Ok(events) => Since::Changes(events, inner.version),
                Err(oldest) => Since::Expired(oldest),
            },
        }
    }

    /// Forgets the history of every resource: watches that start from an older version get 410.
    pub fn compact(&self) {
        let mut inner = self.lock();
        let version = inner.version;
        inner.drawers.values_mut().for_each(|d| d.history.forget(version));
    }
}

fn listed(inner: &Inner, of: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
    let Some(drawer) = inner.drawers.get(of) else {
        return Vec::new();
    };
    if namespace.is_empty() {
        return drawer.objects.values().cloned().collect();
    }
    drawer
        .objects
        .range(Key::new(namespace, "")..)
        .take_while(|(key, _)| key.namespace == namespace)
        .map(|(_, value)| value.clone())
        .collect()
}

/// The store during a write.
pub struct Txn<'a> {
    inner: &'a mut Inner,
}

impl Txn<'_> {
    /// One object.
    pub fn get(&self, of: &GroupResource, key: &Key) -> Option<Arc<Value>> {
        self.inner
            .drawers
            .get(of)
            .and_then(|d| d.objects.get(key))
            .cloned()
    }

    /// Every object of a resource, in one namespace or (empty) all.
    pub fn list(&self, of: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
        listed(self.inner, of, namespace)
    }

    /// The resources that have (or had) objects.
    pub fn resources(&self) -> Vec<GroupResource> {
        self.inner.drawers.keys().cloned().collect()
    }

    /// Writes an object under its own name with a new resourceVersion.
    pub fn put(&mut self, of: &GroupResource, mut value: Value) -> Arc<Value> {
        self.inner.version += 1;
        let version = self.inner.version;
        object::metadata_mut(&mut value).insert("resourceVersion".into(), version.to_string().into());
        let value = Arc::new(value);
        let drawer = self.inner.drawers.entry(of.clone()).or_default();
        let previous = drawer.objects.insert(Key::of(&value), value.clone());
        let change = if previous.is_some() {
            Change::Modified
        } else {
            Change::Added
        };
        self.note(
            of,
            Event {
                version,
                change,
                object: value.clone(),
                previous,
            },
        );
        value
    }

    /// Removes an object; `last` is what watchers see of it.
    pub fn remove(&mut self, of: &GroupResource, mut last: Value) -> Arc<Value> {
        self.inner.version += 1;
        let version = self.inner.version;
        object::metadata_mut(&mut last).insert("resourceVersion".into(), version.to_string().into());
        let last = Arc::new(last);
        let drawer = self.inner.drawers.entry(of.clone()).or_default();
        let previous = drawer.objects.remove(&Key::of(&last));
        self.note(
            of,
            Event {
                version,
                change: Change::Deleted,
                object: last.clone(),
                previous,
            },
        );
        last
    }

    fn note(&mut self, of: &GroupResource, event: Event) {
        self.inner
            .taps
            .retain(|tap| tap.send((of.clone(), event.clone())).is_ok());
        let limit = self.inner.history_limit;
        if let Some(drawer) = self.inner.drawers.get_mut(of) {
            drawer.history.push(event, limit);
        }
    }
}
