//! The bounds of a script of the pack.

use std::str::FromStr;

use super::duration::TimeLimit;
use super::log_size::LogSize;
use super::parsed;
use crate::error::Error;
use crate::pipeline::ScriptBounds;
use crate::sandbox::{Memory, Pids, memory_amount};

/// The bounds of a script.
#[derive(Debug, clap::Args)]
pub(super) struct BoundArgs {
    /// Kill the script after this time, such as 90, 90s, 10m or 1h30m, and exit with 124. The pack's queries are not
    /// part of it: each has 20s
    #[arg(long, value_name = "TIME", value_parser = parsed::<TimeLimit>)]
    timeout: Option<TimeLimit>,
    /// Memory limit of the script, such as 512m or 2g; needs a cgroup
    #[arg(short, long, value_name = "SIZE", value_parser = parsed::<Memory>)]
    memory: Option<Memory>,
    /// Limit of the script's processes and threads [default: 4096]
    #[arg(long, visible_alias = "pids-limit", value_name = "N", value_parser = parsed::<Pids>)]
    pids: Option<Pids>,
    /// Size of the script's /dev/shm
    #[arg(long, value_name = "SIZE", default_value = "64m", value_parser = parsed::<ShmSize>)]
    shm_size: ShmSize,
    /// Size of the log, such as 16m or 1g, or a plain number of MB; a longer output is cut in the middle
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = parsed::<LogSize>)]
    log_size: LogSize,
}

impl BoundArgs {
    pub(super) fn bounds(&self) -> ScriptBounds {
        ScriptBounds {
            timeout: self.timeout.map(|limit| limit.0),
            memory: self.memory.map(|memory| memory.0),
            pids: self.pids.map(|pids| pids.0),
            shm_size: self.shm_size.0,
            log_size: self.log_size.0,
        }
    }
}

/// The size of a file system in memory; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShmSize(u64);

impl FromStr for ShmSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // tmpfs takes 0 for no limit, and has pages of at least 4 KiB.
        let size = memory_amount(text)?;
        if size < 4096 {
            return Err(Error::usage(format!("too small for /dev/shm: {text:?}"))
                .hint("give at least 4k, such as 64m or 1g"));
        }
        Ok(ShmSize(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_dev_shm() {
        for (text, bytes) in [("4k", 4096), ("64m", 64 << 20), ("1g", 1 << 30), ("8192", 8192)] {
            assert_eq!(text.parse::<ShmSize>().unwrap(), ShmSize(bytes), "{text}");
        }
        for text in ["", "0", "1k", "-1", "64q", "64m,mode=777", "1e3"] {
            assert!(text.parse::<ShmSize>().is_err(), "{text:?}");
        }
    }
}
