//! `svp prune`.

use std::time::Duration;

use super::common::{Context, Format};
use super::table::{self, Table};
use crate::error::Result;
use crate::progress::{BackupNote, ImageNote, Step, Warning, announce_if_slow};
use crate::sandbox::Sandbox;
use crate::service::backup::cutover;
use crate::store::{Store, StoreLayout};
use crate::upkeep::{ItemKind, Pruning, inventory, mark_for_removal, prune};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only list what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove all unpacked layers too; they are unpacked again when needed
    #[arg(long)]
    unpacked: bool,
    /// Remove volumes that no service uses, with their data
    #[arg(long)]
    volumes: bool,
    /// Seconds to wait for other svp processes that use the store
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    collect_copies(args.dry_run, context)?;
    let mut store = context.store()?;
    let wanted = Pruning { unpacked: args.unpacked, volumes: args.volumes };
    let mut items = if args.dry_run {
        let measured = || inventory(&store);
        let mut inventory = announce_if_slow(context.reporter(), Step::MeasureStore, measured)?;
        mark_for_removal(&store, wanted, &mut inventory.items)?;
        for (holder, error) in &inventory.damaged {
            let (holder, reason) = (holder.to_string(), error.to_string());
            context.reporter().warning(Warning::PruneBlocked { holder, reason });
        }
        inventory.items
    } else {
        let wait = Duration::from_secs(args.wait);
        let pruned = || prune(&mut store, wanted, wait);
        announce_if_slow(context.reporter(), Step::PruneStore, pruned)?
    };
    items.retain(|item| !item.needed);
    if args.format == Format::Json {
        return context.print(&table::json(&items));
    }
    let mut table = Table::new(["TYPE", "SIZE", "PATH"]);
    for item in &items {
        let what = match item.kind {
            ItemKind::Blob => "blob",
            ItemKind::Unpacked => "unpacked layer",
            ItemKind::Instance => "instance",
            ItemKind::Tag => "tag",
            ItemKind::Service => "service",
            ItemKind::Written => "written by a service",
            ItemKind::Volume => "volume",
            ItemKind::Log => "log",
            ItemKind::Staging => "staging",
            ItemKind::Note => "note",
        };
        table.row([what.into(), table::size(item.bytes), item.path.display().to_string()]);
    }
    let bytes = items.iter().map(|item| item.bytes).sum();
    context.print(&table.to_string())?;
    context.reporter().note(ImageNote::Freed { bytes, dry_run: args.dry_run }.into());
    Ok(())
}

/// Removes the service copies that killed restores left; with `dry_run`, only reports them.
fn collect_copies(dry_run: bool, context: &Context) -> Result<()> {
    let root = Store::default_root()?;
    for service_dir in cutover::abandoned_by_restore(&root)? {
        let service = service_dir.name().to_owned();
        if !dry_run {
            cutover::collect(
                &root,
                &service_dir,
                &Sandbox::create(&StoreLayout::new(&root).trees())?,
            )?;
        }
        context.reporter().note(BackupNote::CopyRemoved { service, dry_run }.into());
    }
    Ok(())
}
