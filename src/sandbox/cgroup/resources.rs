//! Parses the resource limits of a service, which `cgroup` enforces.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The smallest memory limit with which a container starts, including svp's processes in it; bytes.
const LEAST_MEMORY: u64 = 16 << 20;
/// The smallest CPU share that the kernel accepts; thousandths of a processor.
const LEAST_CPU: u64 = 10;
/// An upper bound beyond the memory of any machine, small enough that arithmetic can't overflow.
const MOST: u64 = 1 << 50;

/// Resource limits of a container (runtime-spec, config-linux.md, `resources`). Each applies to the sum of all
/// its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resources {
    /// Memory; bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPU time per elapsed time; thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milli_cpus: Option<u64>,
    /// The number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

impl Resources {
    /// Whether no limit is set.
    pub(crate) fn is_unbounded(&self) -> bool {
        *self == Resources::default()
    }
}

/// An amount of memory; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory(pub u64);

/// A number of processors; thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MilliCpus(pub u64);

/// A number of processes and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pids(pub u64);

/// Parses an amount of memory in bytes, or with the suffix `k`, `m`, `g` or `t` in KiB, MiB, GiB or TiB, as for
/// podman's `--memory`. `b` or `iB` may follow.
impl FromStr for Memory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let amount = memory_amount(text)?;
        if amount < LEAST_MEMORY {
            return Err(Error::usage(format!("too little memory for a container: {text:?}"))
                .hint(format!("give at least {}m", LEAST_MEMORY >> 20)));
        }
        Ok(Memory(amount))
    }
}

/// Parses an amount of memory, as for [`Memory`], of any size.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage).
pub(crate) fn memory_amount(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, shift) = match number.char_indices().last() {
        Some((at, 'k')) => (&number[..at], 10),
        Some((at, 'm')) => (&number[..at], 20),
        Some((at, 'g')) => (&number[..at], 30),
        Some((at, 't')) => (&number[..at], 40),
        _ => (number, 0),
    };
    decimal(number, 1 << shift).filter(|bytes| *bytes <= MOST).ok_or_else(|| {
        Error::usage(format!("invalid amount of memory: {text:?}"))
            .hint("give bytes, or an amount such as 512k, 256m or 1.5g")
    })
}

/// Parses a number of processors, such as `2` or `0.5`.
impl FromStr for MilliCpus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let milli = decimal(text, 1000).filter(|milli| (LEAST_CPU..=1_000_000_000).contains(milli));
        milli.map(MilliCpus).ok_or_else(|| {
            Error::usage(format!("invalid number of processors: {text:?}"))
                .hint("give a number such as 2, 1.5 or 0.25, at least 0.01")
        })
    }
}

impl FromStr for Pids {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // PID_MAX_LIMIT, the kernel's upper bound.
        let pids = text.parse().ok().filter(|pids| (1..=4_194_304).contains(pids));
        pids.map(Pids).ok_or_else(|| {
            Error::usage(format!("invalid number of processes: {text:?}"))
                .hint("give a number from 1 to 4194304")
        })
    }
}

/// Returns `text` times `unit`, rounded down. Accepts digits with at most one decimal point between them.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 16 || fraction.len() > 9 || text.ends_with('.') {
        return None;
    }
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let number: u128 = format!("{whole}{fraction}").parse().ok()?;
    u64::try_from(number * u128::from(unit) / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory() {
        let good = [
            ("16777216", 16 << 20),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("32768k", 32 << 20),
            ("1t", 1 << 40),
            ("20000000b", 20_000_000),
        ];
        for (text, bytes) in good {
            assert_eq!(text.parse::<Memory>().unwrap(), Memory(bytes), "{text}");
        }
        for text in
            ["", "m", "-1m", "64mm", "64 m", "1e9", "1.m", ".5g", "0", "8m", "99999999t", "64x"]
        {
            assert!(text.parse::<Memory>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn processors_and_processes() {
        for (text, milli) in [("2", 2000), ("0.5", 500), ("1.25", 1250), ("0.01", 10)] {
            assert_eq!(text.parse::<MilliCpus>().unwrap(), MilliCpus(milli), "{text}");
        }
        for text in ["", "0", "0.001", "-1", "1,5", "two", "1.", "inf", "NaN", "50%"] {
            assert!(text.parse::<MilliCpus>().is_err(), "{text:?}");
        }
        assert_eq!("100".parse::<Pids>().unwrap(), Pids(100));
        for text in ["", "0", "-1", "1.5", "99999999999999999999"] {
            assert!(text.parse::<Pids>().is_err(), "{text:?}");
        }
    }
}
