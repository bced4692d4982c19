//! The pipes that are a container's standard streams.
//!
//! /dev/stdin, /dev/stdout and /dev/stderr lead to them, and the kernel checks a pipe's owner and mode when it is opened
//! by such a name, as it does for a file. A pipe that root creates belongs to a user that the container does not have:
//! not even the container's root could open it. So these functions give the container's end to the container's root, and
//! let its other users write to outputs and read inputs, as runc and conmon do. Only a process that has the pipe, or may
//! inspect one that has it, can find the name.
//!
//! They change only pipes that they have created: never a file, a terminal or a pipe of the caller.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, Uid};

use crate::error::{Error, Result};
use crate::sandbox::userns::idmap::IdMap;

/// The mode of an output: the container's root owns it, other users may write.
const OUTPUT: u32 = 0o622;
/// The mode of an input: other users may read.
const INPUT: u32 = 0o644;

/// Creates a pipe for a container's output; returns svp's end and the container's.
///
/// The container can open svp's end by name too, and read what it has written: a reader that must not block for longer
/// than its time limit has to make its end non-blocking.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if no descriptors are left.
pub(crate) fn output_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::io::pipe().map_err(cannot_create)?;
    let theirs = OwnedFd::from(theirs);
    give_to_container(&theirs, OUTPUT)?;
    Ok((ours.into(), theirs))
}

/// Creates a pipe for a container's input; returns the container's end and svp's.
///
/// # Errors
/// As [`output_pipe`].
pub(crate) fn input_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (theirs, ours) = std::io::pipe().map_err(cannot_create)?;
    let theirs = OwnedFd::from(theirs);
    give_to_container(&theirs, INPUT)?;
    Ok((theirs, ours.into()))
}

fn cannot_create(error: std::io::Error) -> Error {
    Error::sandbox("can't create a pipe").source(error)
}

/// Makes the container's root the owner of a new pipe.
fn give_to_container(pipe: &OwnedFd, mode: u32) -> Result<()> {
    // An ordinary user is the container's root, and owns the pipe already.
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = IdMap::for_caller()?.root();
        // Without CAP_CHOWN the streams work all the same, except by name.
        let _ = rustix::fs::fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }
    // Can't fail: this process has created the pipe.
    let _ = rustix::fs::fchmod(pipe, Mode::from(mode));
    Ok(())
}

/// Makes a user of the container the owner of a command's pipe, from inside the container. Leaves everything else as it
/// is, such as the host's /dev/null.
pub(super) fn give_to_user(stream: impl AsFd, uid: u32) {
    let is_pipe = rustix::fs::fstat(&stream)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if is_pipe {
        // Without ownership the user can write to an output, but not open it for reading and writing.
        let _ = rustix::fs::fchown(&stream, Some(Uid::from_raw(uid)), None);
    }
}

/// Makes svp's end of a pipe non-blocking: a container that has opened it by name may take what poll has reported.
pub(crate) fn set_nonblocking(pipe: impl AsFd) {
    // Fails only for a closed descriptor.
    let _ = rustix::fs::fcntl_getfl(&pipe)
        .and_then(|flags| rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK));
}
