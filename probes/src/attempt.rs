//! A probe, and how it is run: in a child process, for at most ten seconds.

use std::fmt;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The attempt succeeded.
    Open,
    /// It was refused.
    Closed,
    /// There is nothing to attack here.
    None,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Open => "open",
            Outcome::Closed => "closed",
            Outcome::None => "none",
        })
    }
}

/// An outcome and its reason.
pub type Answer = (Outcome, String);

/// An attempt.
pub struct Probe {
    pub group: &'static str,
    pub name: String,
    pub attempt: Box<dyn Fn() -> Answer>,
}

impl Probe {
    pub fn new(
        group: &'static str,
        name: impl Into<String>,
        attempt: impl Fn() -> Answer + 'static,
    ) -> Probe {
        Probe { group, name: name.into(), attempt: Box::new(attempt) }
    }

    /// Runs the probe in a child process, in a session of its own.
    pub fn run_apart(&self) -> Answer {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors.
        if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
            return (Outcome::Closed, format!("pipe: {}", errno()));
        }
        // SAFETY: this program has a single thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            self.in_child(ends[1]);
        }
        // SAFETY: nothing else owns the two.
        let mut reader = unsafe {
            libc::close(ends[1]);
            std::fs::File::from(OwnedFd::from_raw_fd(ends[0]))
        };
        if child < 0 {
            return (Outcome::Closed, format!("fork: {}", errno()));
        }
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        let mut status = 0;
        // SAFETY: `child` is a child of this process.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        match (libc::WIFSIGNALED(status), text.split_once('\t')) {
            (false, Some(("open", detail))) => (Outcome::Open, detail.to_owned()),
            (false, Some(("none", detail))) => (Outcome::None, detail.to_owned()),
            (false, Some((_, detail))) => (Outcome::Closed, detail.to_owned()),
            _ => (Outcome::Closed, format!("killed by signal {}", libc::WTERMSIG(status))),
        }
    }

    fn in_child(&self, pipe: i32) -> ! {
        // SAFETY: plain system calls of a child with a single thread.
        unsafe {
            libc::setsid();
            libc::alarm(10);
        }
        let (outcome, detail) = (self.attempt)();
        let line = format!("{outcome}\t{detail}");
        // SAFETY: the line lives until the call returns.
        unsafe {
            libc::write(pipe, line.as_ptr().cast(), line.len());
            libc::_exit(0)
        }
    }
}

/// The last error of the C library.
pub fn errno() -> std::io::Error {
    std::io::Error::last_os_error()
}

/// Judges the result of a system call: every error but those of a refusal means that the kernel looked at the arguments.
pub fn judge(result: i64) -> Answer {
    if result >= 0 {
        return (Outcome::Open, format!("returned {result}"));
    }
    judge_error(&errno())
}

/// As [`judge`], for an error.
pub fn judge_error(error: &std::io::Error) -> Answer {
    let refused = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EROFS];
    match error.raw_os_error() {
        Some(code) if refused.contains(&code) => (Outcome::Closed, error.to_string()),
        _ => (Outcome::Open, error.to_string()),
    }
}

pub fn closed(why: impl fmt::Display) -> Answer {
    (Outcome::Closed, why.to_string())
}

pub fn open(why: impl fmt::Display) -> Answer {
    (Outcome::Open, why.to_string())
}

pub fn none(why: impl fmt::Display) -> Answer {
    (Outcome::None, why.to_string())
}
