//! The root file system of a build: an overlay of the image's layers and a new upper directory.

use std::fs::File;
use std::os::fd::AsFd;

use super::diff::{DiffRequest, WrittenLayer};
use super::directories::{LAYERS, TMP, key};
use super::layer_store::{LayerSource, write_report};
use super::remove::remove;
use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::layer::settings::Settings;
use crate::progress::Reporter;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::{Overlay, Rootfs};
use crate::sandbox::stage::launch::Stage;
use crate::store::Staging;

/// Options of a diff.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiffOptions {
    /// The compression of the layer.
    pub compression: Settings,
    /// SOURCE_DATE_EPOCH: later modification times are clamped to it; seconds.
    pub clamp_mtime: Option<i64>,
}

/// A locked build directory in the layer store, for one container. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct BuildRootfs<'a> {
    sandbox: &'a Sandbox,
    overlay: Overlay,
    started: (i64, u32),
    _lock: File,
}

impl Sandbox {
    /// Unpacks the layers that aren't unpacked yet, the lowest first, and returns an overlay of all of them in
    /// a new build directory.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a layer that doesn't match its digests or is malformed,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn build_rootfs(
        &self,
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        reporter: &dyn Reporter,
    ) -> Result<BuildRootfs<'_>> {
        let mut rootfs = self.empty_build_rootfs()?;
        for layer in layers {
            let layer = layer?;
            self.ensure_unpacked(&rootfs.overlay, &layer, reporter)?;
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
        let namespace = self.namespace_fd().try_clone().io("duplicate", "the user namespace")?;
        let (layer_store, gone) = (self.layer_store().to_owned(), overlay.dir.clone());
        interrupt::watch_temporary(&path, move |_| {
            // Best effort: a later command removes the rest.
            let _ = remove(&layer_store, namespace.as_fd(), vec![gone]);
        });
        Ok(BuildRootfs { sandbox: self, overlay, started: (0, 0), _lock: lock })
    }
}

impl BuildRootfs<'_> {
    /// Unpacks a layer on top of the others, into this build directory instead of the layer store's cache; the layer is
    /// removed along with the directory.
    ///
    /// # Errors
    /// As [`Sandbox::build_rootfs`].
    pub(crate) fn add_private_layer(&mut self, layer: &LayerSource) -> Result<()> {
        let (place, report) = self.sandbox.unpack(&self.overlay, layer, "own")?;
        write_report(&place, &report)?;
        self.overlay.lowers.insert(0, format!("{}/own/fs", self.overlay.dir));
        Ok(())
    }

    /// Unpacks a cached layer again, into this build directory; returns the path of the copy.
    pub(in crate::sandbox) fn unpack_again(&self, layer: &LayerSource) -> Result<String> {
        self.sandbox.unpack(&self.overlay, layer, "again")?;
        Ok(format!("{}/again", self.overlay.dir))
    }

    /// Adds a layer of the cache on top.
    pub(in crate::sandbox) fn push_layer(&mut self, fs: String) {
        self.overlay.lowers.insert(0, fs);
    }

    /// Returns the overlay.
    pub(in crate::sandbox) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Returns the root file system to run a command in. Also records the time: a later [`BuildRootfs::diff`]
    /// attributes every later change to the command.
    pub(crate) fn rootfs(&mut self) -> Rootfs {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        self.started = (now.tv_sec, now.tv_nsec as u32);
        Rootfs::Layers(self.overlay.clone())
    }

    /// Writes the changes in the upper directory as a layer to `blob`, an empty file.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a file that no layer can hold,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn diff(&self, blob: &File, options: DiffOptions) -> Result<WrittenLayer> {
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
        // On failure, a later command removes the directory.
        let _ = self.sandbox.remove(vec![self.overlay.dir.clone()]);
        interrupt::forget_temporary(&self.sandbox.layer_store().join(&self.overlay.dir));
    }
}
