//! A component init: the process in a container that starts one component of a service, reaps its orphans, and
//! reports its end to svp.
//!
//! It is a subreaper: all processes of the component, including daemons, remain its descendants. So before a restart it
//! can kill all leftover processes of the component, and none of other components. It confines itself before it starts
//! the component.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::exec::{cannot_run, confine};
use crate::channel::Channel;
use crate::error::{Error, Result, WireError};
use crate::sandbox::spec::End;
use crate::sandbox::stage::process::timespec;
use crate::sandbox::stage::protocol::{Descriptors, Request, reply};

/// The interval of checks whether killed processes have ended.
const PAUSE: Duration = Duration::from_millis(5);
/// The interval of checks for ended processes that caused no event.
const LOOK: Duration = Duration::from_secs(1);

/// A request of svp to a component init.
#[derive(Serialize, Deserialize)]
pub(in crate::sandbox) enum Order {
    /// Start the component, which must not be running.
    Start { argv: Vec<String>, env: Vec<(String, String)>, cwd: String },
    /// Send a signal to its first process.
    Signal(i32),
    /// Kill all its processes.
    Kill,
}

/// A report of a component init to svp.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) enum Report {
    /// The component's first process has started.
    Started,
    /// The component could not be started.
    NotStarted(WireError),
    /// The component and all its processes have ended.
    Ended(End),
}

/// The output pipes of the component, and the socket to svp.
struct Ends {
    control: Channel,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Request: be the init of a component. Descriptors: its socket, stdout, stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ComponentInitRequest;

impl Request for ComponentInitRequest {
    const NAME: &'static str = "component-init";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        let control = Channel::from_fd(fds.take()?);
        run_init(channel, &Ends { control, stdout: fds.take()?, stderr: fds.take()? })
    }
}

/// Runs the component init. `channel` is connected to the container's init, which reports when pivot_root is done.
fn run_init(channel: &Channel, ends: &Ends) -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Error::sandbox("prctl").source(io::Error::from(error)))?;
    reply(channel, &())?;
    if !matches!(channel.recv::<()>(), Ok(Some(_))) {
        return Ok(());
    }
    confine(channel)?;
    // A service that signals every process with kill(-1) must not kill this one.
    crate::sys::survive_signals();
    ComponentInit { ends, command: None, ended: None }.serve()
}

struct ComponentInit<'a> {
    ends: &'a Ends,
    /// The component's first process.
    command: Option<(Pid, OwnedFd)>,
    /// How the first process ended, until the remaining processes are reaped.
    ended: Option<End>,
}

impl ComponentInit<'_> {
    fn serve(&mut self) -> Result<()> {
        loop {
            if self.has_order() {
                match self.ends.control.recv::<Order>() {
                    Ok(Some((order, _))) => self.execute(order),
                    // svp has ended, and the container is about to end.
                    _ => return Ok(()),
                }
            }
            self.reap();
            if let Some(end) = self.ended
                && self.kill_leftovers()
            {
                self.ended = None;
                self.send_report(&Report::Ended(end));
            }
        }
    }

    /// Waits for an order, the command's end or the next check; returns whether there is an order.
    fn has_order(&self) -> bool {
        let pause = if self.ended.is_some() { PAUSE } else { LOOK };
        let mut fds = vec![PollFd::new(&self.ends.control, PollFlags::IN)];
        fds.extend(self.command.iter().map(|(_, handle)| PollFd::new(handle, PollFlags::IN)));
        // SIGCHLD interrupts the poll.
        poll(&mut fds, Some(&timespec(pause))).is_ok() && !fds[0].revents().is_empty()
    }

    fn execute(&mut self, order: Order) {
        match order {
            Order::Start { argv, env, cwd } => match self.start(&argv, env, &cwd) {
                Ok(()) => self.send_report(&Report::Started),
                Err(error) => self.send_report(&Report::NotStarted(error.into())),
            },
            Order::Signal(signal) => {
                if let Some((_, command)) = &self.command {
                    // ESRCH: the process is gone already.
                    let _ = crate::sys::signal_process(command, signal);
                }
            }
            Order::Kill => {
                kill_all(&descendants());
            }
        }
    }

    fn start(&mut self, argv: &[String], env: Vec<(String, String)>, cwd: &str) -> Result<()> {
        let failed = |error| cannot_run(&argv[0], cwd, error);
        let child = Command::new(&argv[0])
            .args(&argv[1..])
            .env_clear()
            .envs(env)
            .current_dir(cwd)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(self.ends.stdout.try_clone().map_err(failed)?)
            .stderr(self.ends.stderr.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let pid = Pid::from_raw(child.id() as i32);
        let raw = rustix::process::Pid::from_child(&child);
        let handle = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        self.command = Some((pid, handle));
        Ok(())
    }

    /// Reaps all processes that have ended.
    fn reap(&mut self) {
        loop {
            let (pid, end) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, End::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Signaled(signal as i32)),
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if self.command.as_ref().is_some_and(|(command, _)| *command == pid) {
                self.command = None;
                self.ended = Some(end);
            }
        }
    }

    /// Kills the component's remaining processes; returns whether none was left.
    fn kill_leftovers(&mut self) -> bool {
        self.reap();
        let left = descendants();
        kill_all(&left);
        left.is_empty()
    }

    fn send_report(&self, report: &Report) {
        // On failure, the next receive from the socket reports that svp has ended.
        let _ = self.ends.control.send(report, &[]);
    }
}

fn kill_all(processes: &[Pid]) {
    for pid in processes {
        // The process may have ended meanwhile.
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

/// Returns all descendants of this process, including zombies.
fn descendants() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_of(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![std::process::id() as i32];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(Pid::from_raw(child));
            next.push(child);
        }
    }
    found
}

/// Parses the parent's PID from `/proc/PID/stat`: the second field after the name, which may contain any byte.
fn parent_of(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_contain_any_byte() {
        assert_eq!(parent_of(b"12 (sh) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of(b"12 (a) R 1 (b) S 9 1"), Some(9));
        assert_eq!(parent_of(b"12"), None);
    }

    #[test]
    fn descendants_are_found() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert!(descendants().contains(&Pid::from_raw(child.id() as i32)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
