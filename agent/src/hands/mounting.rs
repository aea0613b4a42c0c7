//! The kernel's mount calls that have no wrapper: a mount that is a descriptor until it is put somewhere. It vanishes with
//! its last descriptor, so nothing stays mounted, whatever ends this process.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_uint};

/// `FSOPEN_CLOEXEC`, `FSMOUNT_CLOEXEC` (linux/mount.h).
const CLOEXEC: c_uint = 1;
/// `enum fsconfig_command` (linux/mount.h).
const SET_FLAG: c_uint = 0;
const SET_STRING: c_uint = 1;
const CREATE: c_uint = 6;

/// A call that gives a descriptor.
pub(super) fn descriptor(result: c_long) -> Result<OwnedFd, Errno> {
    let raw = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this call; nobody else owns it.
    #[allow(unsafe_code, reason = "a raw system call hands out a plain number")]
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A file system that is being set up.
#[derive(Debug)]
pub(super) struct Context(OwnedFd);

impl Context {
    /// Of this kind.
    pub(super) fn open(kind: &CStr) -> Result<Self, Errno> {
        // SAFETY: a valid string and a flag; the kernel keeps neither.
        #[allow(unsafe_code, reason = "there is no wrapper of fsopen(2)")]
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) }).map(Self)
    }

    fn configure(&self, command: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> Result<(), Errno> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: a descriptor that is ours, and strings that live through the call; null where the command takes none.
        #[allow(unsafe_code, reason = "there is no wrapper of fsconfig(2)")]
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                0 as c_int,
            )
        };
        Errno::result(result).map(drop)
    }

    /// `key=value`
    pub(super) fn set(&self, key: &CStr, value: &str) -> Result<(), Errno> {
        let value = CString::new(value).map_err(|_| Errno::EINVAL)?;
        self.configure(SET_STRING, Some(key), Some(&value))
    }

    /// `key`
    pub(super) fn flag(&self, key: &CStr) -> Result<(), Errno> {
        self.configure(SET_FLAG, Some(key), None)
    }

    /// The mount, nowhere yet; `attributes` are `MOUNT_ATTR_*`.
    pub(super) fn mount(self, attributes: u64) -> Result<OwnedFd, Errno> {
        self.configure(CREATE, None, None)?;
        let attributes = c_uint::try_from(attributes).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a descriptor that is ours, and flags.
        #[allow(unsafe_code, reason = "there is no wrapper of fsmount(2)")]
        descriptor(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), CLOEXEC, attributes) })
    }
}

/// The same directory as a mount of its own, nowhere yet. Only of a directory in this process's mount namespace.
pub(super) fn again(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: a descriptor that is ours, a valid string, and flags.
    #[allow(unsafe_code, reason = "there is no wrapper of open_tree(2)")]
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Puts a mount at `place`, a path of this process.
pub(super) fn attach(mount: BorrowedFd<'_>, place: &CStr) -> Result<(), Errno> {
    // SAFETY: a descriptor that is ours, and strings that live through the call.
    #[allow(unsafe_code, reason = "there is no wrapper of move_mount(2)")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            place.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Makes everything that this process sees below `/` read-only, in its own mount namespace.
pub(super) fn all_read_only() -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the structure and its size, which the kernel reads during the call only.
    #[allow(unsafe_code, reason = "there is no wrapper of mount_setattr(2)")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}
