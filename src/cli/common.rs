//! Shared by all commands: global options, the store, printing data.

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use super::progress::{self, Style};
use crate::error::{Error, Kind, Result};
use crate::oci::Reference;
use crate::oci::config::timestamp;
use crate::progress::Reporter;
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
    reporter: progress::Terminal,
}

impl Context {
    pub(super) fn new(args: &GlobalArgs) -> Self {
        Context { reporter: progress::Terminal::new(args.progress) }
    }

    pub(super) fn reporter(&self) -> &dyn Reporter {
        &self.reporter
    }

    /// Opens the store, creating it if it does not exist.
    pub(super) fn store(&self) -> Result<Store> {
        Store::open(&Store::default_root()?)
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
            // As a program that SIGPIPE ends: whoever closed the pipe wants no message.
            std::process::exit(141);
        }
        Error::new(Kind::Storage, "can't write to standard output").source(error)
    })
}

/// SOURCE_DATE_EPOCH, in seconds since 1970, if it is set.
pub(super) fn source_date_epoch() -> Result<Option<i64>> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    let parsed = value.to_str().and_then(|text| text.parse::<i64>().ok()).filter(|n| *n >= 0);
    // One that an image's config can't say is found before a build, not after.
    let parsed = parsed.filter(|seconds| timestamp(*seconds).is_ok());
    parsed.map(Some).ok_or_else(|| {
        Error::usage(format!("SOURCE_DATE_EPOCH={} is not a time", value.to_string_lossy()))
            .hint("set it to a number of seconds since 1970, before the year 10000")
    })
}

/// Parses `NAME=VALUE`, or `NAME`, whose value comes from svp's own environment.
pub(super) fn env_argument(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => (text, value),
            Err(_) => return Err(format!("{text} is not set; write {text}=VALUE")),
        },
    };
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if valid { Ok((name.to_owned(), value)) } else { Err(format!("{name:?} is not a name")) }
}

/// Parses an argument; an error keeps its hint, which clap alone would drop.
pub(super) fn parsed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(with_hint)
}

/// As [`parsed`], by a parser of its own.
pub(super) fn parsed_by<T>(
    parse: impl Fn(&str) -> Result<T> + Clone,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| parse(text).map_err(with_hint)
}

fn with_hint(error: Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

/// Destinations of an image besides the store.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// Add the image to the OCI image layout DIR, created if missing; other tags stay
    #[arg(long, value_name = "DIR")]
    pub(super) oci_dir: Option<PathBuf>,
    /// Write the image to an archive: oci-archive:FILE or docker-archive:FILE; the file - is standard output
    #[arg(short, long = "output", value_name = "FORMAT:FILE")]
    pub(super) output: Vec<String>,
    /// Push the new image to the registry named in its tag
    #[arg(long)]
    pub(super) push: bool,
    /// Allow pushing an instance's image, which contains secrets
    #[arg(long, requires = "push")]
    pub(super) allow_secrets: bool,
    /// Write the result to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
}

impl OutputArgs {
    /// Refuses an impossible or forbidden `--push` before any work.
    pub(super) fn check_push(&self, tag: &Reference, instance: bool) -> Result<()> {
        if !self.push {
            return Ok(());
        }
        if tag.registry().is_none() {
            return Err(Error::usage(format!("{tag} names no registry to push to"))
                .hint("write the tag as REGISTRY/REPOSITORY:TAG"));
        }
        if instance && !self.allow_secrets {
            return Err(Error::usage(format!("{tag} is an instance: its image contains secrets"))
                .hint("everyone who can pull it can read them; add --allow-secrets to push it all the same"));
        }
        Ok(())
    }
}
