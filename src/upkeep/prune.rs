//! Pruning: removes the items that no image and no service needs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::inventory::{Item, ItemKind, items};
use crate::error::{Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::sandbox::{CachedTree, Sandbox};
use crate::service::service_dir::ServiceDir;
use crate::service::volume::list::Users;
use crate::store::{Marked, Store};

/// Items that pruning removes in addition to unneeded ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pruning {
    /// All unpacked layers.
    pub unpacked: bool,
    /// Volumes that no service uses, with their data.
    pub volumes: PruneVolumes,
}

/// The unused volumes that pruning removes.
#[derive(Clone, Debug, Default)]
pub(crate) enum PruneVolumes {
    /// None.
    #[default]
    No,
    /// All.
    All,
    /// Those at these paths, relative to the store's directory, that are still unused.
    Only(Vec<PathBuf>),
}

/// Removes and returns all items that no image needs, and those that `wanted` selects. Waits up to `wait` until
/// no other process uses the store, since such a process may have written blobs that are not tagged yet.
///
/// # Errors
/// [`Kind::BadInput`] if an image is damaged, since the items that it needs are unknown; [`Kind::Storage`], also if
/// the store is still in use. An item that can't be removed is left to the next run.
pub(crate) fn prune(store: &mut Store, wanted: &Pruning, wait: Duration) -> Result<Vec<Item>> {
    let pruned = store.with_exclusive_lock(wait, |store| {
        let marked = store.mark()?.whole()?;
        let mut items = items(store, &marked)?;
        mark_for_removal(store, wanted, &mut items)?;
        items.retain(|item| !item.needed);
        remove(store, &marked, &items)?;
        Ok(items)
    })?;
    pruned.ok_or_else(|| {
        Error::new(Kind::Storage, "nothing was pruned: another svp uses the store")
            .hint("try again once it has ended, or wait longer with --wait SECONDS")
    })
}

/// Marks the items that `wanted` selects as no longer needed.
///
/// # Errors
/// [`Kind::Storage`] if a command or service runs on unpacked layers; [`Kind::BadInput`] if a service is damaged,
/// since its volumes are unknown.
pub(crate) fn mark_for_removal(store: &Store, wanted: &Pruning, items: &mut [Item]) -> Result<()> {
    if wanted.unpacked {
        mark_unpacked_layers(store, items)?;
    }
    match &wanted.volumes {
        PruneVolumes::No => Ok(()),
        PruneVolumes::All => mark_unused_volumes(store, items, &|_| true),
        PruneVolumes::Only(paths) => {
            mark_unused_volumes(store, items, &|item| paths.contains(&item.path))
        }
    }
}

fn mark_unused_volumes(
    store: &Store,
    items: &mut [Item],
    wanted: &dyn Fn(&Item) -> bool,
) -> Result<()> {
    let users = Users::read(store.root())?.whole()?;
    for item in items.iter_mut().filter(|item| item.kind == ItemKind::Volume) {
        let name = item.path.file_name().unwrap_or_default().to_string_lossy();
        item.needed = users.has(&name) || !wanted(item);
    }
    Ok(())
}

/// Marks all unpacked layers for removal: needed ones are unpacked again on their next use.
fn mark_unpacked_layers(store: &Store, items: &mut [Item]) -> Result<()> {
    let in_use =
        |item: &Item| item.tree.as_ref().is_some_and(CachedTree::is_build_rootfs) && item.needed;
    let mut busy = items.iter().any(in_use);
    for service in ServiceDir::all(store.root())? {
        busy |= service.is_running()?;
    }
    if busy {
        return Err(Error::new(Kind::Storage, "a service or command is using the unpacked layers")
            .hint("stop it, or omit --unpacked"));
    }
    for item in items.iter_mut().filter(|item| item.kind == ItemKind::Unpacked) {
        item.needed = false;
    }
    Ok(())
}

fn remove(store: &Store, marked: &Marked, items: &[Item]) -> Result<()> {
    // Blobs last, in one step: while they exist, everything else can be recreated.
    for item in items.iter().filter(|item| item.kind != ItemKind::Blob && item.tree.is_none()) {
        interrupt::check()?;
        let path = store.root().join(&item.path);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.io("remove", &path)?;
    }
    let trees: Vec<CachedTree> = items.iter().filter_map(|item| item.tree.clone()).collect();
    if !trees.is_empty() {
        Sandbox::create(&store.layout().trees())?.remove_cached(&trees)?;
    }
    store.collect(marked, None).map(drop)
}
