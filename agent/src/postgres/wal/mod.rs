//! The write-ahead log on disk.
//!
//! [`segment`], [`page`] and [`record`] parse names and headers; [`source`] is where segments come from; [`reader`] follows
//! records; [`scan`] finds the end of valid WAL and counts commits; [`pages`] does the same with no control file to start
//! from; [`directory`] measures `pg_wal` itself.

pub mod directory;
pub mod lineage;
pub mod page;
pub mod pages;
pub mod reader;
pub mod record;
pub mod scan;
pub mod segment;
pub mod source;
