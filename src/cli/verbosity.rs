//! `-v` and `-q`: the amount of output on standard error.
//!
//! Both may precede the command, or follow it if the command has no such option of its own (`svp run -v` names a
//! volume, `svp ps -q` prints only names).

use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};

use super::progress::Style;
use crate::diagnostics::{self, Filter};
use crate::error::{Error, Result};

const VERBOSE: &str = "diagnostics-level";
const QUIET: &str = "errors-alone";

/// The verbosity of svp's output on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verbosity {
    /// The number of `-v` options.
    verbose: u8,
    /// Whether only errors are printed.
    pub(super) quiet: bool,
}

impl Verbosity {
    /// Starts diagnostics if `-v` or `SVP_LOG` requests them; returns whether it did.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if `SVP_LOG` is invalid.
    pub(super) fn start(self, style: Style) -> Result<bool> {
        let filter = Filter::from_env().map_err(|why| {
            let text = format!("invalid {}: {why}", diagnostics::VARIABLE);
            Error::usage(text).hint("write a level (error, warn, info, debug, trace), or MODULE=LEVEL, as in svp::registry=trace")
        })?;
        let filter = filter.unwrap_or_else(Filter::off).raised(self.verbose);
        let wanted = filter.is_on();
        diagnostics::start(filter, style == Style::Json, diagnostics::write_stderr);
        Ok(wanted)
    }

    fn of(matches: &ArgMatches) -> Self {
        let below = matches.subcommand().map(|(_, matches)| Verbosity::of(matches));
        let Verbosity { verbose, quiet } = below.unwrap_or_default();
        let here = matches.try_get_one::<u8>(VERBOSE).ok().flatten().copied().unwrap_or(0);
        let quiet_here = matches.try_get_one::<bool>(QUIET).is_ok_and(|quiet| quiet == Some(&true));
        Verbosity { verbose: verbose.saturating_add(here), quiet: quiet || quiet_here }
    }
}

/// Returns the definition of the command line, including `-v` and `-q`.
pub(super) fn command<C: CommandFactory>() -> clap::Command {
    let command = C::command();
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command =
        names.into_iter().fold(command, |command, name| command.mut_subcommand(name, add_options));
    add_options(command)
}

/// Adds `-v` and `-q` to a command, under the names that it does not use itself.
fn add_options(command: clap::Command) -> clap::Command {
    let verbose = Arg::new(VERBOSE)
        .action(ArgAction::Count)
        .help("Show what svp does, step by step; twice for more");
    let quiet = Arg::new(QUIET)
        .action(ArgAction::SetTrue)
        .help("Print only errors on standard error: no progress, notes or warnings");
    let command = add(command, verbose, 'v', "verbose");
    add(command, quiet, 'q', "quiet")
}

fn add(command: clap::Command, mut arg: Arg, short: char, long: &'static str) -> clap::Command {
    let has_short = command.get_arguments().any(|arg| arg.get_short() == Some(short));
    let has_long = command.get_arguments().any(|arg| arg.get_long() == Some(long));
    if !has_short {
        arg = arg.short(short);
    }
    if !has_long {
        arg = arg.long(long);
    }
    if has_short && has_long { command } else { command.arg(arg) }
}

/// Parses the command line.
pub(super) fn parse<C: CommandFactory + FromArgMatches>() -> Result<(C, Verbosity), clap::Error> {
    parse_from(std::env::args_os())
}

fn parse_from<C: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<(C, Verbosity), clap::Error> {
    let mut command = command::<C>();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, Verbosity::of(&matches)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn verbosity(line: &str) -> Option<Verbosity> {
        let parsed = parse_from::<Cli>(line.split(' ').map(Into::into));
        parsed.ok().map(|(_, verbosity)| verbosity)
    }

    #[test]
    fn the_command_line_is_valid() {
        command::<Cli>().debug_assert();
    }

    #[test]
    fn before_the_command_or_after_it() {
        for (line, verbose, quiet) in [
            ("svp images", 0, false),
            ("svp -vv images", 2, false),
            ("svp images -v", 1, false),
            ("svp -v images --verbose", 2, false),
            ("svp -q images", 0, true),
            ("svp images --quiet -v", 1, true),
            // These commands have their own option of that name.
            ("svp run -v data:/data one", 0, false),
            ("svp -v run -v data:/data one", 1, false),
            ("svp run --verbose one", 1, false),
            ("svp df -v", 0, false),
            ("svp -v df --verbose", 1, false),
            ("svp ps -q", 0, false),
            ("svp -q ps", 0, true),
        ] {
            assert_eq!(verbosity(line), Some(Verbosity { verbose, quiet }), "{line}");
        }
    }
}
