//! The layer store: unpacks each layer once for each id map, under its chain ID.

use std::fs::{self, File};
use std::io::Seek;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use log::{debug, trace};

use super::directories::{LAYERS, LOCKS, create_owned_dir, key};
use super::unpack::UnpackRequest;
use crate::error::{Error, IoContext, Kind, Result};
use crate::layer::meta::IdRanges;
use crate::layer::unpack::UnpackReport;
use crate::oci::{Digest, DigestReader, Image};
use crate::progress::{Reporter, Step, announce_if_slow};
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::userns::idmap::Extent;
use crate::store::Store;

/// A layer to unpack, and its blob.
#[derive(Debug)]
pub(crate) struct LayerSource {
    /// The blob, read from its start.
    pub blob: File,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size; bytes.
    pub size: u64,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The chain ID of this layer on top of those below (image-spec, config.md).
    pub chain_id: Digest,
    /// The file that caches what was verified of the blob, if it is in the store.
    pub note: Option<PathBuf>,
}

impl LayerSource {
    /// Explains why the layer could not be unpacked, if its blob is damaged: forgets what was verified of it, so that
    /// the next pull replaces it.
    pub(in crate::sandbox) fn explain(&self, error: Error) -> Error {
        let (Kind::BadInput, Some(note)) = (error.kind(), &self.note) else { return error };
        let whole = || -> std::io::Result<()> {
            let mut blob = self.blob.try_clone()?;
            blob.rewind()?;
            DigestReader::expecting(blob, self.digest, Some(self.size)).drain().map(drop)
        };
        if whole().is_ok() {
            return error;
        }
        // Best effort: `svp check --store` does the same.
        let _ = fs::remove_file(note);
        error.hint("pull, import or build the image again, which replaces the blob; `svp check --store` lists all damage")
    }
}

/// Opens the layers of an image of the store for unpacking, the lowest first.
pub(crate) fn layer_sources(
    store: &Store,
    image: &Image,
) -> impl Iterator<Item = Result<LayerSource>> {
    image.layers().iter().zip(image.chain_ids()).map(|(layer, chain_id)| {
        let descriptor = &layer.descriptor;
        Ok(LayerSource {
            blob: store.open_blob(&descriptor.digest)?,
            digest: descriptor.digest,
            size: descriptor.size,
            diff_id: layer.diff_id,
            chain_id,
            note: Some(store.layout().diff_id(&descriptor.digest)),
        })
    })
}

impl Sandbox {
    /// Unpacks a layer unless it is unpacked already. Of two concurrent builds, one unpacks and the other waits.
    pub(in crate::sandbox) fn ensure_unpacked(
        &self,
        below: &Overlay,
        layer: &LayerSource,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let key = key(&layer.chain_id);
        let published = self.layer_store().join(LAYERS).join(&key);
        if published.join("report").exists() {
            trace!("layer {}: unpacked already", layer.digest);
            return Ok(());
        }
        let lock_path = self.layer_store().join(LOCKS).join(&key);
        let lock = File::create(&lock_path).io("open", &lock_path)?;
        let since = Instant::now();
        let digest = layer.digest.to_string();
        announce_if_slow(reporter, Step::WaitForLayer { digest }, || lock.lock())
            .io("lock", &lock_path)?;
        trace!("layer {}: lock taken after {:.1?}", layer.digest, since.elapsed());
        if published.join("report").exists() {
            return Ok(());
        }
        debug!("layer {}: not unpacked yet", layer.digest);
        reporter.step(Step::UnpackLayer { digest: layer.digest.to_string() });
        let (place, report) = self.unpack(below, layer, "unpack")?;
        publish(&place, &published, &report)
    }

    /// Unpacks a layer on top of `below`, into the directory `name` of the build directory.
    pub(in crate::sandbox) fn unpack(
        &self,
        below: &Overlay,
        layer: &LayerSource,
        name: &str,
    ) -> Result<(PathBuf, UnpackReport)> {
        let place = self.layer_store().join(&below.dir).join(name);
        create_owned_dir(&place, self.map())?;
        let into = place.join("fs");
        create_owned_dir(&into, self.map())?;
        rustix::fs::chmod(&into, rustix::fs::Mode::from(0o755)).io("set the mode of", &into)?;
        let request = UnpackRequest {
            into: format!("{}/{name}/fs", below.dir),
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            below: below.clone(),
            ids: self.id_ranges(),
        };
        let fds = [self.namespace(), layer.blob.as_fd()];
        let stage = Stage::start(self.layer_store(), &request, &fds)?;
        let report = stage.finish().map_err(|error| layer.explain(error))?;
        Ok((place, report))
    }

    pub(in crate::sandbox) fn id_ranges(&self) -> IdRanges {
        let ranges = |extents: &[Extent]| {
            extents.iter().map(|e| (e.inside, e.inside + (e.count - 1))).collect()
        };
        IdRanges { users: ranges(&self.map().uids), groups: ranges(&self.map().gids) }
    }
}

/// Publishes an unpacked layer in the cache. The stage has already synced the tree.
fn publish(place: &Path, published: &Path, report: &UnpackReport) -> Result<()> {
    let file = write_report(place, report)?;
    File::open(&file).and_then(|file| file.sync_all()).io("sync", &file)?;
    fs::rename(place, published).io("publish the layer", published)?;
    let layers = published.parent().unwrap_or(published);
    File::open(layers).and_then(|dir| dir.sync_all()).io("sync", layers)
}

pub(in crate::sandbox) fn write_report(place: &Path, report: &UnpackReport) -> Result<PathBuf> {
    let file = place.join("report");
    let text = serde_json::to_vec(report).expect("a report is plain data");
    fs::write(&file, text).io("write", &file)?;
    Ok(file)
}
