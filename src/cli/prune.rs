//! `svp prune`.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use super::common::{Context, Format};
use super::escape::single_line;
use super::table::{self, Table};
use crate::error::{IoContext, Result};
use crate::progress::{BackupNote, ImageNote, Step, Warning, announce_if_slow};
use crate::sandbox::Sandbox;
use crate::service::backup::cutover;
use crate::store::{Store, StoreLayout};
use crate::upkeep::{ItemKind, PruneVolumes, Pruning, inventory, mark_for_removal, prune};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only list what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove all unpacked layers too; they are unpacked again when needed
    #[arg(long)]
    unpacked: bool,
    /// Remove volumes that no service uses, with their data; asks on a terminal
    #[arg(long)]
    volumes: bool,
    /// Remove volumes without asking
    #[arg(short, long)]
    force: bool,
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
    let volumes = match volumes(args, &store, context)? {
        Some(volumes) => volumes,
        None => return context.print("nothing was removed\n"),
    };
    let wanted = Pruning { unpacked: args.unpacked, volumes };
    let mut items = if args.dry_run {
        let measured = || inventory(&store);
        let mut inventory = announce_if_slow(context.reporter(), Step::MeasureStore, measured)?;
        mark_for_removal(&store, &wanted, &mut inventory.items)?;
        for (holder, error) in &inventory.damaged {
            let (holder, reason) = (holder.to_string(), error.to_string());
            context.reporter().warning(Warning::PruneBlocked { holder, reason });
        }
        inventory.items
    } else {
        let wait = Duration::from_secs(args.wait);
        let pruned = || prune(&mut store, &wanted, wait);
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

/// Returns the volumes to remove: on a terminal, unused ones are listed, and removed only if the user agrees. `None` if
/// the user does not agree. Without a terminal nobody can be asked, and the option itself is the consent.
fn volumes(args: &Args, store: &Store, context: &Context) -> Result<Option<PruneVolumes>> {
    if !args.volumes {
        return Ok(Some(PruneVolumes::No));
    }
    let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if args.force || args.dry_run || !asks {
        return Ok(Some(PruneVolumes::All));
    }
    let mut items = inventory(store)?.items;
    let wanted = Pruning { volumes: PruneVolumes::All, ..Pruning::default() };
    mark_for_removal(store, &wanted, &mut items)?;
    items.retain(|item| item.kind == ItemKind::Volume && !item.needed);
    if items.is_empty() {
        return Ok(Some(PruneVolumes::No));
    }
    let mut question = "These volumes are used by no service:\n".to_owned();
    for item in &items {
        let name = item.path.file_name().unwrap_or_default().to_string_lossy();
        question += &format!("  {} ({})\n", single_line(&name), table::size(item.bytes));
    }
    question += "Remove them with their data? [y/N] ";
    let agreed = ask(&question, context)?;
    let paths = items.into_iter().map(|item| item.path).collect();
    Ok(agreed.then_some(PruneVolumes::Only(paths)))
}

/// Asks a question on the terminal; only `y` and `yes` agree.
fn ask(question: &str, context: &Context) -> Result<bool> {
    context.finish();
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{question}")
        .and_then(|()| terminal.flush())
        .io("write to", "the terminal")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).io("read from", "the terminal")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
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
