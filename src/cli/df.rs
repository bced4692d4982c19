//! `svp df`.

use serde::Serialize;

use super::common::{Context, Format};
use super::table::{self, Table};
use crate::error::Result;
use crate::progress::{Step, Warning, announce_if_slow};
use crate::upkeep::{ImageUse, Inventory, ItemKind, images, inventory};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also show the disk use of each image
    #[arg(short, long)]
    verbose: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// The disk use of one kind of item.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sum {
    count: u64,
    bytes: u64,
    /// Bytes that `svp prune` would free.
    reclaimable_bytes: u64,
}

const KINDS: [(ItemKind, &str); 10] = [
    (ItemKind::Blob, "blobs"),
    (ItemKind::Unpacked, "unpacked layers"),
    (ItemKind::Instance, "instances"),
    (ItemKind::Tag, "tags"),
    (ItemKind::Service, "services"),
    (ItemKind::Written, "written by services"),
    (ItemKind::Volume, "volumes"),
    (ItemKind::Log, "logs"),
    (ItemKind::Staging, "staging"),
    (ItemKind::Note, "notes"),
];

#[derive(Serialize)]
struct DiskUsage {
    kinds: Vec<Kind>,
    total: Sum,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<Vec<ImageUse>>,
}

#[derive(Serialize)]
struct Kind {
    name: &'static str,
    #[serde(flatten)]
    sum: Sum,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let store = context.store()?;
    let reporter = context.reporter();
    let inventory = announce_if_slow(reporter, Step::MeasureStore, || inventory(&store))?;
    for (holder, error) in &inventory.damaged {
        let (holder, reason) = (holder.to_string(), error.to_string());
        reporter.warning(Warning::Unreadable { holder, reason });
    }
    let images = match args.verbose {
        true => Some(announce_if_slow(reporter, Step::MeasureStore, || images(&store))?),
        false => None,
    };
    let kinds =
        KINDS.map(|(kind, name)| Kind { name, sum: sum(&inventory, &|it| it == kind) }).into();
    let usage = DiskUsage { kinds, total: sum(&inventory, &|_| true), images };
    match args.format {
        Format::Json => context.print(&table::json(&usage)),
        Format::Table => context.print(&text(usage)),
    }
}

fn sum(inventory: &Inventory, wanted: &dyn Fn(ItemKind) -> bool) -> Sum {
    let mut sum = Sum::default();
    for item in inventory.items.iter().filter(|item| wanted(item.kind)) {
        sum.count += 1;
        sum.bytes += item.bytes;
        sum.reclaimable_bytes += if item.needed { 0 } else { item.bytes };
    }
    sum
}

fn text(usage: DiskUsage) -> String {
    let mut table = Table::new(["TYPE", "COUNT", "SIZE", "RECLAIMABLE"]);
    let total = Kind { name: "total", sum: usage.total };
    for Kind { name, sum } in usage.kinds.into_iter().chain([total]) {
        let Sum { count, bytes, reclaimable_bytes } = sum;
        let cells = [count.to_string(), table::size(bytes), table::size(reclaimable_bytes)];
        let [count, bytes, reclaimable] = cells;
        table.row([name.to_owned(), count, bytes, reclaimable]);
    }
    let mut text = table.to_string();
    if let Some(images) = usage.images {
        let mut table = Table::new(["IMAGE", "SIZE", "SHARED", "UNIQUE", "TAGS"]);
        for image in images {
            table.row([
                image.digest.short(),
                table::size(image.bytes),
                table::size(image.bytes - image.unique),
                table::size(image.unique),
                image.tags.join(", "),
            ]);
        }
        text.push_str(&format!("\n{table}"));
    }
    text
}
