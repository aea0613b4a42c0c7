//! End-to-end scenarios: real databases, real agents, the real command line, in a lab.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod agent;
mod triage;
