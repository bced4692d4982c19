//! Limits the processes of a container from its init, where there is no cgroup.
//!
//! RLIMIT_NPROC bounds the processes of each user: since Linux 5.14 the kernel counts them for each user namespace, and
//! a command has its own. A script may have many users, and the kernel bounds the memory of one process only, so a
//! thread of init watches the sums, and kills the container when one exceeds its limit.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sandbox::spec::{Reached, Watched};

/// The pause between two looks at the processes.
const TICK: Duration = Duration::from_millis(50);

/// The limits that a container's init enforces.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::sandbox) struct Bounds {
    /// The number of processes and threads.
    pub(super) pids: Option<u64>,
    /// The number of svp's own processes and threads with the container's user namespace.
    pub(super) own: u64,
    /// The memory of all processes; bytes.
    pub(super) memory: Option<u64>,
    /// The size of /dev/shm; bytes.
    pub(super) shm: Option<u64>,
}

/// A thread that watches the container's processes, if a limit needs it.
pub(super) struct Watch {
    bounds: Bounds,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    most_tasks: AtomicU64,
    too_many: AtomicBool,
    too_much: AtomicBool,
}

/// Whether RLIMIT_NPROC counts the processes of a user namespace, rather than all of a user on the host.
pub(super) fn counts_by_namespace() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 14)
}

/// Sets the limits that this process and its children inherit.
pub(super) fn limit_resources(bounds: &Bounds) -> Result<()> {
    let lower = |resource, most: u64, name: &str| {
        let hard = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
        setrlimit(resource, limit).map_err(|error| {
            Error::sandbox(format!("can't limit {name}")).source(std::io::Error::from(error))
        })
    };
    if let Some(pids) = bounds.pids.filter(|_| counts_by_namespace()) {
        lower(Resource::Nproc, pids + bounds.own, "the number of processes")?;
    }
    if let Some(memory) = bounds.memory {
        lower(Resource::Data, memory, "the memory of a process")?;
    }
    Ok(())
}

/// Starts to watch the processes of this PID namespace.
pub(super) fn start(bounds: &Bounds) -> Result<Watch> {
    let seen = Arc::new(Seen::default());
    let watch = Watch { bounds: bounds.clone(), seen: seen.clone() };
    if bounds.pids.is_some() || bounds.memory.is_some() {
        let bounds = bounds.clone();
        let watched = std::thread::Builder::new().spawn(move || watch_processes(&bounds, &seen));
        watched.map_err(|error| Error::sandbox("can't watch the processes").not_started(error))?;
    }
    Ok(watch)
}

impl Watch {
    /// Returns the limits that the processes have reached.
    pub(super) fn reached(&self) -> Reached {
        let Seen { most_tasks, too_many, too_much } = &*self.seen;
        let killed_for = match (too_many.load(Ordering::SeqCst), too_much.load(Ordering::SeqCst)) {
            (true, _) => Some(Watched::Pids),
            (_, true) => Some(Watched::Memory),
            _ => None,
        };
        // A look takes longer than a fork bomb lives: look again at the processes that the command has left.
        let now = || usage(false).0 + 1;
        // A process that was refused another one may have waited for one to end.
        let near = |pids: u64| most_tasks.load(Ordering::SeqCst).max(now()) + 1 >= pids;
        Reached { pids: self.bounds.pids.is_some_and(near), killed_for, memory_kills: 0 }
    }
}

fn watch_processes(bounds: &Bounds, seen: &Seen) {
    loop {
        std::thread::sleep(TICK);
        let (tasks, memory) = usage(bounds.memory.is_some());
        seen.most_tasks.fetch_max(tasks, Ordering::SeqCst);
        let over = |bound: Option<u64>, used| bound.is_some_and(|most| used > most);
        let flag = match (over(bounds.pids, tasks), over(bounds.memory, memory)) {
            (true, _) => &seen.too_many,
            (_, true) => &seen.too_much,
            _ => continue,
        };
        flag.store(true, Ordering::SeqCst);
        // Again and again: processes that are just being created escape.
        loop {
            // ESRCH: all have ended.
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Returns the number of processes and threads besides init, and their memory in bytes if requested.
fn usage(with_memory: bool) -> (u64, u64) {
    let Ok(entries) = fs::read_dir("/proc") else { return (0, 0) };
    let (mut tasks, mut memory) = (0, 0);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.parse::<u32>().is_ok_and(|pid| pid != 1))
        else {
            continue;
        };
        // The directory has a link for each thread, besides its own two. A process that has ended has none.
        let links = fs::metadata(format!("/proc/{name}/task")).map_or(0, |task| task.nlink());
        tasks += links.saturating_sub(2);
        if with_memory {
            let status = fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
            memory += resident(&status);
        }
    }
    (tasks, memory)
}

/// Returns a process's memory without files, from its status; bytes.
fn resident(status: &str) -> u64 {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| ["RssAnon", "RssShmem"].contains(name))
        .filter_map(|(_, value)| value.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kib| kib << 10)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_without_files() {
        let status = "Name:\tx\nVmRSS:\t    3000 kB\nRssAnon:\t    1000 kB\nRssFile:\t    1500 kB\n\
            RssShmem:\t     500 kB\n";
        assert_eq!(resident(status), 1500 << 10);
        assert_eq!(resident(""), 0);
    }
}
