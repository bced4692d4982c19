//! The terminal of a command that joins a container.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;

/// Opens a terminal of the container: returns svp's end and the command's three descriptors. The terminal becomes the
/// controlling terminal of this process's session.
pub(super) fn open_terminal((rows, columns): (u16, u16)) -> io::Result<(OwnedFd, [OwnedFd; 3])> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The container may have replaced this file: the calls below fail on anything but a terminal.
    let ours = rustix::fs::open("/dev/pts/ptmx", flags | OFlags::NONBLOCK, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    let peer = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, peer | rustix::pty::OpenptFlags::CLOEXEC)?;
    let flags = rustix::fs::fcntl_getfl(&ours)?;
    rustix::fs::fcntl_setfl(&ours, flags - OFlags::NONBLOCK)?;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size)?;
    rustix::process::ioctl_tiocsctty(&theirs)?;
    let copy = || rustix::io::fcntl_dupfd_cloexec(&theirs, 3);
    let three = [copy()?, copy()?, copy()?];
    Ok((ours, three))
}
