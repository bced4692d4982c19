//! Ctrl-C: one flag that work looks at, and the processes that must not outlive it.
//!
//! The first SIGINT, SIGTERM or SIGHUP sets the flag and kills the stages that run. Whatever waited for
//! them returns, finds the flag set, and cleans up as after any failure. Whoever waits for a network that
//! doesn't answer can't look at the flag: for them the process cleans up and ends by itself after a short
//! grace.
//!
//! Who runs a service or a command gets the signals instead, and those that only a service may want.

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
/// Children that have others to end, which they do when their line to svp is cut.
static LINES: Mutex<BTreeMap<i32, OwnedFd>> = Mutex::new(BTreeMap::new());

/// Directories that must not outlive the process, and how each is removed.
static TEMPORARY: Mutex<BTreeMap<PathBuf, Removal>> = Mutex::new(BTreeMap::new());
/// How many clean-ups go on, which may take as long as they take.
static CLEANING: AtomicUsize = AtomicUsize::new(0);

/// Whether there was a terminal when signals were diverted.
static ON_TERMINAL: AtomicBool = AtomicBool::new(false);

/// What ends a command.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// What is handed on to a service, and else does to svp what it does to any program.
const HANDED_ON: [Signal; 3] = [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// How long an interrupted command may take to notice.
const GRACE: Duration = Duration::from_secs(1);

/// Whether the user asked svp to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Fails with [`Kind::Interrupted`] if the user asked svp to stop.
pub fn check() -> Result<()> {
    if requested() { Err(error()) } else { Ok(()) }
}

/// The error that an interrupted command ends with.
pub fn error() -> Error {
    Error::new(Kind::Interrupted, "interrupted")
}

/// Begins to listen for signals. Call once, before any other thread exists: threads inherit the mask.
pub fn install() {
    let mut signals = SigSet::empty();
    for signal in ENDING.into_iter().chain(HANDED_ON) {
        signals.add(signal);
    }
    // `nohup svp …` means it. The others are wanted though a shell's `&` ignores them.
    if crate::sys::is_ignored(libc::SIGHUP) {
        signals.remove(Signal::SIGHUP);
    }
    // Whoever follows a terminal's size waits for this one; no other thread may take it.
    let mut blocked = signals;
    blocked.add(Signal::SIGWINCH);
    if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).is_err() {
        return;
    }
    std::thread::spawn(move || {
        loop {
            let Ok(signal) = signals.wait() else { return };
            if hand_on(signal) {
                continue;
            }
            if ENDING.contains(&signal) {
                break;
            }
            // Its default action, which ends the process.
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
}

/// From now on a signal ends nothing: its number is a byte on the pipe that is given back.
///
/// # Errors
/// If no pipe can be made.
pub fn divert() -> std::io::Result<OwnedFd> {
    let (read, write) = std::io::pipe()?;
    ON_TERMINAL.store(File::open("/dev/tty").is_ok(), Ordering::SeqCst);
    if let Ok(mut diverted) = DIVERTED.lock() {
        *diverted = Some(write);
    }
    Ok(read.into())
}

/// Whether a diverted signal asks svp to end; the others are the service's. SIGHUP says that the terminal
/// is gone; where there was none, it asks a service to read its configuration again.
pub fn asks_to_end(signal: i32) -> bool {
    match Signal::try_from(signal) {
        Ok(Signal::SIGINT | Signal::SIGTERM) => true,
        Ok(Signal::SIGHUP) => ON_TERMINAL.load(Ordering::SeqCst),
        _ => false,
    }
}

fn hand_on(signal: Signal) -> bool {
    let Ok(mut diverted) = DIVERTED.lock() else { return false };
    diverted.as_mut().is_some_and(|pipe| pipe.write_all(&[signal as i32 as u8]).is_ok())
}

fn kill_children() {
    if let Ok(children) = CHILDREN.lock() {
        for pid in children.iter() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }
    if let Ok(lines) = LINES.lock() {
        lines.values().for_each(cut);
    }
}

fn cut(line: &OwnedFd) {
    let _ = rustix::net::shutdown(line, rustix::net::Shutdown::Both);
}

/// Registers a child that ends by itself, and what it has started first, when this socket is shut down: an
/// interrupt does that, and doesn't kill it any more.
pub(crate) fn watch_line(pid: u32, line: OwnedFd) {
    let pid = pid as i32;
    if requested() {
        cut(&line);
    }
    if let (Ok(mut children), Ok(mut lines)) = (CHILDREN.lock(), LINES.lock()) {
        lines.insert(pid, line);
        children.remove(&pid);
    }
}

/// Registers a child to be killed by an interrupt. It is killed at once if there was one already.
pub(crate) fn watch_child(pid: u32) {
    let pid = pid as i32;
    if let Ok(mut children) = CHILDREN.lock() {
        children.insert(pid);
    }
    if requested() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Forgets a child. Call before it is reaped: afterwards its number may be another's.
pub(crate) fn forget_child(pid: u32) {
    if let Ok(mut children) = CHILDREN.lock() {
        children.remove(&(pid as i32));
    }
    if let Ok(mut lines) = LINES.lock() {
        lines.remove(&(pid as i32));
    }
}

fn remove_temporary() {
    let Ok(temporary) = TEMPORARY.lock().map(|mut all| std::mem::take(&mut *all)) else { return };
    for (path, remove) in temporary {
        remove(&path);
    }
}

/// Registers a directory, and how to remove it if an interrupt ends the process before its owner could.
pub(crate) fn watch_temporary(path: &Path, remove: impl FnOnce(&Path) + Send + 'static) {
    if let Ok(mut temporary) = TEMPORARY.lock() {
        temporary.insert(path.to_owned(), Box::new(remove));
    }
}

/// Forgets a directory that its owner has removed.
pub(crate) fn forget_temporary(path: &Path) {
    if let Ok(mut temporary) = TEMPORARY.lock() {
        temporary.remove(path);
    }
}

/// Keeps an interrupted process alive while it cleans up; until dropped.
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
