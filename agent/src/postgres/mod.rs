//! Everything that can be read of one PostgreSQL instance.
//!
//! Where things are, and where to add one:
//!
//! - A file PostgreSQL writes gets a *pure parser* of its own here (`control_file`, `history`, `backup_label`, `slot`,
//!   `wal/*`): bytes in, a struct or a typed error out, bounded, never a panic. Give it a proptest over arbitrary bytes, a
//!   target in `agent/fuzz`, and a fixture of every version that writes it (`agent/tests/fixtures`).
//! - What needs a directory (`signals`, `tablespaces`, `leftovers`, `wal/directory`) reads through `DataDirectory`, so that
//!   no path of the host ever appears here and absence is claimed only after a listing.
//! - `live` asks the running server; a new column goes into its one query and into `live/answer.rs`.
//! - `inspect` puts all of it together under one deadline; `convert` turns it into the protocol. A new item needs a message
//!   in `agent.proto`, a field in `inspect::Instance`, and a line in `convert`.
//!
//! A new major version of PostgreSQL: `control_file::crc_offset`, `wal::page::Magic`, `slot` versions, then
//! `agent/tests/fixtures/fetch-postgres.sh` and new fixtures. Until then its files are *unknown version*, never guessed at.

mod bytes;
#[cfg(test)]
mod fixture;

pub mod backup_label;
pub mod control_file;
pub mod convert;
pub mod files;
pub mod history;
pub mod inspect;
pub mod leftovers;
pub mod live;
pub mod reading;
pub mod signals;
pub mod slot;
pub mod tablespaces;
pub mod wal;
