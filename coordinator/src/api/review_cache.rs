//! [`ReviewCache`]: remembers the API server's word on a token for a short time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hasteward_proto::primitive::UnixMillis;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use secrecy::{ExposeSecret, SecretString};

use crate::fleet::ReviewedToken;

/// How long an accepted token stays accepted: a removed person is out after a minute.
pub const ACCEPTED_FOR: Duration = Duration::from_secs(60);
/// How long a rejected token stays rejected: a flood of bad tokens does not reach the API server.
pub const REJECTED_FOR: Duration = Duration::from_secs(5);
/// Most tokens remembered.
const MAX_ENTRIES: usize = 1024;

type Digest = [u8; 32];

/// SHA-256 of a token: tokens themselves are not kept.
fn digest(token: &SecretString) -> Option<Digest> {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite
            .common
            .hash_provider
            .hash(token.expose_secret().as_bytes())
            .as_ref()
            .try_into()
            .ok(),
        SupportedCipherSuite::Tls12(_) => None,
    }
}

/// Remembers the API server's word on a token, by its hash.
#[derive(Debug, Default)]
pub struct ReviewCache {
    entries: Mutex<HashMap<Digest, (UnixMillis, ReviewedToken)>>,
}

/// Whether a word from `at` still counts.
fn counts(at: UnixMillis, word: &ReviewedToken, now: UnixMillis) -> bool {
    let limit = match word {
        ReviewedToken::Authenticated(_) => ACCEPTED_FOR,
        ReviewedToken::Rejected => REJECTED_FOR,
    };
    // A clock that went back is no reason to trust for longer.
    now >= at && u128::from(now.millis_since(at)) < limit.as_millis()
}

impl ReviewCache {
    /// What the API server said of this token a short time ago.
    #[must_use]
    pub fn get(&self, token: &SecretString, now: UnixMillis) -> Option<ReviewedToken> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, word) = entries.get(&digest(token)?)?;
        counts(*at, word, now).then(|| word.clone())
    }

    /// Remembers what the API server says of this token now.
    pub fn put(&self, token: &SecretString, word: ReviewedToken, now: UnixMillis) {
        let Some(digest) = digest(token) else { return };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (at, word)| counts(*at, word, now));
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(digest, (now, word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::TokenClaims;

    #[test]
    fn words_expire() {
        let (cache, token) = (ReviewCache::default(), SecretString::from("a.b.c"));
        let accepted = ReviewedToken::Authenticated(TokenClaims::default());
        cache.put(&token, accepted.clone(), UnixMillis(1_000));
        assert_eq!(cache.get(&token, UnixMillis(60_999)), Some(accepted));
        assert_eq!(cache.get(&token, UnixMillis(61_000)), None);
        assert_eq!(cache.get(&token, UnixMillis(999)), None);
        cache.put(&token, ReviewedToken::Rejected, UnixMillis(1_000));
        assert_eq!(
            cache.get(&token, UnixMillis(5_999)),
            Some(ReviewedToken::Rejected)
        );
        assert_eq!(cache.get(&token, UnixMillis(6_000)), None);
        assert_eq!(cache.get(&SecretString::from("a.b.d"), UnixMillis(1_000)), None);
    }

    #[test]
    fn it_stays_small() {
        let cache = ReviewCache::default();
        for i in 0..5000 {
            cache.put(
                &SecretString::from(format!("a.b.{i}")),
                ReviewedToken::Rejected,
                UnixMillis(1),
            );
        }
        assert!(cache.entries.lock().unwrap().len() <= MAX_ENTRIES);
    }
}
