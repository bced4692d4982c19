//! `svp diff`.

mod json;

use std::process::ExitCode;

use serde::Serialize;

use super::args::{PullArgs, parsed};
use super::common::{Context, Format};
use super::table;
use crate::error::Result;
use crate::layer::compare::{Aspect, Difference, aspects};
use crate::layer::file_tree::{FileKind, Inode};
use crate::layer::path::quoted;
use crate::pipeline::compare::{LayerChoice, Stack, read};
use crate::source::{Source, pull};

/// Size of the output buffer, in bytes.
const PRINTED: usize = 64 << 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line a path: A added, C changed, D removed. A path with what a terminal would not show is in quotes and escaped.
What counts is the type, the content, the mode, the owner, a link's target, a device's number and the extended
attributes; the time alone with --times. Whether two names are of one file does not count.")]
pub(super) struct Args {
    /// An image: a name in the store, docker://REF, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF].
    /// Alone: show the changes of its topmost layer
    #[arg(value_name = "IMAGE", value_parser = parsed::<Source>)]
    image: Source,
    /// The image to compare with
    #[arg(value_name = "OTHER", value_parser = parsed::<Source>)]
    other: Option<Source>,
    /// Show the changes of one layer of IMAGE: its number (the lowest is 1), digest or digest prefix
    #[arg(long, value_name = "N|DIGEST", conflicts_with = "other", value_parser = parsed::<LayerChoice>)]
    layer: Option<LayerChoice>,
    /// Also compare modification times
    #[arg(long)]
    times: bool,
    /// Show changed attributes, sizes and totals
    #[arg(long, conflicts_with = "format")]
    stat: bool,
    /// Exit with 1 if there is a difference, as diff and git do
    #[arg(long)]
    exit_code: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    pull: PullArgs,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let options = args.pull.options(context);
    let whole = |source: &Source| {
        Stack::whole(&store, &pull(source, &store, &options, context.reporter())?)
    };
    let image = whole(&args.image)?;
    let (before, after) = match &args.other {
        Some(other) => (image, whole(other)?),
        None => image.split(args.layer.as_ref().unwrap_or(&LayerChoice::Top))?,
    };
    let compared = read(&before, &after, &store, context.reporter())?;
    let differences = compared.differences(args.times);
    let mut out = Printer { context, text: String::new() };
    match args.format {
        Format::Json => json::print(&mut out, [&before, &after], &differences)?,
        Format::Table => print_lines(&mut out, &differences, args.stat, args.times)?,
    }
    out.flush()?;
    let found = args.exit_code && !differences.is_empty();
    Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Prints a long text in pieces.
struct Printer<'a> {
    context: &'a Context,
    text: String,
}

impl Printer<'_> {
    fn line(&mut self, line: &str) -> Result<()> {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() < PRINTED { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        self.context.print(&std::mem::take(&mut self.text))
    }
}

/// The change of a path.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Added,
    Changed,
    Removed,
}

impl Change {
    fn of(difference: &Difference<'_>) -> Self {
        match (difference.before, difference.after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        }
    }

    /// The letter that podman and docker print.
    fn letter(self) -> char {
        match self {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Removed => 'D',
        }
    }
}

fn print_lines(
    out: &mut Printer<'_>,
    differences: &[Difference<'_>],
    stat: bool,
    times: bool,
) -> Result<()> {
    for difference in differences {
        let letter = Change::of(difference).letter();
        let path = quoted(&[b"/", &difference.path[..]].concat());
        if !stat {
            out.line(&format!("{letter} {path}"))?;
            continue;
        }
        let grown = signed(size(difference.after), size(difference.before));
        let mut aspects = changed(difference);
        aspects.retain(|aspect| times || *aspect != Aspect::Time);
        let words: Vec<&str> = aspects.into_iter().map(word).collect();
        let why = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
        out.line(&format!("{letter} {grown:>9}  {path}{why}"))?;
    }
    if !stat {
        return Ok(());
    }
    let Sums { added, changed, removed, bytes_before, bytes_after } = Sums::of(differences);
    let grown = signed(bytes_after, bytes_before);
    out.line(&format!("{added} added, {changed} changed, {removed} removed: {grown}"))
}

/// The growth from `before` to `after`, in bytes.
fn signed(after: u64, before: u64) -> String {
    match after.checked_sub(before) {
        Some(0) => "0 B".into(),
        Some(more) => format!("+{}", table::size(more)),
        None => format!("-{}", table::size(before - after)),
    }
}

/// Bytes of content; none for a path that does not exist or is not a regular file.
fn size(inode: Option<&Inode>) -> u64 {
    match inode.map(|inode| &inode.kind) {
        Some(FileKind::File { size, .. }) => *size,
        _ => 0,
    }
}

/// The changed attributes of a path; none if it was added or removed.
fn changed(difference: &Difference<'_>) -> Vec<Aspect> {
    match (difference.before, difference.after) {
        (Some(before), Some(after)) => aspects(before, after),
        _ => Vec::new(),
    }
}

fn word(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Type => "type",
        Aspect::Content => "content",
        Aspect::Target => "target",
        Aspect::Device => "device",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Xattrs => "xattrs",
        Aspect::Time => "time",
    }
}

/// Totals of the differences.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    added: u64,
    changed: u64,
    removed: u64,
    /// Counts only paths that differ.
    bytes_before: u64,
    bytes_after: u64,
}

impl Sums {
    fn of(differences: &[Difference<'_>]) -> Self {
        let mut sums = Sums::default();
        for difference in differences {
            match Change::of(difference) {
                Change::Added => sums.added += 1,
                Change::Changed => sums.changed += 1,
                Change::Removed => sums.removed += 1,
            }
            sums.bytes_before = sums.bytes_before.saturating_add(size(difference.before));
            sums.bytes_after = sums.bytes_after.saturating_add(size(difference.after));
        }
        sums
    }
}
