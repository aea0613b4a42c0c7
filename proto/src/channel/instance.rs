//! [`AgentInstance`]: one run of one agent process.

use std::fmt;

use rustls::crypto::aws_lc_rs;

/// Response header in which an agent names its run, so that a renewed connection of the same process can be told from a
/// second agent under the same identity.
pub const INSTANCE_HEADER: &str = "hasteward-agent-instance";

/// A random id of one agent process, new at every start. Tells runs apart; proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentInstance(String);

impl AgentInstance {
    /// A new id from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has no randomness to give.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0u8; 16];
        aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| NoRandomness)?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// The id in a response header.
    ///
    /// `None`: not 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 32 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// A number that differs from process to process: seed of jitter.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0
            .get(..16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .unwrap_or_default()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The operating system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;
