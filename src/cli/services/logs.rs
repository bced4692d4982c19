//! `svp logs`.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Timestamp, Zoned};

use super::super::args::parsed;
use super::super::common::{Context, Format};
use super::super::escape::{escape_json, for_terminal};
use super::super::run::prefixes;
use super::find::find;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::Stream;
use crate::service::log::{Follower, Line, LogFilter, merged};
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;

/// Polling interval of a followed log.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The name of the service
    name: String,
    /// The component [default: all]
    component: Option<String>,
    /// Follow the log while the service runs
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, visible_alias = "tail", value_name = "N")]
    lines: Option<usize>,
    /// Only lines after a time (2026-01-31T12:00:00Z, 2026-01-31), seconds since 1970, or a duration ago (10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = parsed::<Moment>)]
    since: Option<Moment>,
    /// Only lines before a time, in the same formats
    #[arg(long, value_name = "TIME", value_parser = parsed::<Moment>)]
    until: Option<Moment>,
    /// Print the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Print control characters unchanged on a terminal, too: a service can then change its title, content and input
    #[arg(long)]
    raw: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// A point in time on the command line, or a duration before now.
#[derive(Clone, Copy, Debug)]
struct Moment(Timestamp);

impl FromStr for Moment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |error: jiff::Error| Error::usage(error.to_string());
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Moment(time));
        }
        // A date, or a time without a zone, is local time.
        if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system()).map_err(invalid)?;
            return Ok(Moment(zoned.timestamp()));
        }
        if let Ok(seconds) = text.parse::<i64>() {
            return Timestamp::from_second(seconds).map(Moment).map_err(invalid);
        }
        if let Ok(span) = text.parse::<jiff::Span>() {
            let zoned = Zoned::now().checked_sub(span).map_err(invalid)?;
            return Ok(Moment(zoned.timestamp()));
        }
        Err(Error::usage(format!(
            "invalid time {text:?}: write a time such as 2026-01-31T12:00:00Z or a duration such as 10m"
        )))
    }
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let (_, service_dir) = find(&args.name)?;
    let all = service_dir.record()?.component_names();
    let names = match &args.component {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => {
            return Err(Error::usage(format!("{} has no component {name}", args.name))
                .hint(format!("its components are: {}", all.join(", "))));
        }
    };
    let mut printer =
        Printer { args, prefixes: prefixes(&names), names: &names, in_line: HashSet::new() };
    let wanted = LogFilter {
        last: args.lines,
        since: args.since.map(|it| it.0),
        until: args.until.map(|it| it.0),
    };
    let mut followers =
        merged(&service_dir.logs(), &names, &wanted, &mut |line| printer.print(&line))?;
    if args.follow {
        follow(&service_dir, &mut followers, &mut printer)?;
    }
    context.finish();
    Ok(ExitCode::SUCCESS)
}

fn follow(
    service_dir: &ServiceDir,
    followers: &mut [Follower],
    printer: &mut Printer<'_>,
) -> Result<()> {
    loop {
        // Query the status before reading, so that the last lines are read too.
        let over = !matches!(
            service_dir.status()?.state,
            State::Running | State::Starting | State::Stopping
        );
        let mut lines = Vec::new();
        for follower in followers.iter_mut() {
            while let Some(line) = follower.next_line()? {
                lines.push(line);
            }
        }
        lines.sort_by_key(|line| line.time);
        lines.iter().try_for_each(|line| printer.print(line))?;
        if over {
            return Ok(());
        }
        interrupt::check()?;
        std::thread::sleep(PAUSE);
    }
}

struct Printer<'a> {
    args: &'a Args,
    prefixes: Vec<String>,
    names: &'a [String],
    /// The components and streams whose current line is incomplete.
    in_line: HashSet<(usize, Stream)>,
}

impl Printer<'_> {
    fn print(&mut self, line: &Line) -> Result<()> {
        let mut out = Vec::new();
        let json = self.args.format == Format::Json;
        // As in podman: each line goes to the stream it came from.
        let to_stderr = line.stream == Stream::Stderr && !json;
        let escape = !self.args.raw
            && match to_stderr {
                true => std::io::stderr().is_terminal(),
                false => std::io::stdout().is_terminal(),
            };
        if json {
            let stream = if line.stream == Stream::Stdout { "stdout" } else { "stderr" };
            let text = String::from_utf8_lossy(&line.text);
            out = serde_json::json!({
                "time": line.time.to_string(), "component": self.names[line.component],
                "stream": stream, "text": text, "whole": line.whole,
            })
            .to_string()
            .into_bytes();
            if escape {
                out = escape_json(&String::from_utf8_lossy(&out)).into_bytes();
            }
            out.push(b'\n');
        } else {
            let of = (line.component, line.stream);
            if !self.in_line.remove(&of) {
                out.extend(self.prefixes[line.component].bytes());
                if self.args.timestamps {
                    out.extend(format!("{} ", line.time).bytes());
                }
            }
            if escape {
                out.extend(for_terminal(&line.text));
            } else {
                out.extend(&line.text);
            }
            if line.whole {
                out.push(b'\n');
            } else {
                self.in_line.insert(of);
            }
        }
        let written = match to_stderr {
            true => std::io::stderr().lock().write_all(&out),
            false => std::io::stdout().lock().write_all(&out),
        };
        written.map_err(|error| {
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                std::process::exit(141);
            }
            Error::new(Kind::Storage, "can't write to standard output").source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = |text: &str| text.parse::<Moment>().unwrap().0.as_second();
        assert_eq!(at("2026-01-31T12:00:00Z"), 1_769_860_800);
        assert_eq!(at("2026-01-31T14:00:00+02:00"), 1_769_860_800);
        assert_eq!(at("1769860800"), 1_769_860_800);
        // Any time zone is within a day of UTC.
        assert!(at("2026-01-31").abs_diff(1_769_860_800) <= 86_400);
        assert!(at("2026-01-31 12:00").abs_diff(1_769_860_800) <= 86_400);
        for (span, seconds) in [("10m", 600), ("2h", 7200), ("1h30m", 5400), ("3s", 3)] {
            assert!(Timestamp::now().as_second().abs_diff(at(span) + seconds) <= 2, "{span}");
        }
        for text in ["", "bogus", "2026-13-01", "10x"] {
            assert!(text.parse::<Moment>().is_err(), "{text:?}");
        }
    }
}
