//! Pods as controllers make and judge them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;

/// The characters Kubernetes uses in generated names: no vowels, so that no word appears.
const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short, stable text for anything that can be written as JSON.
pub(super) fn short_hash(value: &impl Serialize, length: usize) -> String {
    let mut hasher = DefaultHasher::new();
    // What cannot be serialised does not come from the API server.
    serde_json::to_string(value).unwrap_or_default().hash(&mut hasher);
    let mut rest = hasher.finish();
    let mut text = String::new();
    for _ in 0..length {
        let index = usize::try_from(rest % NAME_ALPHABET.len() as u64).unwrap_or(0);
        text.push(char::from(NAME_ALPHABET[index]));
        rest /= NAME_ALPHABET.len() as u64;
    }
    text
}

/// A controller reference to an object.
pub(super) fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    owner.controller_owner_ref(&())
}

/// A pod from a template.
pub(super) fn from_template(template: &PodTemplateSpec, name: String, owner: OwnerReference) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            labels: metadata.labels,
            annotations: metadata.annotations,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether a pod's Ready condition is True and it is not being deleted.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    !is_terminating(pod)
        && conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether somebody has deleted it.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// `status.phase`.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether all its containers have ended for good.
pub(super) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// A label of a pod.
pub(super) fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether a pod tolerates a taint of a node (effects that only prefer are tolerated by all).
pub(super) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    taint.effect == "PreferNoSchedule"
        || tolerations.iter().any(|toleration| {
            let key = toleration.key.as_deref().unwrap_or_default();
            let exists = toleration.operator.as_deref() == Some("Exists");
            let effect = toleration
                .effect
                .as_deref()
                .is_none_or(|effect| effect.is_empty() || effect == taint.effect);
            let keyed = (key.is_empty() && exists) || key == taint.key;
            effect && keyed && (exists || toleration.value.as_deref() == taint.value.as_deref())
        })
}

/// The taints of a node; an unschedulable node carries the one that the node controller would add.
pub(super) fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    let mut taints = spec.taints.unwrap_or_default();
    if spec.unschedulable == Some(true) {
        taints.push(Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        });
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, Toleration};

    fn tolerating(toleration: Toleration) -> Pod {
        let spec = PodSpec {
            tolerations: Some(vec![toleration]),
            ..PodSpec::default()
        };
        Pod {
            spec: Some(spec),
            ..Pod::default()
        }
    }

    #[test]
    fn a_bare_exists_tolerates_everything() {
        let taint = Taint {
            key: "a".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        let all = tolerating(Toleration {
            operator: Some("Exists".into()),
            ..Toleration::default()
        });
        let other = tolerating(Toleration {
            key: Some("b".into()),
            operator: Some("Exists".into()),
            ..Toleration::default()
        });
        assert!(tolerates(&all, &taint));
        assert!(!tolerates(&other, &taint));
        assert!(!tolerates(&Pod::default(), &taint));
    }

    #[test]
    fn names_are_stable_and_differ() {
        assert_eq!(short_hash(&("a", 1), 5), short_hash(&("a", 1), 5));
        assert_ne!(short_hash(&("a", 1), 5), short_hash(&("a", 2), 5));
        assert_eq!(short_hash(&"x", 10).len(), 10);
    }
}
