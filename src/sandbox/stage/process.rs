//! Changes to a stage's own process, and pidfds of its children.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::channel::Channel;
use crate::error::{Error, Result};

/// How long to wait for the end of a killed container.
const DYING: Duration = Duration::from_secs(5);

/// Closes all descriptors but the three standard ones: a process that outlives the command must not keep open the files
/// that it inherited from svp's caller. Call it before anything is opened.
///
/// # Errors
/// Those of reading /proc/self/fd, which is missing where /proc is not mounted.
pub(crate) fn close_inherited() -> std::io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // EBADF: closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// Makes the kernel kill this process when its parent ends. A change of credentials resets this.
pub(in crate::sandbox) fn die_with_parent() {
    // Fails only for an invalid signal.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Fails if the parent died before [`die_with_parent`] took effect.
pub(in crate::sandbox) fn check_parent(channel: &Channel) -> Result<()> {
    if channel.is_hung_up() { Err(Error::sandbox("svp has ended")) } else { Ok(()) }
}

/// Resets the signal mask and the ignored signals for a program: exec inherits both from svp and its caller.
///
/// Stages keep SIGTERM and similar signals blocked, because svp must handle them first.
pub(in crate::sandbox) fn reset_signals() {
    crate::sys::default_signals();
    // Fails only for an invalid mask.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Opens a pidfd of a child that has not been reaped yet.
pub(in crate::sandbox) fn pidfd_of(pid: u32) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32);
    let pid = pid.ok_or_else(|| Error::sandbox("the process has no PID"))?;
    pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| Error::sandbox("pidfd_open").source(std::io::Error::from(error)))
}

/// Returns the PID, in this process's PID namespace, of the process that a pidfd refers to.
pub(in crate::sandbox) fn pid_of(pidfd: impl AsFd) -> Option<u32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok()
}

/// Waits until a PID namespace has ended, at most five seconds. The kernel reports the end of the namespace's init
/// after that of all its other processes.
pub(in crate::sandbox) fn wait_for_death(init: &OwnedFd) {
    let killed = Instant::now();
    while let Some(left) = DYING.checked_sub(killed.elapsed()) {
        let mut fds = [PollFd::new(init, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Converts a duration for poll(2).
pub(in crate::sandbox) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

/// Drops all capabilities of this process; a program that it executes as root regains them.
pub(in crate::sandbox) fn drop_capabilities() -> Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|error| {
            Error::sandbox("can't drop capabilities").source(std::io::Error::from(error))
        })
}
