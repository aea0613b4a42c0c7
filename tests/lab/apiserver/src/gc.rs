//! What happens on its own: dependents follow their owners, terminating namespaces and definitions are emptied,
//! claims in use are kept.

use std::sync::Arc;

use serde_json::Value;

use crate::api::Api;
use crate::object::{self, owners, text};
use crate::objects::{self, DeleteOptions, Propagation, WriteOptions};
use crate::store::{Change, Event, GroupResource, Key, Txn};

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";

/// Follows every change until the server goes.
pub(crate) async fn run(
    api: Arc<Api>,
    mut changes: tokio::sync::mpsc::UnboundedReceiver<(GroupResource, Event)>,
) {
    while let Some((drawer, event)) = changes.recv().await {
        let options = WriteOptions::server(api.clock.now());
        api.store
            .write(|txn| follow(&api, txn, &drawer, &event, &options));
    }
}

fn follow(api: &Api, txn: &mut Txn<'_>, drawer: &GroupResource, event: &Event, options: &WriteOptions) {
    let gone = event.change == Change::Deleted;
    if gone {
        owner_gone(txn, &event.object, options);
    } else {
        let before = event.previous.as_deref().map_or(&[][..], owners);
        if owners(&event.object) != before {
            orphaned(txn, drawer, &event.object, options);
        }
        if object::terminating(&event.object) {
            finalize(txn, drawer, &event.object, options);
        }
    }
    // An owner that waits may go on when a dependent is gone or lets go of it.
    let kept = if gone { &[][..] } else { owners(&event.object) };
    for owner in event.previous.as_deref().map_or(&[][..], owners) {
        if !kept.contains(owner) {
            blocked_owner(txn, text(owner, &["uid"]));
        }
    }
    match (drawer.group.as_str(), drawer.plural.as_str()) {
        ("", "namespaces") => empty_namespace(txn, object::name(&event.object), options),
        ("", "pods") => claims_of(txn, &event.object),
        ("", "persistentvolumeclaims") => release_claim(txn, &event.object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            empty_definition(txn, &event.object, options);
            let all = txn.list(&objects::definitions(), "");
            api.catalog.rebuild(all.iter().map(AsRef::as_ref));
        }
        ("", "configmaps" | "serviceaccounts") if gone => api.furnish(txn),
        _ => {}
    }
    let namespace = object::namespace(&event.object);
    if gone && !namespace.is_empty() {
        empty_namespace(txn, namespace, options);
    }
    if gone && drawer.group.contains('.') {
        let name = format!("{}.{}", drawer.plural, drawer.group);
        if let Some(definition) = txn.get(&objects::definitions(), &Key::new("", name)) {
            empty_definition(txn, &definition, options);
        }
    }
}

fn everything(txn: &Txn<'_>) -> Vec<(GroupResource, Arc<Value>)> {
    let drawers = txn.resources();
    drawers
        .into_iter()
        .flat_map(|d| {
            txn.list(&d, "")
                .into_iter()
                .map(move |o| (d.clone(), o))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn owned_by(object: &Value, uid: &str) -> bool {
    owners(object).iter().any(|owner| text(owner, &["uid"]) == uid)
}

fn dependents(txn: &Txn<'_>, uid: &str) -> Vec<(GroupResource, Arc<Value>)> {
    everything(txn)
        .into_iter()
        .filter(|(_, o)| owned_by(o, uid))
        .collect()
}

fn alive(txn: &Txn<'_>, uid: &str) -> bool {
    everything(txn).iter().any(|(_, o)| object::uid(o) == uid)
}

fn remove(
    txn: &mut Txn<'_>,
    drawer: &GroupResource,
    object: &Value,
    propagation: Propagation,
    options: &WriteOptions,
) {
    if object::terminating(object) {
        return;
    }
    let asked = DeleteOptions {
        propagation,
        ..DeleteOptions::default()
    };
    if let Err(error) = objects::delete_in(txn, drawer, object, &asked, options) {
        tracing::warn!(%error, plural = drawer.plural, name = object::name(object), "garbage collection");
    }
}

/// Deletes what an object owned alone; from what others own, too, only the reference goes.
fn owner_gone(txn: &mut Txn<'_>, owner: &Value, options: &WriteOptions) {
    let uid = object::uid(owner).to_owned();
    for (drawer, dependent) in dependents(txn, &uid) {
        let others = owners(&dependent)
            .iter()
            .any(|o| text(o, &["uid"]) != uid && alive(txn, text(o, &["uid"])));
        if others {
            drop_reference(txn, &drawer, &dependent, &uid);
        } else {
            remove(txn, &drawer, &dependent, Propagation::Background, options);
        }
    }
}

fn drop_reference(txn: &mut Txn<'_>, drawer: &GroupResource, dependent: &Value, uid: &str) {
    let mut dependent = dependent.clone();
    let kept: Vec<Value> = owners(&dependent)
        .iter()
        .filter(|o| text(o, &["uid"]) != uid)
        .cloned()
        .collect();
    let metadata = object::metadata_mut(&mut dependent);
    if kept.is_empty() {
        metadata.remove("ownerReferences");
    } else {
        metadata.insert("ownerReferences".into(), kept.into());
    }
    txn.put(drawer, dependent);
}

/// An object whose owners never were, or are gone, is garbage.
fn orphaned(txn: &mut Txn<'_>, drawer: &GroupResource, seen: &Value, options: &WriteOptions) {
    let Some(current) = txn.get(drawer, &Key::of(seen)) else {
        return;
    };
    let has_owner = owners(&current).iter().any(|o| alive(txn, text(o, &["uid"])));
    if !has_owner && !owners(&current).is_empty() {
        remove(txn, drawer, &current, Propagation::Background, options);
    }
}

fn lift(txn: &mut Txn<'_>, drawer: &GroupResource, current: &Value, finalizer: &str) {
    let mut object = current.clone();
    let kept: Vec<String> = object::finalizers(&object)
        .into_iter()
        .filter(|f| f != finalizer)
        .collect();
    let last = kept.is_empty() && object::terminating(&object);
    object::set_finalizers(&mut object, kept);
    let waits = object::metadata(&object)
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0)
        > 0;
    if last && !waits {
        txn.remove(drawer, object);
    } else {
        txn.put(drawer, object);
    }
}

/// Works off the finalizers that the server itself set.
fn finalize(txn: &mut Txn<'_>, drawer: &GroupResource, seen: &Value, options: &WriteOptions) {
    let Some(current) = txn.get(drawer, &Key::of(seen)) else {
        return;
    };
    let uid = object::uid(&current).to_owned();
    let finalizers = object::finalizers(&current);
    if finalizers.iter().any(|f| f == "orphan") {
        for (drawer, dependent) in dependents(txn, &uid) {
            drop_reference(txn, &drawer, &dependent, &uid);
        }
        lift(txn, drawer, &current, "orphan");
    } else if finalizers.iter().any(|f| f == "foregroundDeletion") {
        for (drawer, dependent) in dependents(txn, &uid) {
            remove(txn, &drawer, &dependent, Propagation::Foreground, options);
        }
        blocked_owner(txn, &uid);
    }
}

/// Lets an owner go that waits for its dependents, once none blocks it.
fn blocked_owner(txn: &mut Txn<'_>, uid: &str) {
    let owner = everything(txn).into_iter().find(|(_, o)| object::uid(o) == uid);
    let Some((drawer, owner)) = owner else { return };
    let waits = object::terminating(&owner)
        && object::finalizers(&owner)
            .iter()
            .any(|f| f == "foregroundDeletion");
    let blocking = |dependent: &Value| {
        owners(dependent)
            .iter()
            .any(|o| text(o, &["uid"]) == uid && o["blockOwnerDeletion"] == true)
    };
    if waits && !dependents(txn, uid).iter().any(|(_, d)| blocking(d)) {
        lift(txn, &drawer, &owner, "foregroundDeletion");
    }
}

/// Empties a terminating namespace; the last object takes the namespace with it.
fn empty_namespace(txn: &mut Txn<'_>, name: &str, options: &WriteOptions) {
    let key = Key::new("", name);
    let Some(namespace) = txn
        .get(&objects::namespaces(), &key)
        .filter(|n| object::terminating(n))
    else {
        return;
    };
    for drawer in txn.resources() {
        for object in txn.list(&drawer, name) {
            remove(txn, &drawer, &object, Propagation::Background, options);
        }
    }
    let empty = txn
        .resources()
        .iter()
        .all(|drawer| txn.list(drawer, name).is_empty());
    if empty && object::finalizers(&namespace).is_empty() {
        txn.remove(&objects::namespaces(), (*namespace).clone());
    }
}

/// Deletes the objects of a terminating definition; the last one takes the definition with it.
fn empty_definition(txn: &mut Txn<'_>, seen: &Value, options: &WriteOptions) {
    let Some(definition) = txn.get(&objects::definitions(), &Key::of(seen)) else {
        return;
    };
    let waits = object::finalizers(&definition)
        .iter()
        .any(|f| f == crate::crd::FINALIZER);
    if !object::terminating(&definition) || !waits {
        return;
    }
    let drawer = crate::crd::drawer(&definition);
    for object in txn.list(&drawer, "") {
        remove(txn, &drawer, &object, Propagation::Background, options);
    }
    if txn.list(&drawer, "").is_empty() {
        lift(txn, &objects::definitions(), &definition, crate::crd::FINALIZER);
    }
}

fn claims_of(txn: &mut Txn<'_>, pod: &Value) {
    let volumes = object::at(pod, &["spec", "volumes"]).and_then(Value::as_array);
    for volume in volumes.into_iter().flatten() {
        let name = text(volume, &["persistentVolumeClaim", "claimName"]);
        if name.is_empty() {
            continue;
        }
        let drawer = GroupResource::new("", "persistentvolumeclaims");
        if let Some(claim) = txn.get(&drawer, &Key::new(object::namespace(pod), name)) {
            release_claim(txn, &claim);
        }
    }
}

/// A deleted claim goes when no pod that still runs uses it.
fn release_claim(txn: &mut Txn<'_>, seen: &Value) {
    let drawer = GroupResource::new("", "persistentvolumeclaims");
    let Some(claim) = txn
        .get(&drawer, &Key::of(seen))
        .filter(|c| object::terminating(c))
    else {
        return;
    };
    if !object::finalizers(&claim).iter().any(|f| f == CLAIM_PROTECTION) {
        return;
    }
    let uses = |pod: &Value| {
        let ended = matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed");
        let volumes = object::at(pod, &["spec", "volumes"]).and_then(Value::as_array);
        !ended
            && volumes
                .into_iter()
                .flatten()
                .any(|v| text(v, &["persistentVolumeClaim", "claimName"]) == object::name(&claim))
    };
    let pods = txn.list(&GroupResource::new("", "pods"), object::namespace(&claim));
    if !pods.iter().any(|pod| uses(pod)) {
        lift(txn, &drawer, &claim, CLAIM_PROTECTION);
    }
}
