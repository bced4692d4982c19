//! `svp history`.

use super::args::parsed;
use super::common::{Context, Format};
use super::table::{self, Table};
use crate::error::Result;
use crate::oci::{Platform, Reference};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image in the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// Choose this platform from an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// Do not truncate long build steps
    #[arg(long)]
    no_trunc: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let history = context.store()?.history(&args.image, &platform)?;
    if args.format == Format::Json {
        return context.print(&table::json(&history));
    }
    let cut = |text: String| if args.no_trunc { text } else { shortened(text) };
    let mut table = Table::new(["#", "LAYER", "CREATED", "SIZE", "CREATED BY", "COMMENT"]);
    for entry in history {
        table.row([
            entry.number.map_or_else(|| "-".into(), |number| number.to_string()),
            entry.layer.map_or_else(|| "-".into(), |layer| layer.short()),
            table::time(entry.created.as_deref()),
            table::size(entry.size),
            cut(entry.created_by),
            cut(entry.comment.unwrap_or_default()),
        ]);
    }
    context.print(&table.to_string())
}

/// Maximum width of a column, in characters: a RUN line of a Dockerfile may be very long.
const WIDTH: usize = 60;

fn shortened(text: String) -> String {
    match text.char_indices().nth(WIDTH) {
        None => text,
        Some(_) => text.chars().take(WIDTH - 1).chain(['…']).collect(),
    }
}
