//! `svp lint`: reports every fault of a pack at once.

use std::path::PathBuf;

use super::common::{Context, Format};
use super::escape::single_line;
use super::table::json;
use crate::error::{Error, Result};
use crate::pack::{Pack, RawAnswer};
use crate::pack::{Severity, lint};
use crate::pipeline::query::HostPack;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of the pack
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let mut host: Option<HostPack> = None;
    let mut failure = None;
    let problems = lint(&args.pack, &mut |key| -> Result<RawAnswer> {
        let pack = match &host {
            Some(pack) => pack,
            None => host.insert(HostPack::new(&Pack::open(&args.pack)?)?),
        };
        pack.query(key, context.reporter()).inspect_err(|error| {
            // This is a failure of the host, not of the pack.
            if error.kind() != crate::error::Kind::BadInput {
                failure.get_or_insert_with(|| (error.kind(), error.to_string()));
            }
        })
    });
    if let Some((kind, text)) = failure {
        return Err(Error::new(kind, text).hint("see `svp check`"));
    }
    let text = match args.format {
        Format::Json => json(&problems),
        Format::Table => problems
            .iter()
            .map(|problem| {
                let hint =
                    problem.hint.as_deref().map(|hint| format!("\n  hint: {}", single_line(hint)));
                format!("{}{}\n", single_line(&problem.to_string()), hint.unwrap_or_default())
            })
            .collect(),
    };
    context.print(&text)?;
    match problems.iter().filter(|problem| problem.severity == Severity::Error).count() {
        0 => Ok(()),
        1 => Err(Error::bad_input(format!("{} has an error", args.pack.display()))),
        n => Err(Error::bad_input(format!("{} has {n} errors", args.pack.display()))),
    }
}
