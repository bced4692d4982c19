//! The tree area: a directory that belongs to the container's root, with the unpacked layers and the
//! scratch places of running builds.
//!
//! ```text
//! TREES/MAP/layers/CHAIN/fs       a layer unpacked for that id map, in overlayfs's format
//! TREES/MAP/layers/CHAIN/report   what of it could not be expressed there
//! TREES/MAP/locks/CHAIN           held while a layer is unpacked, so that two builds don't both do it
//! TREES/MAP/services, volumes     what outlives containers: see `volume`
//! TREES/MAP/tmp/RANDOM            a scratch place, locked by its owner; swept when the owner is gone
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Sandbox;
use super::spec::{Overlay, Rootfs};
use super::stage::launch::Stage;
use super::trees::{DiffRequest, RemoveRequest, UnpackRequest, WrittenLayer};
use super::userns::idmap::IdMap;
use crate::error::{Error, IoContext, Result};
use crate::interrupt;
use crate::layer::meta::IdRanges;
use crate::layer::settings::Settings;
use crate::layer::unpack::UnpackReport;
use crate::oci::media_type::Compression;
use crate::oci::{Digest, Image};
use crate::store::{Staging, Store};

/// Part of the name of every area: what is unpacked by another format of ours is not looked at.
pub(super) const FORMAT: u32 = 1;

/// A layer to unpack, and where its blob is.
#[derive(Debug)]
pub struct LayerSource {
    /// The blob, to be read from its start.
    pub blob: File,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size; bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The chain ID of this layer on those below (image-spec, config.md).
    pub chain_id: Digest,
}

/// The layers of an image of the store, the lowest first, to be unpacked.
pub fn layer_sources(store: &Store, image: &Image) -> impl Iterator<Item = Result<LayerSource>> {
    image.layers().iter().zip(image.chain_ids()).map(|(layer, chain_id)| {
        let descriptor = &layer.descriptor;
        Ok(LayerSource {
            blob: store.open_blob(&descriptor.digest)?,
            digest: descriptor.digest,
            size: descriptor.size,
            compression: Compression::of_layer(&descriptor.media_type)?,
            diff_id: layer.diff_id,
            chain_id,
        })
    })
}

/// How to write a diff.
#[derive(Clone, Copy, Debug)]
pub struct DiffOptions {
    /// How to compress.
    pub compression: Settings,
    /// SOURCE_DATE_EPOCH: later modification times become this; seconds.
    pub clamp_mtime: Option<i64>,
}

/// A private place in the tree area for one container. Dropped means removed.
#[derive(Debug)]
pub struct Scratch<'a> {
    sandbox: &'a Sandbox,
    name: String,
    overlay: Overlay,
    started: (i64, u32),
    _lock: File,
}

/// Makes the area for an id map, owned by the container's root.
pub(super) fn make(trees: &Path, map: &IdMap) -> Result<PathBuf> {
    let area = trees.join(format!("{}-{FORMAT}", map.key()));
    DirBuilder::new().recursive(true).mode(0o700).create(trees).io("make", trees)?;
    for dir in [area.clone(), area.join("layers"), area.join("locks"), area.join("tmp")] {
        give_dir(&dir, map)?;
    }
    Ok(area)
}

/// Makes a directory (0700) of the container's root, unless it is there.
pub(super) fn give_dir(path: &Path, map: &IdMap) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("make", path, error));
        }
        _ => {}
    }
    let (uid, gid) = map.root();
    let found = fs::symlink_metadata(path).io("look at", path)?;
    if (found.uid(), found.gid()) != (uid, gid) {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).io("set the owner of", path)?;
    }
    Ok(())
}

impl Sandbox {
    /// Unpacks the layers that aren't unpacked yet, the lowest first, and gives the overlay of them all in
    /// a scratch place of its own.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a layer that isn't what it must be,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn scratch(
        &self,
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        unpacking: &mut dyn FnMut(&LayerSource),
    ) -> Result<Scratch<'_>> {
        let mut scratch = self.empty_scratch()?;
        for layer in layers {
            let layer = layer?;
            self.provide(&scratch, &layer, unpacking)?;
            scratch.overlay.lowers.insert(0, format!("layers/{}/fs", key(&layer.chain_id)));
        }
        Ok(scratch)
    }

    pub(super) fn empty_scratch(&self) -> Result<Scratch<'_>> {
        let tmp = self.area().join("tmp");
        let (name, lock) = Staging::lock_new(&tmp)?;
        let (uid, gid) = self.map().root();
        let path = tmp.join(&name);
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).io("set the owner of", &path)?;
        let overlay =
            Overlay { lowers: Vec::new(), scratch: format!("tmp/{name}"), durable: false };
        let namespace = self.namespace_fd().try_clone().io("keep", "the user namespace")?;
        let (area, gone) = (self.area().to_owned(), overlay.scratch.clone());
        interrupt::watch_temporary(&path, move |_| {
            let _ = remove(&area, namespace.as_fd(), vec![gone]);
        });
        Ok(Scratch { sandbox: self, name, overlay, started: (0, 0), _lock: lock })
    }

    /// Makes sure that a layer is unpacked. Of two builds that want it, one unpacks and one waits.
    fn provide(
        &self,
        scratch: &Scratch<'_>,
        layer: &LayerSource,
        unpacking: &mut dyn FnMut(&LayerSource),
    ) -> Result<()> {
        let key = key(&layer.chain_id);
        let published = self.area().join("layers").join(&key);
        if published.join("report").exists() {
            return Ok(());
        }
        let lock_path = self.area().join("locks").join(&key);
        let lock = File::create(&lock_path).io("open", &lock_path)?;
        lock.lock().io("lock", &lock_path)?;
        if published.join("report").exists() {
            return Ok(());
        }
        unpacking(layer);
        let (place, report) = self.unpack(scratch, layer, "unpack")?;
        publish(&place, &published, &report)
    }

    /// Unpacks a layer on those of the scratch place, in a directory of that place.
    fn unpack(
        &self,
        scratch: &Scratch<'_>,
        layer: &LayerSource,
        name: &str,
    ) -> Result<(PathBuf, UnpackReport)> {
        let place = self.area().join("tmp").join(&scratch.name).join(name);
        give_dir(&place, self.map())?;
        let into = place.join("fs");
        give_dir(&into, self.map())?;
        rustix::fs::chmod(&into, rustix::fs::Mode::from(0o755)).io("set the mode of", &into)?;
        let request = UnpackRequest {
            into: format!("tmp/{}/{name}/fs", scratch.name),
            compression: layer.compression,
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            below: scratch.overlay.clone(),
            ids: self.id_ranges(),
        };
        let fds = [self.namespace(), layer.blob.as_fd()];
        let stage = Stage::start(self.area(), &request, &fds)?;
        Ok((place, stage.finish()?))
    }

    /// Unpacks a layer that is unpacked already once more, in the scratch place; where.
    pub(super) fn unpack_again(
        &self,
        scratch: &Scratch<'_>,
        layer: &LayerSource,
    ) -> Result<String> {
        self.unpack(scratch, layer, "again")?;
        Ok(format!("tmp/{}/again", scratch.name))
    }

    pub(super) fn id_ranges(&self) -> IdRanges {
        let ranges = |extents: &[super::Extent]| {
            extents.iter().map(|e| (e.inside, e.inside + (e.count - 1))).collect()
        };
        IdRanges { users: ranges(&self.map().uids), groups: ranges(&self.map().gids) }
    }

    /// Removes the scratch places of commands that are gone.
    pub(super) fn sweep(&self) {
        let tmp = self.area().join("tmp");
        let Ok(entries) = fs::read_dir(&tmp) else { return };
        let mut held = Vec::new();
        let mut dead = Vec::new();
        for entry in entries.flatten() {
            if let Ok(Some(lock)) = Staging::lock_dead(&entry.path()) {
                held.push(lock);
                dead.push(format!("tmp/{}", entry.file_name().to_string_lossy()));
            }
        }
        if !dead.is_empty() {
            let _ = self.remove(dead);
        }
    }

    pub(super) fn remove(&self, paths: Vec<String>) -> Result<()> {
        let _cleaning = interrupt::cleaning();
        remove(self.area(), self.namespace(), paths)
    }
}

fn remove(area: &Path, namespace: BorrowedFd<'_>, paths: Vec<String>) -> Result<()> {
    Stage::start_cleanup(area, &RemoveRequest(paths), &[namespace])?.finish_cleanup()
}

/// Makes an unpacked layer everyone's. The stage has synced the tree.
fn publish(place: &Path, published: &Path, report: &UnpackReport) -> Result<()> {
    let file = write_report(place, report)?;
    File::open(&file).and_then(|file| file.sync_all()).io("sync", &file)?;
    fs::rename(place, published).io("publish the layer", published)?;
    let layers = published.parent().unwrap_or(published);
    File::open(layers).and_then(|dir| dir.sync_all()).io("sync", layers)
}

fn write_report(place: &Path, report: &UnpackReport) -> Result<PathBuf> {
    let file = place.join("report");
    let text = serde_json::to_vec(report).expect("a report is plain data");
    fs::write(&file, text).io("write", &file)?;
    Ok(file)
}

/// A chain ID as the name of a file; half of it is more than enough, and shorter in `ls`.
pub(super) fn key(chain_id: &Digest) -> String {
    chain_id.hex()[..40].to_owned()
}

impl Scratch<'_> {
    /// Unpacks a layer for this scratch place alone, on top of the others. It goes with the place.
    ///
    /// # Errors
    /// As [`Sandbox::scratch`].
    pub fn add_own(&mut self, layer: &LayerSource) -> Result<()> {
        let (place, report) = self.sandbox.unpack(self, layer, "own")?;
        write_report(&place, &report)?;
        self.overlay.lowers.insert(0, format!("tmp/{}/own/fs", self.name));
        Ok(())
    }

    /// Puts a published layer on top.
    pub(super) fn put_on(&mut self, fs: String) {
        self.overlay.lowers.insert(0, fs);
    }

    /// The layers and the place.
    pub(super) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The root file system to run a command in. Also notes the time: a later [`Scratch::diff`] takes what
    /// happens from now on for the command's doing.
    pub fn rootfs(&mut self) -> Rootfs {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        self.started = (now.tv_sec, now.tv_nsec as u32);
        Rootfs::Layers(self.overlay.clone())
    }

    /// Writes what changed in here as a layer to `blob`, an empty file.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a file that no layer can hold,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn diff(&self, blob: &File, options: DiffOptions) -> Result<WrittenLayer> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let request = DiffRequest {
            overlay: self.overlay.clone(),
            compression: options.compression,
            threads,
            started: self.started,
            clamp_mtime: options.clamp_mtime,
        };
        let fds = [self.sandbox.namespace(), blob.as_fd()];
        Stage::start(self.sandbox.area(), &request, &fds)?.finish()
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        // What can't be removed now, the next command sweeps.
        let _ = self.sandbox.remove(vec![self.overlay.scratch.clone()]);
        interrupt::forget_temporary(&self.sandbox.area().join(&self.overlay.scratch));
    }
}
