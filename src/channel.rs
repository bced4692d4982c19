//! A socket between two svp processes for length-prefixed JSON messages with attached descriptors (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors per packet; the kernel accepts 253. Each further batch is sent with a byte of its own.
const MAX_FDS: usize = 128;
/// The maximum message length; no stage sends more. The upper bits of the length hold the number of further
/// descriptor batches.
const MAX_MESSAGE: u32 = 64 << 20;
const LENGTH_BITS: u32 = 27;

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    /// Creates a connected pair; both ends are closed on exec.
    pub(crate) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Channel(ours), theirs.into()))
    }

    /// Takes the end that a stage receives as its standard input.
    pub(crate) fn from_stdin() -> io::Result<Channel> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Channel(UnixStream::from(fd)))
    }

    /// Wraps an end that another process passed.
    pub(crate) fn from_fd(fd: OwnedFd) -> Channel {
        Channel(UnixStream::from(fd))
    }

    /// Sets a timeout for each later call, or none.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(timeout)?;
        self.0.set_write_timeout(timeout)
    }

    /// Shuts the connection down for both sides, even if other processes hold copies of an end.
    pub(crate) fn shut(&self) {
        // ENOTCONN: the peer closed it already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Returns whether the peer has closed its end, even if unread messages remain.
    pub(crate) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// Sends a message with duplicates of `fds`.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_MESSAGE);
        let length = length.ok_or_else(|| io::Error::other("message too long"))?;
        let more = fds.len().div_ceil(MAX_FDS).saturating_sub(1) as u32;
        if more >= 1 << (u32::BITS - LENGTH_BITS) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        let header = (length | more << LENGTH_BITS).to_le_bytes();
        let mut batches = fds.chunks(MAX_FDS);
        self.send_part(&header, batches.next().unwrap_or_default())?;
        for batch in batches {
            self.send_part(&[0], batch)?;
        }
        (&self.0).write_all(&body)
    }

    fn send_part(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        let slices = [IoSlice::new(bytes)];
        let sent = rustix::net::sendmsg(&self.0, &slices, &mut control, SendFlags::NOSIGNAL)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Receives a message and its descriptors; `None` once the peer has closed its end.
    pub(crate) fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut header = [0; 4];
        let mut fds = Vec::new();
        match self.recv_part(&mut header, &mut fds)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let header = u32::from_le_bytes(header);
        let length = header & ((1 << LENGTH_BITS) - 1);
        for _ in 0..header >> LENGTH_BITS {
            if self.recv_part(&mut [0], &mut fds)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if length > MAX_MESSAGE {
            return Err(io::Error::other("message too long"));
        }
        let mut body = Vec::new();
        (&self.0).take(u64::from(length)).read_to_end(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, fds)))
    }

    /// Receives bytes and appends their descriptors to `fds`; returns 0 if the peer has closed its end.
    fn recv_part(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(bytes)];
            let flags = RecvFlags::WAITALL | RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut slices, &mut control, flags) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => return Ok(0),
                other => break other?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("too many open descriptors: raise `ulimit -n`"));
        }
        Ok(received.bytes)
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
    fn messages_and_descriptors_arrive_in_order_until_hang_up() {
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

    #[test]
    fn any_number_of_descriptors_arrives_in_order() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel(UnixStream::from(b));
        let files: Vec<_> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        for count in [0, 1, 127, 128, 129, 256, 300] {
            let sent: Vec<_> = files.iter().cycle().take(count).map(AsFd::as_fd).collect();
            a.send(&count, &sent).unwrap();
            a.send(&"next", &[]).unwrap();
            let (number, fds) = b.recv::<usize>().unwrap().unwrap();
            assert_eq!((number, fds.len()), (count, count));
            assert!(fds.iter().zip(&sent).all(|(got, sent)| inode(got.as_fd()) == inode(*sent)));
            assert!(b.recv::<String>().unwrap().unwrap().1.is_empty());
        }
        assert!(a.send(&0, &[files[0].as_fd(); 32 * MAX_FDS + 1]).is_err());
    }
}
