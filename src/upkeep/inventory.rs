//! Lists the items in the store, and whether each is needed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, Digest};
use crate::sandbox::{CachedTree, Sandbox};
use crate::service::service_dir::ServiceDir;
use crate::service::unreferenced_states;
use crate::store::{Marked, RootOwner, Staging, Store, parallel};

/// The kind of an item in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ItemKind {
    /// A blob: a manifest, a config or a compressed layer.
    Blob,
    /// A layer unpacked for containers.
    Unpacked,
    /// An instance's secrets and environment.
    Instance,
    /// A tag.
    Tag,
    /// A service's record and logs.
    Service,
    /// Files that a service wrote outside its volumes.
    Written,
    /// A volume.
    Volume,
    /// A script's log.
    Log,
    /// Unfinished files.
    Staging,
    /// Cached facts about a blob: its diff ID or its locations.
    Note,
}

/// An item in the store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Item {
    /// The kind.
    pub kind: ItemKind,
    /// The path, relative to the store's directory.
    pub path: PathBuf,
    /// Disk use, in bytes.
    pub bytes: u64,
    /// Whether an image or a running command needs it.
    pub needed: bool,
    /// The tree of an item below `trees/`.
    #[serde(skip)]
    pub(super) tree: Option<CachedTree>,
}

/// The disk use of one image.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ImageUse {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// Disk use of its blobs, in bytes.
    pub bytes: u64,
    /// Disk use of the blobs that no other image shares, in bytes.
    pub unique: u64,
}

/// The content of the store.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// All items, each once.
    pub items: Vec<Item>,
    /// Unreadable images, each with its owner and the error. Items that only these images need
    /// count as unneeded.
    pub damaged: Vec<(RootOwner, Error)>,
}

/// Lists the content of the store.
///
/// # Errors
/// [`Kind::BadInput`] if a tag's file is damaged, [`Kind::Storage`], [`Kind::Sandbox`] if there are unpacked
/// layers but no sandbox can be created.
pub(crate) fn inventory(store: &Store) -> Result<Inventory> {
    let marked = store.mark()?;
    let items = items(store, &marked)?;
    Ok(Inventory { items, damaged: marked.damaged })
}

pub(super) fn items(store: &Store, marked: &Marked) -> Result<Vec<Item>> {
    let root = store.root();
    let mut items = Vec::new();
    for blob in store.blobs()? {
        let (digest, bytes) = blob?;
        let path = relative(root, &store.blob_path(&digest));
        let needed = marked.blobs.contains(&digest);
        items.push(Item { kind: ItemKind::Blob, path, bytes, needed, tree: None });
    }
    let unreferenced_states = unreferenced_states(store, marked)?;
    let layout = store.layout();
    let mut files = |kind, dir: PathBuf, needed: &dyn Fn(&Path) -> bool| -> Result<()> {
        for entry in fs::read_dir(&dir).io("list", &dir)? {
            let entry = entry.io("list", &dir)?;
            let path = entry.path();
            // A file that was removed meanwhile uses no space.
            let Ok(bytes) = size(&path) else { continue };
            let needed = needed(&path);
            items.push(Item { kind, path: relative(root, &path), bytes, needed, tree: None });
        }
        Ok(())
    };
    files(ItemKind::Instance, layout.instances(), &|path| {
        !unreferenced_states.iter().any(|gone| gone == path)
    })?;
    files(ItemKind::Tag, layout.tags(), &|_| true)?;
    if layout.services().is_dir() {
        files(ItemKind::Service, layout.services(), &|path| !ServiceDir::is_abandoned(path))?;
    }
    files(ItemKind::Log, layout.logs(), &|_| false)?;
    files(ItemKind::Staging, layout.tmp(), &|path| !is_dead(path))?;
    for notes in [layout.diff_ids(), layout.blob_locations()] {
        files(ItemKind::Note, notes, &|path| is_noted(store, path))?;
    }
    items.extend(trees(store, marked)?);
    items.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    Ok(items)
}

/// Lists the trees: unpacked layers, the build root file systems of running commands, and the files of services.
fn trees(store: &Store, marked: &Marked) -> Result<Vec<Item>> {
    let trees = store.layout().trees();
    let mut found = Sandbox::cached_trees(&trees)?;
    let (layers, kept) = (found.len(), Sandbox::persistent_trees(&trees)?);
    found.extend(kept);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let sizes = Sandbox::create(&trees)?.measure(&found)?;
    let needed: HashSet<String> = marked.chain_ids.iter().map(CachedTree::key_of).collect();
    let services = ids_of_services(store.root())?;
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

/// Returns whether the process that owns a staging directory has ended.
fn is_dead(path: &Path) -> bool {
    !path.is_dir() || matches!(Staging::lock_dead(path), Ok(Some(_)))
}

/// Returns whether the store has the blob that a cached fact describes.
fn is_noted(store: &Store, note: &Path) -> bool {
    let name = note.file_name().unwrap_or_default().to_string_lossy();
    format!("sha256:{name}").parse().is_ok_and(|digest| store.has_blob(&digest))
}

/// Returns the disk use of a file, or of a directory with its content.
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

/// Returns the disk use of each image, largest first. Skips unreadable images.
///
/// # Errors
/// [`Kind::BadInput`] if a tag's file is damaged, [`Kind::Storage`].
pub(crate) fn images(store: &Store) -> Result<Vec<ImageUse>> {
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
    let mark =
        |manifest: &Descriptor| Some((manifest.digest, store.mark_image(manifest).ok()?.blobs));
    let blobs: Vec<(Digest, HashSet<Digest>)> =
        parallel::map(&manifests, mark).into_iter().flatten().collect();
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

/// Returns the ids of all services, which name their directories below `trees/`. `None` if an id is unknown: a
/// service is damaged, or an interrupted restore left directories that no record names.
fn ids_of_services(root: &Path) -> Result<Option<HashSet<String>>> {
    let mut ids = HashSet::new();
    for service in ServiceDir::all(root)? {
        match service.record() {
            Ok(record) if !service.has_cutover_journal() => ids.insert(record.id),
            _ => return Ok(None),
        };
    }
    Ok(Some(ids))
}
