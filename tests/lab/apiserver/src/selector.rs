//! Label and field selectors.

use serde_json::Value;

use crate::object::{self, at};

/// A selector that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub struct Unparsable(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Above(i64),
    Below(i64),
}

/// Requirements on labels; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, Test)>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, Unparsable> {
        split(text)
            .into_iter()
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// A `metav1.LabelSelector`, or the plain map of a Service or ReplicationController.
    pub fn from_object(selector: &Value) -> Self {
        let Some(map) = selector.as_object() else {
            return Self::default();
        };
        let structured = map.contains_key("matchLabels") || map.contains_key("matchExpressions");
        let plain = if structured {
            selector.get("matchLabels")
        } else {
            Some(selector)
        };
        let mut all: Vec<(String, Test)> = plain
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| {
                (
                    k.clone(),
                    Test::In(vec![v.as_str().unwrap_or_default().to_owned()]),
                )
            })
            .collect();
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
            let values = || {
                values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            let test = match object::text(expression, &["operator"]) {
                "In" => Test::In(values()),
                "NotIn" => Test::NotIn(values()),
                "Exists" => Test::Exists,
                _ => Test::Missing,
            };
            all.push((object::text(expression, &["key"]).to_owned(), test));
        }
        Self(all)
    }

    /// Whether an object's labels fit.
    pub fn matches(&self, value: &Value) -> bool {
        let labels = at(value, &["metadata", "labels"]);
        self.0.iter().all(|(key, test)| {
            let found = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            match test {
                Test::In(all) => found.is_some_and(|f| all.iter().any(|v| v == f)),
                Test::NotIn(all) => found.is_none_or(|f| all.iter().all(|v| v != f)),
                Test::Exists => found.is_some(),
                Test::Missing => found.is_none(),
                Test::Above(than) => found
                    .and_then(|f| f.parse::<i64>().ok())
                    .is_some_and(|f| f > *than),
                Test::Below(than) => found
                    .and_then(|f| f.parse::<i64>().ok())
                    .is_some_and(|f| f < *than),
            }
        })
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (key, test)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(all) if all.len() == 1 => write!(f, "{key}={}", all[0])?,
                Test::In(all) => write!(f, "{key} in ({})", all.join(","))?,
                Test::NotIn(all) => write!(f, "{key} notin ({})", all.join(","))?,
                Test::Exists => f.write_str(key)?,
                Test::Missing => write!(f, "!{key}")?,
                Test::Above(than) => write!(f, "{key}>{than}")?,
                Test::Below(than) => write!(f, "{key}<{than}")?,
            }
        }
        Ok(())
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
        .into_iter()
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect()
}

fn key(text: &str) -> Result<String, Unparsable> {
    let text = text.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() || !text.chars().all(fine) {
        return Err(Unparsable(text.to_owned()));
    }
    Ok(text.to_owned())
}

fn requirement(text: &str) -> Result<(String, Test), Unparsable> {
    let wrong = || Unparsable(text.to_owned());
    if let Some(inner) = text.strip_suffix(')') {
        let (head, values) = inner.split_once('(').ok_or_else(wrong)?;
        let (name, operator) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let kind = match operator {
            "in" => Test::In(values),
            "notin" => Test::NotIn(values),
            _ => return Err(wrong()),
        };
        return Ok((key(name)?, kind));
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, value)) = text.split_once(operator) {
            let values = vec![value.trim().to_owned()];
            return Ok((
                key(name)?,
                if negated {
                    Test::NotIn(values)
                } else {
                    Test::In(values)
                },
            ));
        }
    }
    for (operator, above) in [('>', true), ('<', false)] {
        if let Some((name, value)) = text.split_once(operator) {
            let than = value.trim().parse().map_err(|_| wrong())?;
            return Ok((
                key(name)?,
                if above {
                    Test::Above(than)
                } else {
                    Test::Below(than)
                },
            ));
        }
    }
    match text.strip_prefix('!') {
        Some(name) => Ok((key(name)?, Test::Missing)),
        None => Ok((key(text)?, Test::Exists)),
    }
}

/// Requirements on fields; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(Vec<String>, bool, String)>);

impl Fields {
    /// Reads `metadata.name=x,status.phase!=Running`.
    pub fn parse(text: &str) -> Result<Self, Unparsable> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, true, value)
            } else {
                return Err(Unparsable(part.to_owned()));
            };
            let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                return Err(Unparsable(part.to_owned()));
            }
            all.push((path, equal, value.trim().to_owned()));
        }
        Ok(Self(all))
    }

    /// The fields that the selector reads, as dotted paths.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(path, _, _)| path.join("."))
    }

    /// The name that the selector pins, if it does.
    pub fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|(path, equal, _)| *equal && path.len() == 2 && path[0] == "metadata" && path[1] == "name")
            .map(|(_, _, value)| value.as_str())
    }

    /// Whether a stored object fits. A missing field counts as the empty string.
    pub fn matches(&self, value: &Value) -> bool {
        self.0.iter().all(|(path, equal, wanted)| {
            let found = path.iter().try_fold(value, |v, key| v.get(key));
            let found = match found {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(s)) => s.clone(),
                Some(other) => other.to_string(),
            };
            (found == *wanted) == *equal
        })
    }
}

/// Whether a resource can be selected by a field, as the real server limits it.
pub fn selectable(plural: &str, path: &str) -> bool {
    if matches!(path, "metadata.name" | "metadata.namespace") {
        return true;
    }
    match plural {
        "pods" => matches!(
            path,
            "spec.nodeName"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "spec.serviceAccountName"
                | "spec.hostNetwork"
                | "status.phase"
                | "status.podIP"
                | "status.nominatedNodeName"
        ),
        "events" => {
            path.starts_with("involvedObject.")
                || path.starts_with("regarding.")
                || matches!(
                    path,
                    "reason" | "reportingComponent" | "reportingController" | "source" | "type"
                )
        }
        "nodes" => path == "spec.unschedulable",
        "secrets" => path == "type",
        "namespaces" => path == "status.phase",
        "jobs" => path == "status.successful",
        "replicasets" | "replicationcontrollers" => path == "status.replicas",
        "services" => matches!(path, "spec.clusterIP" | "spec.type"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_match_as_kubernetes_matches_them() {
        let pod = json!({"metadata": {"labels": {"app": "db", "n": "3"}}});
        for (text, fits) in [
            ("", true),
            ("app=db", true),
            ("app==db,n", true),
            ("app!=db", false),
            ("app in (web, db)", true),
            ("app notin (web,db)", false),
            ("missing notin (a)", true),
            ("missing!=a", true),
            ("!app", false),
            ("!missing", true),
            ("n>2,n<4", true),
        ] {
            assert_eq!(Labels::parse(text).unwrap().matches(&pod), fits, "{text}");
        }
        assert!(Labels::parse("a b=c").is_err());
        assert!(Labels::parse("(").is_err());
    }

    #[test]
    fn fields_match() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}});
        for (text, fits) in [
            ("metadata.name=a", true),
            ("spec.nodeName!=n1", false),
            ("status.phase!=Running", true),
            ("spec.nodeName==n1,metadata.name=a", true),
        ] {
            assert_eq!(Fields::parse(text).unwrap().matches(&pod), fits, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,60}") {
            let _ = Labels::parse(&text).map(|l| l.matches(&json!({})));
            let _ = Fields::parse(&text).map(|l| l.matches(&json!({})));
        }

        #[test]
        fn parsers_never_panic_on_likely_text(text in "[a-z!=<>(), ]{0,40}") {
            let _ = Labels::parse(&text).map(|l| l.matches(&json!({})));
            let _ = Fields::parse(&text).map(|l| l.matches(&json!({})));
        }
    }
}
