//! A socket between two processes of svp: JSON messages with a length before them, and descriptors beside.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors that one message may carry.
const MAX_FDS: usize = 128;
/// A message longer than this is an error: nothing that the stages say is.
const MAX_MESSAGE: u32 = 64 << 20;

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    /// A connected pair; both ends are closed on exec.
    pub(crate) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Channel(ours), theirs.into()))
    }

    /// The end that a stage finds on its standard input.
    pub(crate) fn from_stdin() -> io::Result<Channel> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Channel(UnixStream::from(fd)))
    }

    /// An end that came from elsewhere.
    pub(crate) fn from_fd(fd: OwnedFd) -> Channel {
        Channel(UnixStream::from(fd))
    }

    /// Whether the other side is gone, whatever it may have said before.
    pub(crate) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// Sends a message, and duplicates of `fds` with it.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        let header = [IoSlice::new(&length)];
        let sent = rustix::net::sendmsg(&self.0, &header, &mut control, SendFlags::NOSIGNAL)?;
        if sent != length.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (&self.0).write_all(&body)
    }

    /// Receives a message and its descriptors; `None` if the other side is gone.
    pub(crate) fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut fds = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut header = [IoSliceMut::new(&mut length)];
            let flags = RecvFlags::WAITALL | RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut header, &mut control, flags) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        match received.bytes {
            0 => return Ok(None),
            4 => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_MESSAGE {
            return Err(io::Error::other("a message that is too long"));
        }
        let mut body = Vec::new();
        (&self.0).take(u64::from(length)).read_to_end(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel(UnixStream::from(b));
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"hello").unwrap();
        let text = "x".repeat(3 << 20);
        let sender = std::thread::spawn(move || {
            a.send(&text, &[file.as_fd(), file.as_fd()]).unwrap();
            a.send(&7, &[]).unwrap();
            a
        });
        let (long, fds) = b.recv::<String>().unwrap().unwrap();
        assert_eq!((long.len(), fds.len()), (3 << 20, 2));
        assert_eq!(b.recv::<i32>().unwrap().unwrap().0, 7);
        let a = sender.join().unwrap();
        assert!(!b.is_hung_up());
        drop(a);
        assert!(b.is_hung_up());
        assert!(b.recv::<i32>().unwrap().is_none());
    }
}
