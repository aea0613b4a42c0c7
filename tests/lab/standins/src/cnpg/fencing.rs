//! Annotation `cnpg.io/fencedInstances`.

use super::Cluster;
use super::names::FENCED_INSTANCES;
use std::collections::BTreeSet;

/// The instances kept down by a fence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fences {
    names: BTreeSet<String>,
}

impl Fences {
    /// The fences of a cluster. A missing, empty or invalid annotation means none.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        Self::parse(cluster.annotation(FENCED_INSTANCES).unwrap_or_default())
    }

    /// A JSON list of pod names, `"*"` for all of them.
    #[must_use]
    pub fn parse(annotation: &str) -> Self {
        Self {
            names: serde_json::from_str(annotation).unwrap_or_default(),
        }
    }

    /// Whether this instance is fenced.
    #[must_use]
    pub fn hold(&self, instance: &str) -> bool {
        self.names.contains("*") || self.names.contains(instance)
    }

    /// Whether any instance is fenced.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "c-1", false)]
    #[case("[]", "c-1", false)]
    #[case(r#"["c-1"]"#, "c-1", true)]
    #[case(r#"["c-1"]"#, "c-2", false)]
    #[case(r#"["*"]"#, "c-2", true)]
    #[case("c-1", "c-1", false)]
    #[case(r#"{"c-1":true}"#, "c-1", false)]
    fn invalid_is_not_fenced(#[case] annotation: &str, #[case] instance: &str, #[case] fenced: bool) {
        assert_eq!(Fences::parse(annotation).hold(instance), fenced);
    }
}
