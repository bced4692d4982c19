//! The keys of `bin/query`, and the strict parsers of its answers.
//!
//! The parsers are pure: bytes in, values out, or an error that names the script, the key, the line and the
//! text. Each parser documents its key's grammar. The caller runs the script, in a sandbox.

mod health;
mod lines;
mod names;
mod ports;
mod runner;
mod stop;
mod values;

pub use health::{Health, HealthSettings, parse_health};
pub use lines::{MAX_ANSWER, MAX_LINE, MAX_LINES};
pub use names::{NameProblem, check_name, why_refused};
pub use ports::{Port, parse_ports, ports_from_env};
pub use runner::{Answers, Key, QueryRunner, RawAnswer, query_all, run_query, validate};
pub use stop::{Stop, StopSignal, parse_stop};
pub use values::{
    EnvVar, Os, parse_components, parse_env, parse_os, parse_secrets, parse_version, parse_volumes,
};

/// The script's name in errors.
pub const SCRIPT: &str = "bin/query";
