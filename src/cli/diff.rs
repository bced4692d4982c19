//! `svp diff`.

mod json;
mod summary;

use std::process::ExitCode;

use super::args::{PullArgs, parsed};
use super::common::{Context, Format};
use super::table;
use crate::error::Result;
use crate::layer::compare::{Aspect, Difference};
use crate::layer::path::quoted;
use crate::pipeline::compare::{LayerChoice, Stack, read};
use crate::source::{Source, pull};
use summary::{Change, Printer, Sums, changed, size};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
One path per line: A added, C changed, D removed. Paths that a terminal can't show are quoted and escaped.
The comparison covers type, content, mode, owner, link target, device number and extended attributes; with
--times also the modification time. It ignores hard links.")]
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

/// Formats the growth from `before` to `after` bytes, with its sign.
fn signed(after: u64, before: u64) -> String {
    match after.checked_sub(before) {
        Some(0) => "0 B".into(),
        Some(more) => format!("+{}", table::size(more)),
        None => format!("-{}", table::size(before - after)),
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
