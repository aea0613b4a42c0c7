//! `standby.signal` and `recovery.signal` (PostgreSQL `access/xlog.h`): only their presence counts.

use super::files::{Files, Missing};

/// Which signal files exist. With both, standby wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// `standby.signal`
    pub standby: bool,
    /// `recovery.signal`
    pub recovery: bool,
}

/// Looks for the signal files in a listing of the data directory, which alone can say that there are none.
pub fn read(files: &Files<'_>) -> Result<Signals, Missing> {
    let listing = files.list("")?;
    Ok(Signals {
        standby: listing.names("standby.signal"),
        recovery: listing.names("recovery.signal"),
    })
}
