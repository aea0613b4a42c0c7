//! [`Caller`]: who makes a call.

pub use crate::fleet::authority::Role;

/// Who makes a call, proven. In the extensions of every request that reaches a service of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name in the certificate, or the user name of the token.
    pub name: String,
    /// What they may do.
    pub role: Role,
}
