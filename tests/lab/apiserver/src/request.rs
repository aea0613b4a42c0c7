//! What a request asks for.

use http::Method;

use crate::auth::Attributes;

/// The query of a URL, decoded.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

fn decode(text: &str, plus: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        match (byte, digit(i + 1), digit(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                i += 2;
            }
            (b'+', _, _) if plus => out.push(b' '),
            _ => out.push(*byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of a name, unless empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True"))
    }
}

/// The path of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub plural: String,
    /// Namespace, empty for none.
    pub namespace: String,
    /// Object name, empty for the collection.
    pub name: String,
    /// Subresource, empty for none; `proxy` and the like keep their tail.
    pub subresource: String,
}

impl ResourcePath {
    /// Reads `/api/v1/…` and `/apis/<group>/<version>/…`; none for discovery and everything else.
    pub fn parse(path: &str) -> Option<Self> {
        let mut segments = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| decode(s, false));
        let group = match segments.next()?.as_str() {
            "api" => String::new(),
            "apis" => segments.next()?,
            _ => return None,
        };
        let version = segments.next()?;
        let rest: Vec<String> = segments.collect();
        let mut out = Self {
            group,
            version,
            ..Self::default()
        };
        let rest = match rest.as_slice() {
            [] => return None,
            [first, namespace, plural, rest @ ..]
                if first == "namespaces" && !matches!(plural.as_str(), "status" | "finalize") =>
            {
                out.namespace.clone_from(namespace);
                out.plural.clone_from(plural);
                rest
            }
            [plural, rest @ ..] => {
                out.plural.clone_from(plural);
                rest
            }
        };
        if let [name, sub @ ..] = rest {
            out.name.clone_from(name);
            out.subresource = sub.join("/");
        }
        Some(out)
    }

    /// What RBAC is asked.
    pub fn attributes(&self, method: &Method, query: &Query) -> Attributes {
        let mut name = self.name.clone();
        let watch = query.flag("watch");
        let verb = match *method {
            Method::GET | Method::HEAD if !name.is_empty() && !watch => "get",
            Method::GET | Method::HEAD if watch => "watch",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        };
        if name.is_empty()
            && let Some(fields) = query
                .get("fieldSelector")
                .and_then(|f| crate::selector::Fields::parse(f).ok())
        {
            fields.name().unwrap_or_default().clone_into(&mut name);
        }
        let core_namespace = self.group.is_empty() && self.plural == "namespaces";
        Attributes {
            verb: verb.into(),
            group: self.group.clone(),
            resource: self.plural.clone(),
            subresource: self.subresource.clone(),
            namespace: if core_namespace {
                self.name.clone()
            } else {
                self.namespace.clone()
            },
            name,
            path: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let path = |p: &str| {
            ResourcePath::parse(p)
                .map(|r| [r.group, r.version, r.plural, r.namespace, r.name, r.subresource].join("|"))
                .unwrap_or_default()
        };
        assert_eq!(path("/api/v1/namespaces/a/pods/b/log"), "|v1|pods|a|b|log");
        assert_eq!(path("/api/v1/namespaces/a"), "|v1|namespaces||a|");
        assert_eq!(path("/api/v1/namespaces/a/status"), "|v1|namespaces||a|status");
        assert_eq!(path("/apis/apps/v1/deployments"), "apps|v1|deployments|||");
        assert_eq!(path("/apis/apps/v1"), "");
        assert_eq!(path("/version"), "");
        assert_eq!(Query::parse("a=b%2Cc+d&e").get("a"), Some("b,c d"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in ".{0,80}") {
            let query = Query::parse(&path);
            let _ = ResourcePath::parse(&path).map(|r| r.attributes(&Method::GET, &query));
        }
    }
}
