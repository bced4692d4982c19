//! The answer to `stop`, and the names of signals.

use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;

use super::lines::Source;
use super::values::sole;
use crate::error::{Error, Result};

/// The longest time between the stop signal and SIGKILL that a pack may demand: a day.
const MAX_SECONDS: u32 = 86_400;
/// The first and the last real-time signal, as glibc numbers them. musl reserves one more.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The signal that asks a service to stop: its number. The default is SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(pub i32);

impl Default for StopSignal {
    fn default() -> Self {
        StopSignal(libc::SIGTERM)
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (Signal::try_from(self.0), self.0 - RTMIN) {
            (Ok(signal), _) => f.write_str(signal.as_str()),
            (Err(_), 0) => f.write_str("SIGRTMIN"),
            (Err(_), more @ 1..) => write!(f, "SIGRTMIN+{more}"),
            (Err(_), _) => write!(f, "{}", self.0),
        }
    }
}

/// Parses a number, or a name with or without `SIG`, in any case: an image's `StopSignal`.
impl FromStr for StopSignal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.parse::<i32>().ok().filter(|n| (1..=RTMAX).contains(n));
        let number = number.or_else(|| signal_number(&text.to_ascii_uppercase()));
        number.map(StopSignal).ok_or_else(|| Error::bad_input(format!("unknown signal: {text:?}")))
    }
}

/// Returns the number of a signal, by its name in capitals with or without `SIG`.
fn signal_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        None => text.is_empty().then_some(0),
        Some(digits) => digits.parse::<i32>().ok().filter(|n| n.to_string() == digits),
    };
    let number = if let Some(more) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(more, '+')?)?
    } else if let Some(less) = name.strip_prefix("RTMAX") {
        RTMAX.checked_sub(offset(less, '-')?)?
    } else {
        return format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32);
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The answer to `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The signal that asks each component to end.
    pub signal: StopSignal,
    /// The seconds after which it is killed, if the pack names them.
    pub seconds: Option<u32>,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            Some(seconds) => write!(f, "{} {seconds}", self.signal),
            None => self.signal.fmt(f),
        }
    }
}

/// Parses `query stop`: one line, a signal's name in capitals with or without `SIG`, and optionally a space and a
/// number of seconds from 1 to 86400. `None` if the pack has no answer.
pub fn parse_stop(output: &[u8], script: &str) -> Result<Option<Stop>> {
    let Some(line) = sole(Source { script, key: "stop" }, output)? else { return Ok(None) };
    let bad = |why: &str| {
        line.bad(why).hint("print the name of a signal, and the seconds before SIGKILL: SIGINT 60")
    };
    let (name, seconds) = match line.text.split_once(' ') {
        Some((name, seconds)) => (name, Some(seconds)),
        None => (line.text, None),
    };
    let signal = signal_number(name).ok_or_else(|| bad("unknown signal"))?;
    if [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGCONT].contains(&signal)
    {
        return Err(bad("this signal suspends or continues a process, and ends none"));
    }
    let number = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        text.parse::<u32>().ok().filter(|n| plain && (1..=MAX_SECONDS).contains(n))
    };
    let seconds = match seconds {
        None => None,
        Some(text) => Some(
            number(text).ok_or_else(|| bad("the time must be a number of seconds, 1 to 86400"))?,
        ),
    };
    Ok(Some(Stop { signal: StopSignal(signal), seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_images() {
        for (text, number, name) in [
            ("9", 9, "SIGKILL"),
            ("SIGTERM", 15, "SIGTERM"),
            ("term", 15, "SIGTERM"),
            ("SIGQUIT", 3, "SIGQUIT"),
            ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
            ("rtmax-1", 63, "SIGRTMIN+29"),
            ("SIGRTMIN", 34, "SIGRTMIN"),
        ] {
            let signal = text.parse::<StopSignal>().unwrap();
            assert_eq!((signal.0, signal.to_string().as_str()), (number, name), "{text}");
            assert_eq!(name.parse::<StopSignal>().unwrap(), signal);
        }
        for text in
            ["", "0", "65", "SIGNOTHING", "SIG", "SIGRTMIN+31", "RTMIN+", "RTMIN+03", "RTMAX+1"]
        {
            assert!(text.parse::<StopSignal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn stop_is_a_signal_and_a_time() {
        let parse = |text: &str| parse_stop(text.as_bytes(), "bin/query");
        assert_eq!(parse("").unwrap(), None);
        for (text, shown) in [
            ("SIGINT 60\n", "SIGINT 60"),
            ("INT 60", "SIGINT 60"),
            ("QUIT\n", "SIGQUIT"),
            ("SIGRTMIN+3 86400", "SIGRTMIN+3 86400"),
            ("WINCH 1", "SIGWINCH 1"),
        ] {
            assert_eq!(parse(text).unwrap().unwrap().to_string(), shown);
        }
        for (text, says) in [
            ("sigint 60", "unknown signal"),
            ("2 60", "unknown signal"),
            (" SIGINT", "unknown signal"),
            ("SIGINT\t60", "unknown signal"),
            ("SIGFOO", "unknown signal"),
            ("SIGSTOP 5", "suspends"),
            ("SIGINT ", "number of seconds"),
            ("SIGINT  60", "number of seconds"),
            ("SIGINT 60 ", "number of seconds"),
            ("SIGINT 60s", "number of seconds"),
            ("SIGINT 0", "number of seconds"),
            ("SIGINT +6", "number of seconds"),
            ("SIGINT 060", "number of seconds"),
            ("SIGINT 86401", "number of seconds"),
            ("SIGINT 99999999999", "number of seconds"),
            ("SIGINT 60\nSIGTERM 5\n", "line 2"),
            ("SIGINT 60\r\n", "carriage return"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(says), "{text:?}: {error}");
        }
    }
}
