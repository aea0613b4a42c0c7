//! A listening socket from outside.

use std::net::TcpListener;
use std::os::fd::FromRawFd;

/// Takes over the listening socket at a descriptor of this process; standard input (0) may be one, as from inetd.
#[allow(
    unsafe_code,
    reason = "a descriptor number on the command line has no other way to become a socket"
)]
pub fn inherited(descriptor: i32) -> std::io::Result<TcpListener> {
    if descriptor < 0 || matches!(descriptor, 1 | 2) {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    }
    // SAFETY: the number was handed to this process to own; nothing else in it uses descriptors by number.
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    // Fails for anything that is no socket, before it is used as one.
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
