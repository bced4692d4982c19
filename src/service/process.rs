//! Whether a process that was written down is still there, or another has its number.

use std::fs;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How often to look.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A process, for good: a number alone is another's in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    /// Its number on the host.
    pub number: u32,
    /// When it began, in the kernel's ticks since the host's start.
    began: u64,
    /// Which start of the host that was.
    boot: String,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(number: u32) -> Option<Process> {
        Some(Process { number, began: start_time(number)?, boot: boot() })
    }

    /// Whether anything of it is left. For a container's process 1 that means: of the container. The kernel
    /// ends it, after all other processes in there, and notifies its parent.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.number) == Some(self.began) && boot() == self.boot
    }

    /// Waits until nothing of it is left, so long at most; whether that is so.
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

/// When the process began; `None` if there is none, or one that is dead and only waits to be buried, which
/// the host's own process 1 may never do.
fn start_time(number: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{number}/stat")).ok()?;
    // The name, which is in parentheses, may have anything in it.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    // From field 3 on, as proc(5) numbers them: 3 is the state, 20 the threads, 22 the beginning.
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
    // The first thread may be dead while another waits for the rest of the container.
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
    fn a_process_is_waited_for_and_another_of_its_number_is_not() {
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
        // It is not buried yet.
        assert!(waiting.join().unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive() && Process::of(process.number).is_none());
    }
}
