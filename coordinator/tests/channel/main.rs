//! Agents, enrolment and people against a real listener: real TLS over loopback, the real dial loop, a stand-in for the API
//! server's word on tokens and pods.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod admission;
mod authority;
mod enrolment;
mod fleet;
mod impostor;
mod kubernetes;
mod people;
mod renewal;
mod support;
