//! What each half gives up.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The user and the group of the head.
pub const HEAD_ID: u32 = 65532;

/// What the hands' verbs need, and nothing that could change a file: without `DAC_OVERRIDE` the kernel lets them read
/// the database's files and refuses every write.
const HANDS_KEEP: [Capability; 5] = [
    // Reads PGDATA and kubelet's directories.
    Capability::CAP_DAC_READ_SEARCH,
    // /proc/<pid>/exe and /proc/<pid>/root of the database.
    Capability::CAP_SYS_PTRACE,
    // Become the server's user to connect to its socket.
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    // End a child that became the server's user.
    Capability::CAP_KILL,
];

/// What a recovery needs beside them: mount an overlay, enter the container's namespaces. Kept only where it was given, and
/// only by sessions that recover.
const RECOVERY_KEEP: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT];

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Leaving the node's network.
    #[error("leaving the network namespace (needs CAP_SYS_ADMIN): {0}")]
    Network(Errno),
    /// The hands lack something that they must keep.
    #[error("the agent was started without {0}")]
    Missing(Capability),
    /// One of the capability sets.
    #[error("capability set {set:?} (the bounding set needs CAP_SETPCAP): {source}")]
    Capabilities {
        /// Which.
        set: CapSet,
        /// The system's words.
        source: caps::errors::CapsError,
    },
    /// User or group.
    #[error("becoming user and group {HEAD_ID} (needs CAP_SETUID and CAP_SETGID): {0}")]
    User(Errno),
    /// A process attribute.
    #[error("process attribute: {0}")]
    Attribute(Errno),
    /// A set that should be empty is not.
    #[error("capability set {0:?} is not empty after everything was dropped")]
    Left(CapSet),
}

/// Makes this process the hands: no network, only [`HANDS_KEEP`] and [`RECOVERY_KEEP`], no way to gain more.
pub(super) fn become_hands() -> Result<(), PrivilegeError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(PrivilegeError::Network)?;
    let failed = |set| move |source| PrivilegeError::Capabilities { set, source };
    let held = caps::read(None, CapSet::Permitted).map_err(failed(CapSet::Permitted))?;
    let mut keep: HashSet<Capability> = HANDS_KEEP.into_iter().collect();
    keep.extend(
        RECOVERY_KEEP
            .into_iter()
            .filter(|capability| held.contains(capability)),
    );
    if let Some(missing) = HANDS_KEEP
        .into_iter()
        .find(|capability| !held.contains(capability))
    {
        return Err(PrivilegeError::Missing(missing));
    }
    caps::clear(None, CapSet::Ambient).map_err(failed(CapSet::Ambient))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed(CapSet::Inheritable))?;
    for capability in caps::read(None, CapSet::Bounding)
        .map_err(failed(CapSet::Bounding))?
        .difference(&keep)
    {
        caps::drop(None, CapSet::Bounding, *capability).map_err(failed(CapSet::Bounding))?;
    }
    caps::set(None, CapSet::Effective, &keep).map_err(failed(CapSet::Effective))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(failed(CapSet::Permitted))?;
    prctl::set_no_new_privs().map_err(PrivilegeError::Attribute)?;
    prctl::set_dumpable(false).map_err(PrivilegeError::Attribute)
}

/// Makes this process a session that only reads: [`HANDS_KEEP`] and nothing else.
pub(super) fn become_reader() -> Result<(), PrivilegeError> {
    let keep: HashSet<Capability> = HANDS_KEEP.into_iter().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep).map_err(|source| PrivilegeError::Capabilities { set, source })?;
    }
    Ok(())
}

/// What of [`RECOVERY_KEEP`] this process lacks.
pub(super) fn missing_for_recovery() -> Option<Capability> {
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    RECOVERY_KEEP
        .into_iter()
        .find(|capability| !held.contains(capability))
}

/// Becomes the user of a data directory and keeps [`RECOVERY_KEEP`], nothing else: what an overlay copies and removes is done
/// with this user's rights, not root's.
pub(super) fn become_recoverer(uid: u32, gid: u32) -> Result<(), Errno> {
    prctl::set_keepcaps(true)?;
    become_user(uid, gid)?;
    prctl::set_keepcaps(false)?;
    let keep: HashSet<Capability> = RECOVERY_KEEP.into_iter().collect();
    caps::set(None, CapSet::Effective, &keep)
        .and_then(|()| caps::set(None, CapSet::Permitted, &keep))
        .map_err(|_| Errno::EPERM)
}

/// Gives up every capability that is left.
pub(super) fn become_nothing_more() -> Result<(), Errno> {
    caps::clear(None, CapSet::Effective)
        .and_then(|()| caps::clear(None, CapSet::Permitted))
        .map_err(|_| Errno::EPERM)
}

/// Makes this process the head: user and group [`HEAD_ID`], no capability in any set, no way to gain one, no core dump
/// and no tracing by others of its user. Checks that it is so.
pub fn become_head() -> Result<(), PrivilegeError> {
    let failed = |set| move |source| PrivilegeError::Capabilities { set, source };
    caps::clear(None, CapSet::Ambient).map_err(failed(CapSet::Ambient))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed(CapSet::Inheritable))?;
    caps::clear(None, CapSet::Bounding).map_err(failed(CapSet::Bounding))?;
    become_user(HEAD_ID, HEAD_ID).map_err(PrivilegeError::User)?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(failed(set))?;
    }
    prctl::set_no_new_privs().map_err(PrivilegeError::Attribute)?;
    prctl::set_dumpable(false).map_err(PrivilegeError::Attribute)?;
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Bounding,
        CapSet::Ambient,
    ] {
        if !caps::read(None, set).map_err(failed(set))?.is_empty() {
            return Err(PrivilegeError::Left(set));
        }
    }
    Ok(())
}

/// All three user and group ids, and no further group.
pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}
