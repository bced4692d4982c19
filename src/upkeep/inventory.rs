//! All that the store holds, what of it is needed, and pruning the rest.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::oci::{Descriptor, Digest};
use crate::sandbox::{CachedTree, Sandbox};
use crate::service::backup::cutover;
use crate::service::service_dir::ServiceDir;
use crate::service::unreferenced_states;
use crate::store::{Marked, RootOwner, Staging, Store, parallel};

/// What sort of thing something in the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// A blob: a manifest, a config or a layer as it is stored.
    Blob,
    /// A layer unpacked for containers.
    Unpacked,
    /// An instance's secrets and environment.
    Instance,
    /// What stands for an image.
    Tag,
    /// A service's record and logs.
    Service,
    /// What a service has written outside of volumes.
    Written,
    /// A volume.
    Volume,
    /// A script's output.
    Log,
    /// What isn't finished.
    Staging,
    /// What was worked out of a blob once, or where it was.
    Note,
}

/// One thing that the store holds.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// Its sort.
    pub kind: ItemKind,
    /// Where it is, from the store's directory.
    pub path: PathBuf,
    /// The space that it takes on the disk, in bytes.
    pub bytes: u64,
    /// Whether an image or a running command needs it.
    pub needed: bool,
    /// The tree, of what is in the tree area.
    #[serde(skip)]
    tree: Option<CachedTree>,
}

/// The space of one image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageUse {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// The space of its blobs, in bytes.
    pub bytes: u64,
    /// The space of those that no other image has.
    pub unique: u64,
}

/// What the store holds.
#[derive(Debug)]
pub struct Inventory {
    /// Everything, each once.
    pub items: Vec<Item>,
    /// The images that can't be read, each with what holds it and why: what only they need counts as not needed.
    pub damaged: Vec<(RootOwner, Error)>,
}

/// Lists what the store holds.
///
/// # Errors
/// [`Kind::BadInput`] if a tag's file is damaged, [`Kind::Storage`], [`Kind::Sandbox`] if there are unpacked
/// layers and no sandbox can be made.
pub fn inventory(store: &Store) -> Result<Inventory> {
    let reach = store.mark()?;
    let items = items(store, &reach)?;
    Ok(Inventory { items, damaged: reach.damaged })
}

fn items(store: &Store, reach: &Marked) -> Result<Vec<Item>> {
    let root = store.root();
    let mut items = Vec::new();
    for blob in store.blobs()? {
        let (digest, bytes) = blob?;
        let path = relative(root, &store.blob_path(&digest));
        let needed = reach.blobs.contains(&digest);
        items.push(Item { kind: ItemKind::Blob, path, bytes, needed, tree: None });
    }
    let unreferenced_states = unreferenced_states(store, reach)?;
    let mut files = |kind, dir: &str, needed: &dyn Fn(&Path) -> bool| -> Result<()> {
        let dir = root.join(dir);
        for entry in fs::read_dir(&dir).io("list", &dir)? {
            let entry = entry.io("list", &dir)?;
            let path = entry.path();
            // What is gone meanwhile takes no space.
            let Ok(bytes) = size(&path) else { continue };
            let needed = needed(&path);
            items.push(Item { kind, path: relative(root, &path), bytes, needed, tree: None });
        }
        Ok(())
    };
    files(ItemKind::Instance, "instances", &|path| {
        !unreferenced_states.iter().any(|gone| gone == path)
    })?;
    files(ItemKind::Tag, "tags", &|_| true)?;
    if root.join("services").is_dir() {
        files(ItemKind::Service, "services", &|path| !ServiceDir::is_abandoned(path))?;
    }
    files(ItemKind::Log, "logs", &|_| false)?;
    files(ItemKind::Staging, "tmp", &|path| !is_dead(path))?;
    for notes in ["diff-ids", "homes"] {
        files(ItemKind::Note, notes, &|path| is_noted(store, path))?;
    }
    items.extend(trees(store, reach)?);
    items.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    Ok(items)
}

/// What is in the tree areas: unpacked layers, and the scratch places of running commands.
fn trees(store: &Store, reach: &Marked) -> Result<Vec<Item>> {
    let trees = store.root().join("trees");
    let mut found = Sandbox::cached_trees(&trees)?;
    let (layers, kept) = (found.len(), Sandbox::persistent_trees(&trees)?);
    found.extend(kept);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let sizes = Sandbox::create(&trees)?.measure(&found)?;
    let needed: HashSet<String> = reach.chain_ids.iter().map(CachedTree::key_of).collect();
    let services = places_of_services(store.root())?;
    let is_written = |tree: &CachedTree| {
        let id = tree.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        services.as_ref().is_none_or(|ids| ids.contains(&id))
    };
    let item = |(n, (tree, bytes)): (usize, (CachedTree, u64))| {
        let (kind, needed) = match () {
            () if n >= layers && tree.is_volume() => (ItemKind::Volume, true),
            () if n >= layers => (ItemKind::Written, is_written(&tree)),
            () if tree.is_build_rootfs() => (ItemKind::Staging, !is_dead(&tree.path())),
            () => (ItemKind::Unpacked, tree.is_among(&needed)),
        };
        let path = relative(store.root(), &tree.path());
        Item { kind, path, bytes, needed, tree: Some(tree) }
    };
    Ok(found.into_iter().zip(sizes).enumerate().map(item).collect())
}

/// Whether the owner of a staging place is gone.
fn is_dead(path: &Path) -> bool {
    !path.is_dir() || matches!(Staging::lock_dead(path), Ok(Some(_)))
}

fn is_noted(store: &Store, note: &Path) -> bool {
    let name = note.file_name().unwrap_or_default().to_string_lossy();
    format!("sha256:{name}").parse().is_ok_and(|digest| store.has_blob(&digest))
}

/// The space that a file, or a directory with what is in it, takes.
fn size(path: &Path) -> std::io::Result<u64> {
    let found = fs::symlink_metadata(path)?;
    let mut bytes = found.blocks() * 512;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += size(&entry?.path()).unwrap_or_default();
        }
    }
    Ok(bytes)
}

fn relative(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

/// The space of each image, the largest first. An image that can't be read is left out.
///
/// # Errors
/// [`Kind::BadInput`] if a tag's file is damaged, [`Kind::Storage`].
pub fn images(store: &Store) -> Result<Vec<ImageUse>> {
    let sizes: HashMap<Digest, u64> = store.blobs()?.collect::<Result<_>>()?;
    let mut tags: HashMap<Digest, Vec<String>> = HashMap::new();
    let mut manifests = Vec::new();
    for record in store.tags()? {
        let record = record?;
        let names = tags.entry(record.manifest.digest).or_default();
        names.push(record.name);
        if names.len() == 1 {
            manifests.push(record.manifest);
        }
    }
    let reach =
        |manifest: &Descriptor| Some((manifest.digest, store.mark_image(manifest).ok()?.blobs));
    let blobs: Vec<(Digest, HashSet<Digest>)> =
        parallel::map(&manifests, reach).into_iter().flatten().collect();
    let mut users: HashMap<Digest, u32> = HashMap::new();
    for blob in blobs.iter().flat_map(|(_, blobs)| blobs) {
        *users.entry(*blob).or_default() += 1;
    }
    let image = |(digest, blobs): (Digest, HashSet<Digest>)| {
        let space = |wanted: &dyn Fn(&Digest) -> bool| {
            blobs.iter().filter(|blob| wanted(blob)).filter_map(|blob| sizes.get(blob)).sum()
        };
        let mut tags = tags.remove(&digest).unwrap_or_default();
        tags.sort();
        let (bytes, unique) = (space(&|_| true), space(&|blob| users[blob] == 1));
        ImageUse { digest, tags, bytes, unique }
    };
    let mut images: Vec<ImageUse> = blobs.into_iter().map(image).collect();
    images.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.tags.cmp(&b.tags)));
    Ok(images)
}

/// What pruning removes besides what is never needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pruning {
    /// All unpacked layers.
    pub unpacked: bool,
    /// Volumes that no service has, with their data.
    pub volumes: bool,
}

/// Removes whatever no image needs, and what else is wanted, and gives what that was. Waits as long as `wait`
/// says until no other process uses the store: what others have written may not be tagged yet.
///
/// # Errors
/// [`Kind::BadInput`] if an image is damaged, as what it needs isn't known; [`Kind::Storage`], also if the
/// store is still in use. What could not be removed stays for the next time.
pub fn prune(store: &mut Store, wanted: Pruning, wait: Duration) -> Result<Vec<Item>> {
    let pruned = store.with_exclusive_lock(wait, |store| {
        let reach = store.mark()?.whole()?;
        let mut items = items(store, &reach)?;
        give_up(store, wanted, &mut items)?;
        items.retain(|item| !item.needed);
        remove(store, &reach, &items)?;
        Ok(items)
    })?;
    pruned.ok_or_else(|| {
        Error::new(Kind::Storage, "another svp uses the store, so nothing was pruned")
            .hint("try again when it has ended, or wait longer with --wait SECONDS")
    })
}

/// Has what is `wanted` to go needed no more.
///
/// # Errors
/// [`Kind::Storage`] if something runs on unpacked layers; [`Kind::BadInput`] if a service is damaged, whose
/// volumes aren't known.
pub fn give_up(store: &Store, wanted: Pruning, items: &mut [Item]) -> Result<()> {
    if wanted.unpacked {
        give_up_unpacked(store, items)?;
    }
    if wanted.volumes {
        give_up_volumes(store, items)?;
    }
    Ok(())
}

fn give_up_volumes(store: &Store, items: &mut [Item]) -> Result<()> {
    let mut had = HashSet::new();
    let services = ServiceDir::all(store.root())?;
    for service in &services {
        had.extend(service.record()?.volume_names().map(str::to_owned));
    }
    // Last: a restore writes its journal before it removes the record of the fresh copy.
    for service in &services {
        had.extend(cutover::volumes(service)?);
    }
    for item in items.iter_mut().filter(|item| item.kind == ItemKind::Volume) {
        let name = item.path.file_name().unwrap_or_default().to_string_lossy();
        item.needed = had.contains(&*name);
    }
    Ok(())
}

/// The places in the tree area of the services there are; `None` if it isn't known which: one is damaged, or
/// a restore was cut short, which then has places that no record names.
fn places_of_services(root: &Path) -> Result<Option<HashSet<String>>> {
    let mut ids = HashSet::new();
    for service in ServiceDir::all(root)? {
        match service.record() {
            Ok(record) if !service.has_cutover_journal() => ids.insert(record.id),
            _ => return Ok(None),
        };
    }
    Ok(Some(ids))
}

/// What is needed of them is unpacked again.
fn give_up_unpacked(store: &Store, items: &mut [Item]) -> Result<()> {
    let in_use =
        |item: &Item| item.tree.as_ref().is_some_and(CachedTree::is_build_rootfs) && item.needed;
    let mut busy = items.iter().any(in_use);
    for service in ServiceDir::all(store.root())? {
        busy |= service.is_running()?;
    }
    if busy {
        return Err(Error::new(Kind::Storage, "something runs on the unpacked layers")
            .hint("stop what runs, or leave --unpacked out"));
    }
    for item in items.iter_mut().filter(|item| item.kind == ItemKind::Unpacked) {
        item.needed = false;
    }
    Ok(())
}

fn remove(store: &Store, reach: &Marked, items: &[Item]) -> Result<()> {
    // The blobs come at once, and last: as long as they are there, the rest can be made again.
    for item in items.iter().filter(|item| item.kind != ItemKind::Blob && item.tree.is_none()) {
        interrupt::check()?;
        let path = store.root().join(&item.path);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.io("remove", &path)?;
    }
    let trees: Vec<CachedTree> = items.iter().filter_map(|item| item.tree.clone()).collect();
    if !trees.is_empty() {
        Sandbox::create(&store.root().join("trees"))?.remove_cached(&trees)?;
    }
    store.collect(reach, None).map(drop)
}
