//! What each method requires. A method that is not listed is refused.

use super::caller::Role;

/// What a method requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing here: the method itself asks for a token of an agent.
    Enrolment,
    /// A person of at least this role.
    Person(Role),
}

/// Path of a gRPC method and what it requires.
pub type Table = &'static [(&'static str, Requirement)];

/// Every method that the coordinator serves.
pub const METHODS: Table = &[
    ("/hasteward.enrol.v1.Enrolment/Enrol", Requirement::Enrolment),
    (
        "/hasteward.people.v1.Steward/Triage",
        Requirement::Person(Role::Viewer),
    ),
    (
        "/hasteward.people.v1.Steward/ListClusters",
        Requirement::Person(Role::Viewer),
    ),
    (
        "/hasteward.people.v1.Steward/ListAgents",
        Requirement::Person(Role::Viewer),
    ),
    (
        "/hasteward.people.v1.Steward/GetVersion",
        Requirement::Person(Role::Viewer),
    ),
];

/// What a path requires; `None` = not listed.
#[must_use]
pub fn requirement(table: Table, path: &str) -> Option<Requirement> {
    table
        .iter()
        .find(|(listed, _)| *listed == path)
        .map(|(_, requirement)| *requirement)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of all methods of a proto file.
    fn methods(proto: &str) -> Vec<String> {
        let word = |line: &str, keyword: &str| {
            let rest = line.trim().strip_prefix(keyword)?;
            Some(
                rest.split(|c: char| !(c.is_alphanumeric() || c == '.'))
                    .next()?
                    .to_owned(),
            )
        };
        let (mut package, mut service, mut found) = (String::new(), String::new(), Vec::new());
        for line in proto.lines() {
            if let Some(name) = word(line, "package ") {
                package = name;
            } else if let Some(name) = word(line, "service ") {
                service = name;
            } else if let Some(name) = word(line, "rpc ") {
                found.push(format!("/{package}.{service}/{name}"));
            }
        }
        found
    }

    #[test]
    fn every_served_method_is_listed_and_no_other() {
        let mut served = methods(include_str!("../../../proto/proto/hasteward/people.proto"));
        served.extend(methods(include_str!(
            "../../../proto/proto/hasteward/enrol.proto"
        )));
        assert!(served.len() >= 5, "{served:?}");
        for path in &served {
            assert!(
                requirement(METHODS, path).is_some(),
                "{path} is served and not listed"
            );
        }
        for (path, _) in METHODS {
            assert!(
                served.iter().any(|served| served == path),
                "{path} is listed and not served"
            );
        }
    }

    #[test]
    fn paths_are_compared_whole() {
        for path in [
            "",
            "/",
            "/hasteward.people.v1.Steward",
            "/hasteward.people.v1.Steward/",
            "/hasteward.people.v1.Steward/triage",
            "/hasteward.people.v1.Steward/Triage/",
            "//hasteward.people.v1.Steward/Triage",
            "/hasteward.people.v1.Steward/%54riage",
            "/hasteward.agent.v1.Agent/Describe",
        ] {
            assert_eq!(requirement(METHODS, path), None, "{path}");
        }
    }
}
