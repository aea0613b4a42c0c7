//! One message on the socket pair between head and hands: JSON in one packet, with at most one descriptor.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of the longest packet. What is longer goes through a memory file, whose descriptor goes in its place.
const PACKET_MAX: usize = 64 * 1024;

/// Bytes of the longest message: a listing fits, which is `NAMES_MAX` bytes of names and `LISTING_MAX` times less than
/// 100 bytes of what goes with a name.
const MESSAGE_MAX: u64 = 32 * 1024 * 1024;

/// Why a message did not arrive or leave.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The other end is closed.
    #[error("the other end is closed")]
    Closed,
    /// Nothing arrived in time.
    #[error("no answer in time")]
    Timeout,
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] Errno),
    /// The memory file of a long message failed.
    #[error("memory file: {0}")]
    Memory(#[from] std::io::Error),
    /// The message is longer than a message may be.
    #[error("a message of {0} bytes")]
    TooLong(u64),
    /// The message is not what it must be.
    #[error("message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The packet itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Frame<T> {
    /// The message.
    Whole(T),
    /// The frame with the message is this many bytes of JSON in the memory file whose descriptor came along.
    InMemory(u64),
}

/// One end of the pair.
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Two connected ends, closed on exec.
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// From a descriptor that came in a message.
    #[must_use]
    pub(super) fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The descriptor, to be sent in a message.
    #[must_use]
    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// The longest wait of later receives and sends; at least a millisecond.
    pub(super) fn set_timeout(&self, timeout: Duration) -> Result<(), Errno> {
        let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1);
        setsockopt(&self.0, sockopt::ReceiveTimeout, &TimeVal::milliseconds(millis))?;
        setsockopt(&self.0, sockopt::SendTimeout, &TimeVal::milliseconds(millis))
    }

    /// Sends one message, with a descriptor where there is one.
    pub(super) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), PacketError> {
        let bytes = serde_json::to_vec(&Frame::Whole(message))?;
        if bytes.len() <= PACKET_MAX {
            return self.send_bytes(&bytes, descriptor);
        }
        if descriptor.is_some() || bytes.len() as u64 > MESSAGE_MAX {
            return Err(PacketError::TooLong(bytes.len() as u64));
        }
        let mut file = File::from(memfd_create("hasteward", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&bytes)?;
        let packet = serde_json::to_vec(&Frame::<()>::InMemory(bytes.len() as u64))?;
        self.send_bytes(&packet, Some(file.as_fd()))
    }

    fn send_bytes(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), PacketError> {
        let descriptors: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        match sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN) => Err(PacketError::Timeout),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(PacketError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next message.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> Result<(T, Option<OwnedFd>), PacketError> {
        let mut bytes = vec![0; PACKET_MAX];
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match recvmsg::<()>(
                self.0.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            ) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(PacketError::Timeout),
                Err(Errno::ECONNRESET) => return Err(PacketError::Closed),
                other => break other?,
            }
        };
        let mut descriptor = None;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = message {
                for raw in descriptors {
                    // SAFETY: the kernel has just installed this descriptor for this message; nobody else owns it.
                    #[allow(
                        unsafe_code,
                        reason = "nix hands out descriptors of SCM_RIGHTS as plain numbers"
                    )]
                    let owned = unsafe { OwnedFd::from_raw_fd(raw) };
                    descriptor = Some(owned);
                }
            }
        }
        let length = received.bytes;
        if length == 0 {
            return Err(PacketError::Closed);
        }
        match (serde_json::from_slice(&bytes[..length])?, descriptor) {
            (Frame::Whole(message), descriptor) => Ok((message, descriptor)),
            (Frame::InMemory(length), Some(file)) if length <= MESSAGE_MAX => {
                let mut file = File::from(file);
                file.seek(SeekFrom::Start(0))?;
                let mut bytes = Vec::new();
                file.take(length).read_to_end(&mut bytes)?;
                match serde_json::from_slice(&bytes)? {
                    Frame::Whole(message) => Ok((message, None)),
                    Frame::InMemory(length) => Err(PacketError::TooLong(length)),
                }
            }
            (Frame::InMemory(length), _) => Err(PacketError::TooLong(length)),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Entry, FileKind, LISTING_MAX, Listing, NAMES_MAX};

    #[test]
    fn messages_arrive_whole_short_or_long_and_with_descriptors() {
        let (a, b) = PacketSocket::pair().unwrap();
        a.send(&"short", None).unwrap();
        assert_eq!(b.receive::<String>().unwrap().0, "short");

        let long = "x".repeat(3 * PACKET_MAX);
        a.send(&long, None).unwrap();
        assert_eq!(b.receive::<String>().unwrap().0, long);

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"contents").unwrap();
        a.send(&"file", Some(file.as_fd())).unwrap();
        let (_, descriptor) = b.receive::<String>().unwrap();
        let mut file = File::from(descriptor.unwrap());
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "contents");
    }

    #[test]
    fn the_longest_listing_fits_and_nothing_longer_leaves() {
        let (a, b) = PacketSocket::pair().unwrap();
        let name = "\u{1}".repeat(NAMES_MAX / LISTING_MAX / 6);
        let entry = Entry {
            name,
            kind: FileKind::Directory,
            size: u64::MAX,
            allocated: u64::MAX,
        };
        let listing = Listing {
            entries: vec![entry; LISTING_MAX],
            truncated: true,
            ..Listing::default()
        };
        a.send(&listing, None).unwrap();
        assert_eq!(b.receive::<Listing>().unwrap().0, listing);
        let long = "x".repeat(usize::try_from(MESSAGE_MAX).unwrap());
        assert!(matches!(a.send(&long, None), Err(PacketError::TooLong(_))));
    }

    #[test]
    fn waits_end_and_closing_is_seen() {
        let (a, b) = PacketSocket::pair().unwrap();
        b.set_timeout(Duration::from_millis(5)).unwrap();
        assert!(matches!(b.receive::<String>(), Err(PacketError::Timeout)));
        drop(a);
        assert!(matches!(b.receive::<String>(), Err(PacketError::Closed)));
        assert!(matches!(b.send(&"x", None), Err(PacketError::Closed)));
    }
}
