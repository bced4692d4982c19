//! Identifies processes across the reuse of PIDs.

use std::fs;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Poll interval while waiting for a process to exit.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A process, identified uniquely: its PID alone may be reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    /// Its PID on the host.
    pub number: u32,
    /// Its start time, in clock ticks since boot.
    began: u64,
    /// The boot ID of the host.
    boot: String,
}

impl Process {
    /// The process that has this PID now, if any.
    pub(crate) fn of(number: u32) -> Option<Process> {
        Some(Process { number, began: start_time(number)?, boot: boot() })
    }

    /// Whether the process still exists. A container's init exists as long as the container: the kernel ends it after
    /// all other processes of the PID namespace.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.number) == Some(self.began) && boot() == self.boot
    }

    /// Waits until the process is gone, at most for `limit`; returns whether it is gone.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let since = Instant::now();
        while self.is_alive() {
            if since.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        true
    }
}

/// Returns the start time of a process; `None` if it does not exist or is a zombie, which the host's init may never
/// reap.
fn start_time(number: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{number}/stat")).ok()?;
    // The name, in parentheses, may contain any character.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    // Fields as numbered in proc(5): 3 is the state, 20 the number of threads, 22 the start time.
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
    // The main thread may be a zombie while another thread waits for the rest of the container.
    let dead = matches!(field(3)?, "Z" | "X") && field(20)?.parse::<u32>().ok()? <= 1;
    if dead { None } else { field(22)?.parse().ok() }
}

fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn another_process_with_the_same_pid_is_not_waited_for() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.is_alive() && !process.wait(Duration::from_millis(50)));
        let other = Process { began: process.began - 1, ..process.clone() };
        assert!(!other.is_alive());
        let earlier = Process { boot: "another".into(), ..process.clone() };
        assert!(!earlier.is_alive());
        let waiting = {
            let process = process.clone();
            std::thread::spawn(move || process.wait(Duration::from_secs(30)))
        };
        child.kill().unwrap();
        // A zombie counts as gone.
        assert!(waiting.join().unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive() && Process::of(process.number).is_none());
    }
}
