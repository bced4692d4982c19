//! Shared by all commands: global options, the store, printing data.

use std::io::Write;
use std::sync::Arc;

use clap::ValueEnum;

use super::progress::{self, Style};
use super::verbosity::Verbosity;
use crate::error::{Error, Kind, Result};
use crate::oci::config::timestamp;
use crate::progress::{Reporter, Step, announce_if_slow};
use crate::store::Store;

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(super) struct GlobalArgs {
    /// Progress output, on standard error
    #[arg(long, global = true, value_enum, default_value = "auto")]
    progress: Style,
}

impl GlobalArgs {
    pub(super) fn style(&self) -> Style {
        self.progress
    }
}

/// Format of printed data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// The context of a command: store, reporter, output.
pub(super) struct Context {
    reporter: Arc<progress::Terminal>,
}

impl Context {
    /// Creates the context; `diagnosed` means that diagnostics go to standard error, too.
    pub(super) fn new(style: Style, verbosity: Verbosity, diagnosed: bool) -> Self {
        // Progress bars would overwrite the log lines of stages.
        let style = if diagnosed && style == Style::Auto { Style::Plain } else { style };
        Context { reporter: Arc::new(progress::Terminal::new(style, verbosity.quiet)) }
    }

    pub(super) fn reporter(&self) -> &dyn Reporter {
        &*self.reporter
    }

    /// Returns the reporter for an owner that may outlive the call.
    pub(super) fn shared_reporter(&self) -> Arc<dyn Reporter> {
        self.reporter.clone()
    }

    /// Opens the store, creating it if it does not exist.
    pub(super) fn store(&self) -> Result<Store> {
        let root = Store::default_root()?;
        announce_if_slow(self.reporter(), Step::WaitForStore, || Store::open(&root))
    }

    /// Copies a script's standard error: byte for byte, but escaped for a terminal.
    pub(super) fn show_script_errors(&self, bytes: &[u8]) {
        self.reporter.copy_output(bytes);
    }

    /// Clears the progress bars.
    pub(super) fn finish(&self) {
        self.reporter.finish();
    }

    /// Prints data on standard output.
    pub(super) fn print(&self, text: &str) -> Result<()> {
        self.print_bytes(text.as_bytes())
    }

    /// Prints data on standard output, byte for byte.
    pub(super) fn print_bytes(&self, bytes: &[u8]) -> Result<()> {
        self.finish();
        print_bytes(bytes)
    }
}

/// Writes all `bytes` to standard output.
fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Exit as if by SIGPIPE: the reader closed the pipe and wants no message.
            std::process::exit(141);
        }
        Error::new(Kind::Storage, "can't write to standard output").source(error)
    })
}

/// Returns SOURCE_DATE_EPOCH, in seconds since 1970, if it is set.
pub(super) fn source_date_epoch() -> Result<Option<i64>> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    let parsed = value.to_str().and_then(|text| text.parse::<i64>().ok()).filter(|n| *n >= 0);
    // Refuse a time that an image's config can't represent before the build, not after.
    let parsed = parsed.filter(|seconds| timestamp(*seconds).is_ok());
    parsed.map(Some).ok_or_else(|| {
        Error::usage(format!("SOURCE_DATE_EPOCH={} is not a time", value.to_string_lossy()))
            .hint("set it to a number of seconds since 1970, before the year 10000")
    })
}
