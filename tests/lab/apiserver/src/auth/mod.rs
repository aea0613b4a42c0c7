//! Who asks, and whether they may.

pub mod identity;
pub mod rbac;
pub mod roles;
pub mod tokens;

pub use identity::User;
pub use rbac::Attributes;
