//! Starts stages: new single-threaded processes of svp, executed from a sealed copy of it in memory.
//!
//! A container's root is the same user that owns svp's file. If a stage ran from that file, a process that
//! opened `/proc/PID/exe` could wait for the stage to end and overwrite svp on the host (CVE-2019-5736 in
//! runc). Nothing can write to a sealed memfd.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use log::{debug, trace};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fd_limit;
use super::protocol::{Request, receive_answer, send_request};
use crate::channel::Channel;
use crate::diagnostics;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::spec::End;
use crate::sandbox::userns::cause::name_limit;

/// The name (argv[0]) of a stage; `main` checks for it before anything else.
pub(in crate::sandbox) const STAGE_NAME: &str = "svp-stage";

static SEALED: OnceLock<OwnedFd> = OnceLock::new();

/// A running stage, and the socket to it. Dropping it kills and reaps the stage.
pub(in crate::sandbox) struct Stage<R> {
    /// Its request's name, for diagnostics.
    name: &'static str,
    since: Instant,
    child: Child,
    channel: Channel,
    request: PhantomData<fn(R)>,
}

impl<R: Request> Stage<R> {
    /// Starts a stage in `dir` and sends its request. An interrupt kills it.
    pub(in crate::sandbox) fn start(
        dir: &Path,
        request: &R,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Stage<R>> {
        interrupt::check()?;
        let stage = Stage::start_cleanup(dir, request, fds)?;
        interrupt::watch_child(stage.child.id());
        Ok(stage)
    }

    /// Starts a stage that an interrupt does not kill, because it cleans up.
    pub(in crate::sandbox) fn start_cleanup(
        dir: &Path,
        request: &R,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Stage<R>> {
        let stage = Stage::spawn_cleanup(dir, R::NAME)?;
        stage.send_request(request, fds)?;
        Ok(stage)
    }

    /// Sends the request to a stage that was spawned without one.
    pub(in crate::sandbox) fn send_request(
        &self,
        request: &R,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        send_request(&self.channel, request, fds).map_err(send_failed)
    }

    /// Receives the last answer and waits for the stage to end.
    pub(in crate::sandbox) fn finish(mut self) -> Result<R::Answer> {
        let (value, _) = self.recv()?;
        self.reap().map_err(|error| Error::sandbox("can't wait for a stage").source(error))?;
        Ok(value)
    }

    /// As [`Stage::finish`] for a stage that cleans up: an interrupt does not count as its failure.
    pub(in crate::sandbox) fn finish_cleanup(mut self) -> Result<R::Answer> {
        let (value, _) = self.answer()?;
        self.reap().map_err(|error| Error::sandbox("can't wait for a stage").source(error))?;
        Ok(value)
    }
}

impl<R> Stage<R> {
    /// Starts a stage that waits for [`Stage::send_request`]. An interrupt kills it.
    pub(in crate::sandbox) fn spawn(dir: &Path, name: &'static str) -> Result<Stage<R>> {
        interrupt::check()?;
        let stage = Stage::spawn_cleanup(dir, name)?;
        interrupt::watch_child(stage.child.id());
        Ok(stage)
    }

    fn spawn_cleanup(dir: &Path, name: &'static str) -> Result<Stage<R>> {
        let failed =
            |error: io::Error| Error::sandbox("can't start an svp stage").not_started(error);
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let mut command = Command::new(executable().map_err(|error| {
            Error::sandbox("can't create a sealed copy of svp in memory").not_started(error)
        })?);
        command.arg0(STAGE_NAME).env_clear().current_dir(dir);
        command.args(fd_limit::limit_before());
        if let Some(backtrace) = std::env::var_os("RUST_BACKTRACE") {
            command.env("RUST_BACKTRACE", backtrace);
        }
        // A stage has no use for standard output: its answers go to the channel.
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        command.envs(diagnostics::environment());
        let child = command.spawn().map_err(failed)?;
        trace!("stage {name}: started as process {}", child.id());
        Ok(Stage { name, since: Instant::now(), child, channel, request: PhantomData })
    }

    /// Sends a further message to the stage.
    pub(in crate::sandbox) fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        self.channel.send(message, fds).map_err(send_failed)
    }

    /// Receives an answer of the stage; returns the stage's error if it sent one.
    pub(in crate::sandbox) fn recv<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>)> {
        let received = self.answer();
        interrupt::check()?;
        received
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>)> {
        match receive_answer::<T>(&self.channel) {
            Ok(Some((Ok(value), fds))) => Ok((value, fds)),
            // A stage may be in a user namespace, which has limits of its own.
            Ok(Some((Err(error), _))) => Err(if in_stage() { error } else { name_limit(error) }),
            Ok(None) => Err(self.death()),
            Err(error) if is_timeout(&error) => Err(no_answer()),
            Err(error) => Err(Error::sandbox("malformed answer from an svp stage").source(error)),
        }
    }

    /// Waits until the stage has executed another program; returns the stage's error if that failed.
    pub(in crate::sandbox) fn wait_for_exec(&mut self) -> Result<()> {
        match receive_answer::<()>(&self.channel) {
            Ok(Some((Err(error), _))) => Err(error),
            Err(error) if is_timeout(&error) => Err(no_answer()),
            // Exec closes the socket.
            _ => Ok(()),
        }
    }

    /// Releases a stage that the caller has reaped along with its other children.
    pub(in crate::sandbox) fn forget(self) {
        interrupt::forget_child(self.child.id());
        std::mem::forget(self);
    }

    /// Waits for the program that the stage has executed; returns how it ended.
    pub(in crate::sandbox) fn end(mut self) -> Result<End> {
        use std::os::unix::process::ExitStatusExt;
        let status = self
            .reap()
            .map_err(|error| Error::sandbox("can't wait for a command").source(error))?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signaled(signal.unwrap_or_default()),
        })
    }

    /// Returns the PID of the stage.
    pub(in crate::sandbox) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the stage is still running.
    pub(in crate::sandbox) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns the socket, for polling.
    pub(in crate::sandbox) fn channel(&self) -> &Channel {
        &self.channel
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        interrupt::forget_child(self.child.id());
        let status = self.child.wait()?;
        debug!("stage {}: {status} after {:.1?}", self.name, self.since.elapsed());
        Ok(status)
    }

    fn death(&mut self) -> Error {
        match self.reap() {
            _ if interrupt::requested() => interrupt::error(),
            Ok(status) => Error::new(Kind::Sandbox, format!("an svp stage died: {status}"))
                .hint("check `dmesg` for an out-of-memory kill"),
            Err(error) => Error::sandbox("an svp stage died").source(error),
        }
    }
}

// Not derived: requests contain secrets and have no Debug.
impl<R> std::fmt::Debug for Stage<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("child", &self.child).finish_non_exhaustive()
    }
}

/// Whether the time limit of a channel has expired.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn no_answer() -> Error {
    Error::sandbox("an svp stage did not answer in time")
}

fn send_failed(error: io::Error) -> Error {
    // An interrupt kills the stages.
    interrupt::or_interrupted(Error::sandbox("an svp stage closed its socket").source(error))
}

impl<R> Drop for Stage<R> {
    fn drop(&mut self) {
        interrupt::forget_child(self.child.id());
        // ESRCH: the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process is a stage itself.
fn in_stage() -> bool {
    std::env::args_os().next().is_some_and(|name| name == STAGE_NAME)
}

/// Returns the file to execute for a stage: the sealed copy, created once; in a stage, the copy it runs from.
fn executable() -> io::Result<PathBuf> {
    if in_stage() {
        return Ok("/proc/self/exe".into());
    }
    let fd = match SEALED.get() {
        Some(fd) => fd,
        None => {
            let copy = sealed_copy()?;
            SEALED.get_or_init(|| copy)
        }
    };
    // The child resolves this path before exec closes the descriptor.
    Ok(format!("/proc/self/fd/{}", fd.as_raw_fd()).into())
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know MFD_EXEC, and don't need it.
    let fd = rustix::fs::memfd_create("svp", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("svp", flags))?;
    let mut copy = File::from(fd);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
