//! What a pack says of itself: the keys of `bin/query`, and the strict parsers of its answers.
//!
//! The parsers are pure: bytes in, values or an error out that names the script, the key, the line and
//! the text. The grammar of each key is on its parser. The script itself is run by the caller, sandboxed.

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

/// The script that answers, as errors name it.
pub const SCRIPT: &str = "bin/query";
