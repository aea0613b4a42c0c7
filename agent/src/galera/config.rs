//! The files of the Galera configuration volume that decide how the next start goes.

/// Existing, it makes the next start form a new cluster. Written and removed by mariadb-operator's agent.
pub const BOOTSTRAP: &str = "1-bootstrap.cnf";
/// Ours: names a provider that does not exist, so that mariadbd exits before it touches a file.
pub const HOLD: &str = "zz-hasteward-hold.cnf";
/// Written by mariadb-operator's init container when the pod is made.
pub const GALERA: &str = "0-galera.cnf";
/// What a hold names as its provider, before the operation's name.
pub const HELD_BY: &str = "/hasteward/held-by-";

/// Bytes of the longest hold file.
pub const MAX: usize = 4096;

/// The operation that a hold file names. `None`: it names none, and holds all the same.
#[must_use]
pub fn held_by(bytes: &[u8]) -> Option<String> {
    let text = super::text(bytes.get(..bytes.len().min(MAX))?)?;
    let value = text.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim().replace('-', "_") == "wsrep_provider").then_some(value.trim())
    })?;
    let operation = value.trim_matches('"').strip_prefix(HELD_BY)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let valid = (1..=253).contains(&operation.len()) && operation.chars().all(plain);
    valid.then(|| operation.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_operation_is_the_tail_of_the_provider() {
        let of = |text: &str| held_by(text.as_bytes());
        assert_eq!(
            of("[mariadbd]\nwsrep_provider=/hasteward/held-by-repair-1\n").as_deref(),
            Some("repair-1")
        );
        assert_eq!(
            of("[mysqld]\nwsrep-provider = \"/hasteward/held-by-a.b\"").as_deref(),
            Some("a.b")
        );
        for none in [
            "",
            "[mariadbd]",
            "wsrep_provider=/usr/lib/x.so",
            "wsrep_provider=/hasteward/held-by-",
            "wsrep_provider=/hasteward/held-by-a/b",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_name_an_operation_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = held_by(&bytes);
        }
    }
}
