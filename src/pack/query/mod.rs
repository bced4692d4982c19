//! The keys of `bin/query`, and the strict parsers of its answers.
//!
//! The parsers are pure: bytes in, values out, or an error that names the script, the key, the line and the
//! text. Each parser documents its key's grammar. The caller runs the script, in a sandbox.

mod ask;
mod lines;
mod names;
mod ports;
mod values;

pub use ask::{Answers, Asker, Key, RawAnswer, ask, ask_all, validate};
pub use lines::{MAX_ANSWER, MAX_LINE, MAX_LINES};
pub use names::{NameProblem, check_name, why_refused};
pub use ports::{Port, Protocol, parse_ports, ports_from_env};
pub use values::{
    EnvVar, Os, parse_components, parse_env, parse_health, parse_os, parse_secrets, parse_version,
    parse_volumes,
};

/// The script's name in errors.
pub const SCRIPT: &str = "bin/query";
