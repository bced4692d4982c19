//! What a stage does to its own process, and pidfds of the processes it starts.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::channel::Channel;
use crate::error::{Error, Result};

/// How long a killed container may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// Closes all but the three standard descriptors: whatever else svp's own caller left open is no business of
/// a process that lives on its own. Call before anything is opened.
pub(crate) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        let _ = nix::unistd::close(number);
    }
}

/// Nothing outlives svp, however it ends. The kernel forgets this when credentials change.
pub(in crate::sandbox) fn die_with_parent() {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Fails if the parent died before [`die_with_parent`] was called, which is too late then.
pub(in crate::sandbox) fn check_parent(channel: &Channel) -> Result<()> {
    if channel.is_hung_up() { Err(Error::sandbox("svp is gone")) } else { Ok(()) }
}

/// Undoes for a program what svp and its caller did to signals: the mask and what is ignored are inherited.
///
/// A stage itself keeps SIGTERM and its like blocked, because svp must hear of them first.
pub(in crate::sandbox) fn reset_signals() {
    crate::sys::default_signals();
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Opens a pidfd of a child that is not reaped yet.
pub(in crate::sandbox) fn pidfd_of(pid: u32) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32);
    let pid = pid.ok_or_else(|| Error::sandbox("a process without a PID"))?;
    pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| Error::sandbox("pidfd_open").source(std::io::Error::from(error)))
}

/// The PID, as this process sees it, of the process that a pidfd refers to.
pub(in crate::sandbox) fn pid_of(pidfd: impl AsFd) -> Option<u32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok()
}

/// Waits until a PID namespace is gone: its init counts as ended when all other processes have.
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

/// A duration as poll(2) takes it.
pub(in crate::sandbox) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

/// Gives up what this process may do; a program that it starts as root may do it again.
pub(in crate::sandbox) fn give_capabilities_up() -> Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|error| {
            Error::sandbox("can't give capabilities up").source(std::io::Error::from(error))
        })
}
