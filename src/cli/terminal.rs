//! Connects the caller's terminal or pipes to a command in a container.
//!
//! The command never receives the caller's own descriptors: with the terminal's it could inject input (TIOCSTI).

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::{End, Joined, Signaller, Stdio, input_pipe, output_pipe};
use crate::service::exec;

type Start<'a> = dyn FnMut(Stdio) -> Result<Joined> + 'a;

/// Returns whether standard input and output are a terminal and svp is in its foreground: a background job would
/// be stopped for changing the terminal's settings.
pub(super) fn is_ours() -> bool {
    let stdin = rustix::stdio::stdin();
    stdin.is_terminal() && rustix::stdio::stdout().is_terminal() && in_foreground(stdin)
}

/// Runs a command on a pseudo-terminal in the container that mirrors the caller's terminal.
///
/// # Errors
/// Those of `start`.
pub(super) fn with_terminal(start: &mut Start<'_>) -> Result<End> {
    let ours = duplicate(rustix::stdio::stdin())?;
    let size = tcgetwinsize(&ours).map_err(|error| connection_broken(error.into()))?;
    let joined = start(Stdio::Terminal(size.ws_row, size.ws_col))?;
    let theirs = joined.terminal().ok_or_else(|| Error::sandbox("the command has no terminal"))?;
    let theirs = theirs.try_clone().map_err(connection_broken)?;
    follow_size(&ours, &theirs)?;
    forward_signals(joined.signaller()?, true)?;
    let _raw = Raw::set(&ours)?;
    let ended = Arc::new(AtomicBool::new(false));
    let typed = theirs.try_clone().map_err(connection_broken)?;
    // The thread ends with svp: a blocking read can't be cancelled.
    std::thread::spawn(move || forward_stdin(&File::from(ours), &typed));
    let stdout = duplicate(rustix::stdio::stdout())?;
    let printed = {
        let ended = ended.clone();
        std::thread::spawn(move || copy(&theirs, &stdout.into(), &ended))
    };
    let end = joined.wait();
    ended.store(true, Ordering::SeqCst);
    // Ignore a panic of the thread.
    let _ = printed.join();
    end
}

/// Runs a command with pipes to the caller's standard input, output and error.
///
/// # Errors
/// Those of `start`.
pub(super) fn with_pipes(start: &mut Start<'_>) -> Result<End> {
    let (stdin, stdin_end) = input_pipe()?;
    let (stdout_end, stdout) = output_pipe()?;
    let (stderr_end, stderr) = output_pipe()?;
    let joined = start(Stdio::Pipes([stdin, stdout, stderr]))?;
    forward_signals(joined.signaller()?, false)?;
    let ours = duplicate(rustix::stdio::stdin())?;
    let typed = File::from(stdin_end);
    std::thread::spawn(move || forward_stdin(&ours.into(), &typed));
    let ended = Arc::new(AtomicBool::new(false));
    let pump = |from: OwnedFd, to: OwnedFd| {
        let ended = ended.clone();
        std::thread::spawn(move || copy(&from.into(), &to.into(), &ended))
    };
    let printed = [
        pump(stdout_end, duplicate(rustix::stdio::stdout())?),
        pump(stderr_end, duplicate(rustix::stdio::stderr())?),
    ];
    let end = joined.wait();
    ended.store(true, Ordering::SeqCst);
    for thread in printed {
        // Ignore a panic of the thread.
        let _ = thread.join();
    }
    end
}

/// Duplicates one of svp's standard streams.
fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(connection_broken)
}

fn connection_broken(error: io::Error) -> Error {
    Error::new(Kind::Storage, "can't connect the command to the terminal").source(error)
}

/// Copies the caller's input to the command until end of file.
fn forward_stdin(mut from: &File, to: &File) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // Don't read in the background: the terminal would stop svp (SIGTTIN), and the command's output with it.
        if !in_foreground(from) {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(from, PollFlags::IN);
            }
            Ok(0) | Err(_) => return,
            Ok(length) if write_all(to, &buffer[..length]).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Returns whether svp may read standard input now: it is not a terminal, or svp is in the foreground.
fn in_foreground(terminal: impl AsFd) -> bool {
    rustix::termios::tcgetpgrp(terminal).map_or(true, |group| group == rustix::process::getpgrp())
}

/// Copies until end of file; once the command has `ended`, copies what is buffered and stops, since processes that it
/// left behind may print forever.
fn copy(from: &File, to: &File, ended: &AtomicBool) {
    let mut late = 0;
    // The exit status is known already; output is optional.
    let _ = exec::drain(from, ended, Duration::ZERO, &mut |bytes| -> io::Result<()> {
        if ended.load(Ordering::SeqCst) {
            late += bytes.len();
        }
        write_all(to, bytes)?;
        if late > MAX_PIPE { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    });
}

/// Maximum capacity of a pipe (the default of `/proc/sys/fs/pipe-max-size`).
const MAX_PIPE: usize = 1 << 20;

/// Writes everything, even if a peer such as node.js made the file non-blocking.
fn write_all(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for(to, PollFlags::OUT),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for(file: &File, what: PollFlags) {
    // A spurious wake-up only repeats the loop.
    let _ = poll(&mut [PollFd::new(file, what)], None);
}

/// Puts the caller's terminal into raw mode until dropped.
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    fn set(terminal: &OwnedFd) -> Result<Raw> {
        let before = tcgetattr(terminal).map_err(|error| connection_broken(error.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Drain, &raw)
            .map_err(|error| connection_broken(error.into()))?;
        Ok(Raw { terminal: terminal.try_clone().map_err(connection_broken)?, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Copies each change of the caller's window size to the command's terminal.
fn follow_size(ours: &OwnedFd, theirs: &File) -> Result<()> {
    let (ours, theirs) = (
        ours.try_clone().map_err(connection_broken)?,
        theirs.try_clone().map_err(connection_broken)?,
    );
    let mut resized = SigSet::empty();
    resized.add(Signal::SIGWINCH);
    std::thread::spawn(move || {
        while resized.wait().is_ok() {
            if let Ok(size) = tcgetwinsize(ours.as_fd()) {
                // The terminal may be gone.
                let _ = tcsetwinsize(theirs.as_fd(), size);
            }
        }
    });
    Ok(())
}

/// Forwards svp's signals to the command. A shell on a terminal ignores SIGTERM, and exits when its terminal closes.
fn forward_signals(signaller: Signaller, on_terminal: bool) -> Result<()> {
    let mut signals = File::from(interrupt::signals_to_pipe().map_err(connection_broken)?);
    std::thread::spawn(move || {
        let mut byte = [0];
        while signals.read_exact(&mut byte).is_ok() {
            let signal = i32::from(byte[0]);
            signaller.signal(signal);
            if on_terminal && signal == Signal::SIGTERM as i32 {
                signaller.signal(Signal::SIGHUP as i32);
            }
        }
    });
    Ok(())
}
