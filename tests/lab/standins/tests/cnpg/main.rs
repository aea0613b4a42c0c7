//! The stand-ins of CloudNativePG must be as nasty as the real ones. Real servers, a real API server protocol; needs
//! root and PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bring_up;
mod disk;
mod fence;
mod lab;
mod node;
mod roles;
