//! `svp images`.

use super::common::{Context, Format};
use super::table::{self, Table};
use crate::error::Result;
use crate::oci::Platform;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let list = context.store()?.list()?;
    if args.format == Format::Json {
        return context.print(&table::json(&list));
    }
    let mut table = Table::new(["REPOSITORY", "TAG", "DIGEST", "PLATFORM", "CREATED", "SIZE"]);
    for image in list {
        table.row([
            image.repository,
            image.tag,
            image.digest.short(),
            platforms(&image.platforms),
            table::time(image.created.as_deref()),
            image.size.map_or("damaged".into(), table::size),
        ]);
    }
    context.print(&table.to_string())
}

fn platforms(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    if names.is_empty() { "-".into() } else { names.join(",") }
}
