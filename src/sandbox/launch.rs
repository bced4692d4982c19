//! Starting stages: fresh, single-threaded starts of svp, run from a sealed copy of it in memory.
//!
//! A container's root is the very user that owns svp's file. Were a stage run from that file, a process
//! that got hold of `/proc/PID/exe` could wait for the stage to end and overwrite svp on the host
//! (CVE-2019-5736 in runc). A sealed memfd can't be written by anyone.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::room;
use super::spec::End;
use super::stages::Request;
use crate::channel::Channel;
use crate::error::{Error, Kind, Result, WireError};
use crate::interrupt;

/// The name that a stage is started under; `main` looks for it before anything else.
pub(super) const STAGE_NAME: &str = "svp-stage";

static SEALED: OnceLock<OwnedFd> = OnceLock::new();

/// A running stage, and the socket to it. Dropped means killed and reaped.
#[derive(Debug)]
pub(super) struct Stage {
    child: Child,
    channel: Channel,
}

impl Stage {
    /// Starts a stage in `dir` and hands it its request. An interrupt kills it.
    pub(super) fn start(dir: &Path, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Stage> {
        interrupt::check()?;
        let stage = Stage::start_cleanup(dir, request, fds)?;
        interrupt::watch_child(stage.child.id());
        Ok(stage)
    }

    /// Starts a stage that waits for its request: [`Stage::send`]. An interrupt kills it.
    pub(super) fn spawn(dir: &Path) -> Result<Stage> {
        interrupt::check()?;
        let stage = Stage::spawn_cleanup(dir)?;
        interrupt::watch_child(stage.child.id());
        Ok(stage)
    }

    /// Starts a stage that an interrupt does not kill, because it cleans up.
    pub(super) fn start_cleanup(
        dir: &Path,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Stage> {
        let stage = Stage::spawn_cleanup(dir)?;
        stage.send(request, fds)?;
        Ok(stage)
    }

    fn spawn_cleanup(dir: &Path) -> Result<Stage> {
        let failed = |error: io::Error| Error::sandbox("can't start a stage of svp").source(error);
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let mut command = Command::new(executable().map_err(|error| {
            Error::sandbox("can't make a sealed copy of svp in memory").source(error)
        })?);
        command.arg0(STAGE_NAME).env_clear().current_dir(dir);
        command.args(room::limit_before());
        if let Some(backtrace) = std::env::var_os("RUST_BACKTRACE") {
            command.env("RUST_BACKTRACE", backtrace);
        }
        // Rust's own standard output is of no use to a stage: what it has to say goes to the channel.
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let child = command.spawn().map_err(failed)?;
        Ok(Stage { child, channel })
    }

    /// Sends a further message.
    pub(super) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel.send(message, fds).map_err(|error| {
            Error::sandbox("a stage of svp does not listen any more").source(error)
        })
    }

    /// Receives what the stage has to say; its own error becomes ours.
    pub(super) fn recv<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>)> {
        let received = self.answer();
        interrupt::check()?;
        received
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>)> {
        match self.channel.recv::<Result<T, WireError>>() {
            Ok(Some((Ok(value), fds))) => Ok((value, fds)),
            Ok(Some((Err(error), _))) => Err(error.into()),
            Ok(None) => Err(self.death()),
            Err(error) => Err(Error::sandbox("a stage of svp talks nonsense").source(error)),
        }
    }

    /// Waits until the stage has become another program; its error if it has not.
    pub(super) fn wait_for_exec(&mut self) -> Result<()> {
        match self.channel.recv::<Result<(), WireError>>() {
            Ok(Some((Err(error), _))) => Err(error.into()),
            // Exec closes the socket.
            _ => Ok(()),
        }
    }

    /// Forgets a stage that was reaped as any other child.
    pub(super) fn forget(self) {
        interrupt::forget_child(self.child.id());
        std::mem::forget(self);
    }

    /// The last reply: receives it and waits for the stage to end.
    pub(super) fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        let (value, _) = self.recv()?;
        self.reap().map_err(|error| Error::sandbox("can't wait for a stage").source(error))?;
        Ok(value)
    }

    /// As [`Stage::finish`] for one that cleans up: an interrupt is no failure of it.
    pub(super) fn finish_cleanup<T: DeserializeOwned>(mut self) -> Result<T> {
        let (value, _) = self.answer()?;
        self.reap().map_err(|error| Error::sandbox("can't wait for a stage").source(error))?;
        Ok(value)
    }

    /// Waits for the end of the program that the stage has become.
    pub(super) fn end(mut self) -> Result<End> {
        use std::os::unix::process::ExitStatusExt;
        let status = self
            .reap()
            .map_err(|error| Error::sandbox("can't wait for a command").source(error))?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signaled(signal.unwrap_or_default()),
        })
    }

    /// The stage's process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The socket, to wait on.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        interrupt::forget_child(self.child.id());
        self.child.wait()
    }

    fn death(&mut self) -> Error {
        match self.reap() {
            _ if interrupt::requested() => interrupt::error(),
            Ok(status) => Error::new(Kind::Sandbox, format!("a stage of svp died: {status}"))
                .hint("is the machine out of memory? `dmesg` tells"),
            Err(error) => Error::sandbox("a stage of svp died").source(error),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        interrupt::forget_child(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What to execute for a stage: the sealed copy, made once; within a stage, the copy it runs from.
fn executable() -> io::Result<PathBuf> {
    if std::env::args_os().next().is_some_and(|name| name == STAGE_NAME) {
        return Ok("/proc/self/exe".into());
    }
    let fd = match SEALED.get() {
        Some(fd) => fd,
        None => {
            let copy = sealed_copy()?;
            SEALED.get_or_init(|| copy)
        }
    };
    // Resolved in the child before exec closes it.
    Ok(format!("/proc/self/fd/{}", fd.as_raw_fd()).into())
}

/// Undoes for a program what svp and its caller did to signals: the mask and what is ignored are inherited.
///
/// A stage itself keeps SIGTERM and its like blocked, because svp must hear of them first.
pub(super) fn fresh_signals() {
    crate::sys::default_signals();
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know the flag that asks for an executable memfd, and don't need it.
    let fd = rustix::fs::memfd_create("svp", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("svp", flags))?;
    let mut copy = File::from(fd);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
