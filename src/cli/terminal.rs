//! The caller's terminal and pipes, connected to a command in a container.
//!
//! The command never gets the caller's own descriptors: with a terminal's it could type on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::{End, Joined, Signaller, Stdio};
use crate::service::command;

type Start<'a> = dyn FnMut(Stdio) -> Result<Joined> + 'a;

/// Runs a command with a terminal of the container's own, which behaves as the caller's.
///
/// # Errors
/// Those of `start`.
pub(super) fn with_terminal(start: &mut Start<'_>) -> Result<End> {
    let ours = own(rustix::stdio::stdin())?;
    let size = tcgetwinsize(&ours).map_err(|error| broken(error.into()))?;
    let joined = start(Stdio::Terminal(size.ws_row, size.ws_col))?;
    let theirs = joined.terminal().ok_or_else(|| Error::sandbox("the command has no terminal"))?;
    let theirs = theirs.try_clone().map_err(broken)?;
    follow_size(&ours, &theirs)?;
    forward_signals(joined.signaller()?)?;
    let _raw = Raw::set(&ours)?;
    let ended = Arc::new(AtomicBool::new(false));
    let typed = theirs.try_clone().map_err(broken)?;
    // It ends with svp: nothing can be taken back from a read.
    std::thread::spawn(move || copy(File::from(ours), typed, &AtomicBool::new(false)));
    let stdout = own(rustix::stdio::stdout())?;
    let printed = {
        let ended = ended.clone();
        std::thread::spawn(move || copy(theirs, stdout.into(), &ended))
    };
    let end = joined.wait();
    ended.store(true, Ordering::SeqCst);
    let _ = printed.join();
    end
}

/// Runs a command with pipes, which lead to the caller's standard input, output and error.
///
/// # Errors
/// Those of `start`.
pub(super) fn with_pipes(start: &mut Start<'_>) -> Result<End> {
    let (stdin, stdin_end) = io::pipe().map_err(broken)?;
    let (stdout_end, stdout) = io::pipe().map_err(broken)?;
    let (stderr_end, stderr) = io::pipe().map_err(broken)?;
    let joined = start(Stdio::Pipes([stdin.into(), stdout.into(), stderr.into()]))?;
    forward_signals(joined.signaller()?)?;
    let ours = own(rustix::stdio::stdin())?;
    let typed = File::from(OwnedFd::from(stdin_end));
    std::thread::spawn(move || copy(ours.into(), typed, &AtomicBool::new(false)));
    let ended = Arc::new(AtomicBool::new(false));
    let pump = |from: OwnedFd, to: OwnedFd| {
        let ended = ended.clone();
        std::thread::spawn(move || copy(from.into(), to.into(), &ended))
    };
    let printed = [
        pump(stdout_end.into(), own(rustix::stdio::stdout())?),
        pump(stderr_end.into(), own(rustix::stdio::stderr())?),
    ];
    let end = joined.wait();
    ended.store(true, Ordering::SeqCst);
    for thread in printed {
        let _ = thread.join();
    }
    end
}

fn own(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(broken)
}

fn broken(error: io::Error) -> Error {
    Error::new(Kind::Storage, "can't connect the command to the terminal").source(error)
}

/// Copies until the end; once the command has `ended`, until nothing is left.
fn copy(from: File, mut to: File, ended: &AtomicBool) {
    let _ = command::drain(&from, ended, Duration::ZERO, &mut |bytes| to.write_all(bytes));
}

/// The caller's terminal without line editing, echo and signals, until dropped.
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    fn set(terminal: &OwnedFd) -> Result<Raw> {
        let before = tcgetattr(terminal).map_err(|error| broken(error.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Drain, &raw).map_err(|error| broken(error.into()))?;
        Ok(Raw { terminal: terminal.try_clone().map_err(broken)?, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Gives the command's terminal the size of the caller's whenever that changes.
fn follow_size(ours: &OwnedFd, theirs: &File) -> Result<()> {
    let (ours, theirs) = (ours.try_clone().map_err(broken)?, theirs.try_clone().map_err(broken)?);
    let mut resized = SigSet::empty();
    resized.add(Signal::SIGWINCH);
    std::thread::spawn(move || {
        while resized.wait().is_ok() {
            if let Ok(size) = tcgetwinsize(ours.as_fd()) {
                let _ = tcsetwinsize(theirs.as_fd(), size);
            }
        }
    });
    Ok(())
}

/// Sends the command what svp is sent.
fn forward_signals(signaller: Signaller) -> Result<()> {
    let mut signals = File::from(interrupt::divert().map_err(broken)?);
    std::thread::spawn(move || {
        let mut byte = [0];
        while signals.read_exact(&mut byte).is_ok() {
            signaller.signal(byte[0].into());
        }
    });
    Ok(())
}
