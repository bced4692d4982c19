//! The root file system of a build: the image's layers, and an upper directory for what changes.

use std::fs::File;
use std::os::fd::AsFd;

use super::diff::{DiffRequest, WrittenLayer};
use super::directories::{LAYERS, TMP, key};
use super::layer_store::{LayerSource, write_report};
use super::remove::remove;
use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::layer::settings::Settings;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::{Overlay, Rootfs};
use crate::sandbox::stage::launch::Stage;
use crate::store::Staging;

/// How to write a diff.
#[derive(Clone, Copy, Debug)]
pub struct DiffOptions {
    /// How to compress.
    pub compression: Settings,
    /// SOURCE_DATE_EPOCH: later modification times become this; seconds.
    pub clamp_mtime: Option<i64>,
}

/// A private place in the layer store for one container. Dropped means removed.
#[derive(Debug)]
pub struct BuildRootfs<'a> {
    sandbox: &'a Sandbox,
    overlay: Overlay,
    started: (i64, u32),
    _lock: File,
}

impl Sandbox {
    /// Unpacks the layers that aren't unpacked yet, the lowest first, and gives the overlay of them all in
    /// a build directory of its own.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a layer that isn't what it must be,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn build_rootfs(
        &self,
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        unpacking: &mut dyn FnMut(&LayerSource),
    ) -> Result<BuildRootfs<'_>> {
        let mut rootfs = self.empty_build_rootfs()?;
        for layer in layers {
            let layer = layer?;
            self.ensure_unpacked(&rootfs.overlay, &layer, unpacking)?;
            rootfs.overlay.lowers.insert(0, format!("{LAYERS}/{}/fs", key(&layer.chain_id)));
        }
        Ok(rootfs)
    }

    pub(in crate::sandbox) fn empty_build_rootfs(&self) -> Result<BuildRootfs<'_>> {
        let tmp = self.layer_store().join(TMP);
        let (name, lock) = Staging::lock_new(&tmp)?;
        let (uid, gid) = self.map().root();
        let path = tmp.join(&name);
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).io("set the owner of", &path)?;
        let overlay = Overlay { lowers: Vec::new(), dir: format!("{TMP}/{name}"), durable: false };
        let namespace = self.namespace_fd().try_clone().io("keep", "the user namespace")?;
        let (layer_store, gone) = (self.layer_store().to_owned(), overlay.dir.clone());
        interrupt::watch_temporary(&path, move |_| {
            let _ = remove(&layer_store, namespace.as_fd(), vec![gone]);
        });
        Ok(BuildRootfs { sandbox: self, overlay, started: (0, 0), _lock: lock })
    }
}

impl BuildRootfs<'_> {
    /// Unpacks a layer for this build directory alone, on top of the others. It goes with the place.
    ///
    /// # Errors
    /// As [`Sandbox::build_rootfs`].
    pub fn add_private_layer(&mut self, layer: &LayerSource) -> Result<()> {
        let (place, report) = self.sandbox.unpack(&self.overlay, layer, "own")?;
        write_report(&place, &report)?;
        self.overlay.lowers.insert(0, format!("{}/own/fs", self.overlay.dir));
        Ok(())
    }

    /// Unpacks a layer that is unpacked already once more, in this place; where.
    pub(in crate::sandbox) fn unpack_again(&self, layer: &LayerSource) -> Result<String> {
        self.sandbox.unpack(&self.overlay, layer, "again")?;
        Ok(format!("{}/again", self.overlay.dir))
    }

    /// Puts a published layer on top.
    pub(in crate::sandbox) fn push_layer(&mut self, fs: String) {
        self.overlay.lowers.insert(0, fs);
    }

    /// The layers and the place.
    pub(in crate::sandbox) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The root file system to run a command in. Also notes the time: a later [`BuildRootfs::diff`] takes what
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
        Stage::start(self.sandbox.layer_store(), &request, &fds)?.finish()
    }
}

impl Drop for BuildRootfs<'_> {
    fn drop(&mut self) {
        // What can't be removed now, the next command sweeps.
        let _ = self.sandbox.remove(vec![self.overlay.dir.clone()]);
        interrupt::forget_temporary(&self.sandbox.layer_store().join(&self.overlay.dir));
    }
}
