//! The resources that are there without any CustomResourceDefinition.

use crate::resource::{Generation, Resource, ScalePaths, Scope, Verbs};
use crate::store::GroupResource;

/// group, version, plural, kind, short names, flags.
///
/// Flags: `n` namespaced, `s` status, `c` scale, `g` generation counted, `a` category all, `r` review (create only).
const TABLE: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("", "v1", "bindings", "Binding", "", "nr"),
    ("", "v1", "componentstatuses", "ComponentStatus", "cs", ""),
    ("", "v1", "configmaps", "ConfigMap", "cm", "n"),
    ("", "v1", "endpoints", "Endpoints", "ep", "n"),
    ("", "v1", "events", "Event", "ev", "n"),
    ("", "v1", "limitranges", "LimitRange", "limits", "n"),
    ("", "v1", "namespaces", "Namespace", "ns", "s"),
    ("", "v1", "nodes", "Node", "no", "s"),
    (
        "",
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        "pvc",
        "ns",
    ),
    ("", "v1", "persistentvolumes", "PersistentVolume", "pv", "s"),
    ("", "v1", "pods", "Pod", "po", "nsa"),
    ("", "v1", "podtemplates", "PodTemplate", "", "n"),
    (
        "",
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        "rc",
        "nscga",
    ),
    ("", "v1", "resourcequotas", "ResourceQuota", "quota", "ns"),
    ("", "v1", "secrets", "Secret", "", "n"),
    ("", "v1", "serviceaccounts", "ServiceAccount", "sa", "n"),
    ("", "v1", "services", "Service", "svc", "nsa"),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", "", "n"),
    ("apps", "v1", "daemonsets", "DaemonSet", "ds", "nsga"),
    ("apps", "v1", "deployments", "Deployment", "deploy", "nscga"),
    ("apps", "v1", "replicasets", "ReplicaSet", "rs", "nscga"),
    ("apps", "v1", "statefulsets", "StatefulSet", "sts", "nscga"),
    ("batch", "v1", "cronjobs", "CronJob", "cj", "nsga"),
    ("batch", "v1", "jobs", "Job", "", "nsga"),
    ("coordination.k8s.io", "v1", "leases", "Lease", "", "n"),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        "",
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "clusterroles",
        "ClusterRole",
        "",
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "rolebindings",
        "RoleBinding",
        "",
        "n",
    ),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", "", "n"),
    ("storage.k8s.io", "v1", "csidrivers", "CSIDriver", "", ""),
    ("storage.k8s.io", "v1", "csinodes", "CSINode", "", ""),
    (
        "storage.k8s.io",
        "v1",
        "csistoragecapacities",
        "CSIStorageCapacity",
        "",
        "n",
    ),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", "sc", ""),
    (
        "storage.k8s.io",
        "v1",
        "volumeattachments",
        "VolumeAttachment",
        "",
        "s",
    ),
    (
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        "pdb",
        "nsg",
    ),
    (
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        "",
        "n",
    ),
    ("events.k8s.io", "v1", "events", "Event", "ev", "n"),
    (
        "authentication.k8s.io",
        "v1",
        "selfsubjectreviews",
        "SelfSubjectReview",
        "",
        "r",
    ),
    (
        "authentication.k8s.io",
        "v1",
        "tokenreviews",
        "TokenReview",
        "",
        "r",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        "",
        "nr",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        "",
        "r",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        "",
        "r",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "subjectaccessreviews",
        "SubjectAccessReview",
        "",
        "r",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd,crds",
        "sg",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        "",
        "g",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        "",
        "sg",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        "",
        "g",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        "",
        "g",
    ),
    (
        "networking.k8s.io",
        "v1",
        "ingressclasses",
        "IngressClass",
        "",
        "g",
    ),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", "nsg"),
    (
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        "NetworkPolicy",
        "netpol",
        "ng",
    ),
    (
        "scheduling.k8s.io",
        "v1",
        "priorityclasses",
        "PriorityClass",
        "pc",
        "g",
    ),
];

/// Subresources beyond status and scale, with the kind they speak.
fn others(plural: &str) -> &'static [(&'static str, &'static str)] {
    match plural {
        "pods" => &[
            ("binding", "Binding"),
            ("eviction", "Eviction"),
            ("log", "Pod"),
            ("portforward", "PodPortForwardOptions"),
        ],
        "serviceaccounts" => &[("token", "TokenRequest")],
        "namespaces" => &[("finalize", "Namespace")],
        _ => &[],
    }
}

/// Every built-in resource.
pub(crate) fn builtin() -> Vec<Resource> {
    TABLE.iter().map(|row| resource(*row)).collect()
}

fn resource((group, version, plural, kind, short, flags): (&str, &str, &str, &str, &str, &str)) -> Resource {
    let has = |flag: char| flags.contains(flag);
    let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    // Both event resources are one store.
    let drawer_group = if group == "events.k8s.io" { "" } else { group };
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        short: short
            .split(',')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        categories: if has('a') { words(&["all"]) } else { Vec::new() },
        scope: if has('n') {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
        status: has('s'),
        scale: has('c').then(|| ScalePaths {
            replicas: words(&["spec", "replicas"]),
            status: words(&["status", "replicas"]),
            selector: Some(words(&["spec", "selector"])),
        }),
        generation: if has('g') {
            Generation::Counted
        } else {
            Generation::None
        },
        verbs: if has('r') { Verbs::CreateOnly } else { Verbs::All },
        others: others(plural),
        drawer: GroupResource::new(drawer_group, plural),
        custom: None,
    }
}
