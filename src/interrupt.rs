//! Handles Ctrl-C: a flag that running work checks, and the child processes that must not outlive svp.
//!
//! The first SIGINT, SIGTERM or SIGHUP sets the flag and kills the running stages. Code that waits for a stage
//! returns, finds the flag set, and cleans up as after any failure. Code blocked on an unresponsive network
//! can't check the flag: after a short grace period, the signal thread cleans up and exits instead.
//!
//! Commands that run a service or a program divert the signals and forward them to it, along with SIGQUIT,
//! SIGUSR1 and SIGUSR2.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;

use crate::error::{Error, Kind, Result};

type Removal = Box<dyn FnOnce(&Path) + Send>;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static DIVERTED: Mutex<Option<PipeWriter>> = Mutex::new(None);
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
/// The sockets of children that end their own processes when the socket is shut down, by pid.
static SOCKETS: Mutex<BTreeMap<i32, OwnedFd>> = Mutex::new(BTreeMap::new());

/// Directories that must not outlive the process, with the function that removes each.
static TEMPORARY: Mutex<BTreeMap<PathBuf, Removal>> = Mutex::new(BTreeMap::new());
/// Number of clean-ups in progress; their time is not limited.
static CLEANING: AtomicUsize = AtomicUsize::new(0);

/// Whether the process had a terminal when signals were diverted.
static ON_TERMINAL: AtomicBool = AtomicBool::new(false);

/// The signals that end a command.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// Further signals that are forwarded to a service; in other commands their default action applies.
const FORWARDED: [Signal; 3] = [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// How long an interrupted command has to notice the flag.
const GRACE: Duration = Duration::from_secs(1);

/// Returns whether the user interrupted svp.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Fails with [`Kind::Interrupted`] if the user interrupted svp.
pub(crate) fn check() -> Result<()> {
    if requested() { Err(error()) } else { Ok(()) }
}

/// Returns the error of an interrupted command.
pub(crate) fn error() -> Error {
    Error::new(Kind::Interrupted, "interrupted")
}

/// Returns the error of an interrupted command if svp was interrupted, else `original`.
pub(crate) fn or_interrupted(original: Error) -> Error {
    if requested() { error() } else { original }
}

/// Starts the signal thread. Call once, before any other thread exists: threads inherit the mask.
pub(crate) fn install() {
    let mut signals = SigSet::empty();
    for signal in ENDING.into_iter().chain(FORWARDED) {
        signals.add(signal);
    }
    // An ignored SIGHUP is deliberate (`nohup svp …`): leave it ignored. An ignored SIGINT or SIGQUIT only
    // comes from a shell's `&`: handle it.
    if crate::sys::is_ignored(libc::SIGHUP) {
        signals.remove(Signal::SIGHUP);
    }
    // Block SIGWINCH in every thread: one thread waits for it, to follow the terminal's size.
    let mut blocked = signals;
    blocked.add(Signal::SIGWINCH);
    if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).is_err() {
        return;
    }
    let started = std::thread::Builder::new().spawn(move || {
        loop {
            let Ok(signal) = signals.wait() else { return };
            if forward_to_pipe(signal) {
                continue;
            }
            if ENDING.contains(&signal) {
                break;
            }
            // Take the default action, which ends the process.
            let _ = SigSet::from(signal).thread_unblock();
            let _ = nix::sys::signal::raise(signal);
        }
        REQUESTED.store(true, Ordering::SeqCst);
        kill_children();
        std::thread::sleep(GRACE);
        while CLEANING.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        remove_temporary();
        std::process::exit(i32::from(Kind::Interrupted.exit_code()));
    });
    if started.is_err() {
        // No thread is left for them: their default action ends svp.
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&signals), None);
    }
}

/// Diverts signals: from now on they no longer end svp; each arrives on the returned pipe as a byte, its number.
///
/// # Errors
/// If no pipe can be created.
pub(crate) fn signals_to_pipe() -> std::io::Result<OwnedFd> {
    let (read, write) = std::io::pipe()?;
    ON_TERMINAL.store(File::open("/dev/tty").is_ok(), Ordering::SeqCst);
    if let Ok(mut diverted) = DIVERTED.lock() {
        *diverted = Some(write);
    }
    Ok(read.into())
}

/// Returns whether a diverted signal asks svp to stop; other signals are forwarded to the service. SIGHUP means that
/// the terminal was closed; without a terminal it asks the service to reload its configuration.
pub(crate) fn is_termination(signal: i32) -> bool {
    match Signal::try_from(signal) {
        Ok(Signal::SIGINT | Signal::SIGTERM) => true,
        Ok(Signal::SIGHUP) => ON_TERMINAL.load(Ordering::SeqCst),
        _ => false,
    }
}

fn forward_to_pipe(signal: Signal) -> bool {
    let Ok(mut diverted) = DIVERTED.lock() else { return false };
    diverted.as_mut().is_some_and(|pipe| pipe.write_all(&[signal as i32 as u8]).is_ok())
}

fn kill_children() {
    if let Ok(children) = CHILDREN.lock() {
        for pid in children.iter() {
            kill_with_children(*pid as u32);
        }
    }
    if let Ok(sockets) = SOCKETS.lock() {
        sockets.values().for_each(shut_down);
    }
}

/// Kills a child and its own children: one that has not become a stage yet does not die with its parent.
pub(crate) fn kill_with_children(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    for pid in children.chain([pid as i32]) {
        // ESRCH: the process is gone already.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn shut_down(socket: &OwnedFd) {
    // ENOTCONN: the peer closed it already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Registers a child that ends itself and its processes once `socket` is shut down. An interrupt shuts the
/// socket down instead of killing the child.
pub(crate) fn watch_socket(pid: u32, socket: OwnedFd) {
    let pid = pid as i32;
    if requested() {
        shut_down(&socket);
    }
    if let (Ok(mut children), Ok(mut sockets)) = (CHILDREN.lock(), SOCKETS.lock()) {
        sockets.insert(pid, socket);
        children.remove(&pid);
    }
}

/// Registers a child for an interrupt to kill; kills it at once if svp was interrupted already.
pub(crate) fn watch_child(pid: u32) {
    let pid = pid as i32;
    if let Ok(mut children) = CHILDREN.lock() {
        children.insert(pid);
    }
    if requested() {
        // ESRCH: the process is gone already.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Unregisters a child. Call before it is reaped: afterwards its pid may be reused.
pub(crate) fn forget_child(pid: u32) {
    if let Ok(mut children) = CHILDREN.lock() {
        children.remove(&(pid as i32));
    }
    if let Ok(mut sockets) = SOCKETS.lock() {
        sockets.remove(&(pid as i32));
    }
}

fn remove_temporary() {
    let Ok(temporary) = TEMPORARY.lock().map(|mut all| std::mem::take(&mut *all)) else { return };
    for (path, remove) in temporary {
        remove(&path);
    }
}

/// Registers a directory and the function that removes it if an interrupt ends the process before its owner can.
pub(crate) fn watch_temporary(path: &Path, remove: impl FnOnce(&Path) + Send + 'static) {
    if let Ok(mut temporary) = TEMPORARY.lock() {
        temporary.insert(path.to_owned(), Box::new(remove));
    }
}

/// Unregisters a directory that its owner has removed.
pub(crate) fn forget_temporary(path: &Path) {
    if let Ok(mut temporary) = TEMPORARY.lock() {
        temporary.remove(path);
    }
}

/// Keeps an interrupted process alive for a clean-up, until dropped.
pub(crate) fn cleaning() -> Cleaning {
    CLEANING.fetch_add(1, Ordering::SeqCst);
    Cleaning(())
}

/// See [`cleaning`].
pub(crate) struct Cleaning(());

impl Drop for Cleaning {
    fn drop(&mut self) {
        CLEANING.fetch_sub(1, Ordering::SeqCst);
    }
}
