//! Diagnostics: log lines of svp and its stages (docs/decisions/070-diagnostics.md).
//!
//! The library writes to the `log` facade. Lines of other crates never appear: an HTTP client logs headers, which
//! contain credentials. Control characters are escaped, since log lines contain untrusted text.

use std::process;
use std::str::FromStr;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};
use serde_json::json;

/// The environment variable with the filter.
pub(crate) const VARIABLE: &str = "SVP_LOG";
/// Set in the stages and monitors that svp starts if their lines are to be JSON.
const JSON: &str = "SVP_LOG_JSON";

/// Selects log lines: a level, and levels of modules, such as `debug` or `svp::registry=trace,info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    level: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// Returns a filter that passes no lines.
    pub(crate) fn off() -> Self {
        Filter { level: LevelFilter::Off, modules: Vec::new() }
    }

    /// Reads the filter from [`VARIABLE`]; `None` if it is unset or empty.
    ///
    /// # Errors
    /// A description of the syntax error.
    pub(crate) fn from_env() -> Result<Option<Self>, String> {
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse().map(Some),
            _ => Ok(None),
        }
    }

    /// Raises every level to at least the one that `count` `-v` options select.
    pub(crate) fn raised(self, count: u8) -> Self {
        let minimum = match count {
            0 => LevelFilter::Off,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        let modules = self.modules.into_iter().map(|(name, level)| (name, level.max(minimum)));
        Filter { level: self.level.max(minimum), modules: modules.collect() }
    }

    /// Returns whether any line can pass.
    pub(crate) fn is_on(&self) -> bool {
        self.max_level() != LevelFilter::Off
    }

    fn max_level(&self) -> LevelFilter {
        self.modules.iter().map(|(_, level)| *level).fold(self.level, Ord::max)
    }

    /// Returns the level of the innermost listed module that contains `target`.
    fn level_of(&self, target: &str) -> LevelFilter {
        let within = |name: &str| {
            target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if !within("svp") {
            return LevelFilter::Off;
        }
        let found = self.modules.iter().filter(|(name, _)| within(name));
        found.max_by_key(|(name, _)| name.len()).map_or(self.level, |(_, level)| *level)
    }

    fn text(&self) -> String {
        let modules = self.modules.iter().map(|(name, level)| format!("{name}={level}"));
        let all: Vec<_> = std::iter::once(self.level.to_string()).chain(modules).collect();
        all.join(",").to_ascii_lowercase()
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = |word: &str| {
            word.trim().parse::<LevelFilter>().map_err(|_| format!("unknown level: {word:?}"))
        };
        let mut filter = Filter::off();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None => filter.level = level(part)?,
                Some((module, word)) => {
                    let module = module.trim();
                    if module != "svp" && !module.starts_with("svp::") {
                        return Err(format!("not a module of svp: {module:?}"));
                    }
                    filter.modules.push((module.to_owned(), level(word)?));
                }
            }
        }
        Ok(filter)
    }
}

struct Logger {
    filter: Filter,
    json: bool,
    write: fn(&str),
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts diagnostics in this process; `write` receives one line at a time, without its line end. Later
/// calls have no effect.
pub(crate) fn start(filter: Filter, json: bool, write: fn(&str)) {
    let max_level = filter.max_level();
    if max_level == LevelFilter::Off {
        return;
    }
    let logger = LOGGER.get_or_init(|| Logger { filter, json, write });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(max_level);
    }
}

/// Starts diagnostics in a stage or monitor as in the svp that started it, on standard error.
pub(crate) fn start_inherited() {
    if let Ok(Some(filter)) = Filter::from_env() {
        start(filter, std::env::var_os(JSON).is_some(), write_stderr);
    }
}

/// Returns the environment variables that pass these settings to a stage or monitor.
pub(crate) fn environment() -> Vec<(&'static str, String)> {
    let Some(logger) = LOGGER.get() else { return Vec::new() };
    let json = logger.json.then(|| (JSON, "1".to_owned()));
    std::iter::once((VARIABLE, logger.filter.text())).chain(json).collect()
}

/// Writes a line to standard error with one write(2), since several processes share it.
pub(crate) fn write_stderr(line: &str) {
    // Standard error may be closed; the command goes on.
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("{line}\n").as_bytes());
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.filter.level_of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            (self.write)(&line(record, self.json));
        }
    }

    fn flush(&self) {}
}

fn line(record: &Record<'_>, json: bool) -> String {
    let (target, pid) = (record.target(), process::id());
    let message = record.args().to_string();
    if json {
        let level = record.level().as_str().to_ascii_lowercase();
        return json!({"event": "log", "level": level, "target": target, "pid": pid, "message": message})
            .to_string();
    }
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let mut text = format!("{time} {:5} {target}[{pid}]: ", record.level());
    for c in message.chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let filter: Filter = "info, svp::registry=trace,svp::registry::tls=off".parse().unwrap();
        for (target, level) in [
            ("svp", LevelFilter::Info),
            ("svp::store", LevelFilter::Info),
            ("svp::registry", LevelFilter::Trace),
            ("svp::registry::http", LevelFilter::Trace),
            ("svp::registry::tls", LevelFilter::Off),
            ("svp::registryish", LevelFilter::Info),
            ("svpx", LevelFilter::Off),
            ("ureq::run", LevelFilter::Off),
            ("rustls", LevelFilter::Off),
        ] {
            assert_eq!(filter.level_of(target), level, "{target}");
        }
        assert_eq!(filter.text().parse(), Ok(filter.clone()));
        assert_eq!(filter.raised(1).level_of("svp::store"), LevelFilter::Debug);
        assert!(!Filter::off().raised(0).is_on());
        for bad in ["loud", "ureq=trace", "svp::registry=loud", "=debug"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let record = Record::builder()
            .args(format_args!("a\nb\x1b[31m"))
            .level(log::Level::Debug)
            .target("svp::x")
            .build();
        let text = line(&record, false);
        assert!(text.contains("DEBUG svp::x[") && text.ends_with("a\\nb\\u{1b}[31m"), "{text}");
        let object: serde_json::Value = serde_json::from_str(&line(&record, true)).unwrap();
        assert_eq!((&object["event"], &object["level"]), (&"log".into(), &"debug".into()));
        assert_eq!(object["message"], "a\nb\x1b[31m");
    }
}
