//! Everything that can be read of one MariaDB Galera node.
//!
//! Where things are, and where to add one:
//!
//! - A file that Galera or an operator writes gets a *pure parser* of its own (`grastate`, `view_state`, `cache`, `config`,
//!   `recovered`): bytes in, a struct or a typed error out, bounded, never a panic. Give it a proptest over arbitrary bytes,
//!   a target in `agent/fuzz`, and fixtures of real nodes (`agent/tests/fixtures/make-galera.sh`).
//! - `files` reads what a listing of the data directory says; `inspect` puts the files together under one deadline.
//! - `live` asks the running server, each call under a time limit; `live/answer` takes its answer apart.
//! - The position of a stopped node comes from the hands, which run the container's own `mariadbd --wsrep-recover` on an
//!   overlay ([`crate::hands::Session::recover`]); `recovered` reads what that server said.
//! - `convert` turns everything into the protocol.

#[cfg(test)]
mod fixture;

pub mod cache;
pub mod config;
pub mod convert;
pub mod files;
pub mod grastate;
pub mod inspect;
pub mod live;
pub mod recovered;
pub mod view_state;

/// Text without NUL: a file that a loss of power left as zeroes is none.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}
