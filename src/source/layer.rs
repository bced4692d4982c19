//! Transfers a layer into the store, verifying digest, size and diff ID in one pass.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use log::debug;

use super::image_source::ImageSource;
use super::tee::{Failure, Handle, Tee, decompress, undecodable};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, Layer};
use crate::progress::{Direction, Event, Reporter, Transfer};
use crate::store::{BlobWriter, Store};

/// Maximum size of a layer's tar, in bytes, against decompression bombs.
const MAX_TAR: u64 = 1 << 40;
/// Bytes between two progress events.
const STRIDE: u64 = 1 << 20;

/// State shared by the transfers of one pull.
pub(super) struct Transfers<'a> {
    pub(super) image_source: &'a dyn ImageSource,
    pub(super) store: &'a Store,
    pub(super) reporter: &'a dyn Reporter,
    /// Set when one transfer has failed, so that the others stop.
    pub(super) stop: AtomicBool,
    /// Serialises zstd decoders: each window may take 32 MiB, and several would exceed svp's memory limit.
    pub(super) zstd: Mutex<()>,
}

/// A verified layer that is not yet published as a blob.
pub(super) struct Fetched {
    writer: BlobWriter,
    descriptor: Descriptor,
    diff_id: Digest,
}

impl Fetched {
    /// Publishes the layer as a blob, and caches its diff ID.
    pub(super) fn publish(self, store: &Store) -> Result<()> {
        let Descriptor { digest, size, .. } = self.descriptor;
        self.writer.finish_expecting(digest, size)?;
        store.note_diff_id(&digest, &self.diff_id)
    }
}

impl Transfers<'_> {
    /// Transfers one layer; returns `None` if the store has it already.
    pub(super) fn fetch(&self, layer: &Layer) -> Result<Option<Fetched>> {
        let zstd = compression(layer)? == Compression::Zstd;
        let _alone = zstd.then(|| self.zstd.lock().unwrap_or_else(PoisonError::into_inner));
        let Descriptor { digest, size, .. } = layer.descriptor;
        if self.store.blob_size(&digest) == Some(size) {
            if self.store.noted_diff_id(&digest) == Some(layer.diff_id) {
                debug!("layer {digest}: the store has it");
                return Ok(None);
            }
            // If the stored blob is damaged, fetch it again.
            if let Ok(found) = stored_diff_id(self.store, layer) {
                check(layer, found)?;
                self.store.note_diff_id(&digest, &found)?;
                return Ok(None);
            }
        }
        self.transfer(layer).context(format!("layer {digest}")).map(Some)
    }

    fn transfer(&self, layer: &Layer) -> Result<Fetched> {
        let descriptor = &layer.descriptor;
        let digest = &descriptor.digest.to_string();
        let report = |done| {
            let (direction, total) = (Direction::Pull, Some(descriptor.size));
            self.reporter.event(Event::Transfer(Transfer { digest, direction, done, total }));
        };
        report(0);
        let since = Instant::now();
        let tee = Tee::new(self.image_source.blob(descriptor)?, self.store.blob_writer()?);
        let tee = Rc::new(RefCell::new(tee));
        let mut reported = 0;
        let result = hash(&tee, compression(layer)?, &mut |_| {
            let done = tee.borrow().done;
            if done >= reported + STRIDE {
                reported = done;
                report(done);
            }
            match self.stop.load(Ordering::Relaxed) {
                true => Err(Error::new(Kind::Interrupted, "another layer has failed")),
                false => interrupt::check(),
            }
        });
        let tee = Rc::into_inner(tee).expect("the decoder is gone").into_inner();
        // Use the source's own error: the decoder may have wrapped it.
        let diff_id = match tee.failure {
            Some(Failure::Read(error)) => return Err(self.image_source.read_error(error)),
            Some(Failure::Write(error)) => {
                return Err(Error::io("write to", self.store.root(), error));
            }
            None => result?,
        };
        check(layer, diff_id)?;
        debug!("layer {digest}: {} bytes in {:.1?}", descriptor.size, since.elapsed());
        self.reporter.event(Event::Transferred { digest });
        Ok(Fetched { writer: tee.output, descriptor: descriptor.clone(), diff_id })
    }
}

fn compression(layer: &Layer) -> Result<Compression> {
    Compression::of_layer(&layer.descriptor.media_type)
}

fn check(layer: &Layer, found: Digest) -> Result<()> {
    if found == layer.diff_id {
        return Ok(());
    }
    Err(Error::bad_input(format!(
        "the uncompressed layer is {found}, not {} as the config says",
        layer.diff_id
    ))
    .hint("the image is damaged, or someone tampered with it"))
}

/// Computes the diff ID of a layer in the store, verifying its blob.
fn stored_diff_id(store: &Store, layer: &Layer) -> Result<Digest> {
    let reader = Rc::new(RefCell::new(store.blob_reader(&layer.descriptor)?));
    hash(&reader, compression(layer)?, &mut |_| Ok(()))
}

/// Reads a layer's `input` to its end and returns the diff ID. Calls `at_each` for each piece of the tar; its error
/// stops the transfer.
pub(super) fn hash<R: Read + 'static>(
    input: &Rc<RefCell<R>>,
    compression: Compression,
    at_each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Digest> {
    let result = decompress(input, compression, |tar| {
        let mut buffer = vec![0; 64 << 10];
        let mut size = 0;
        loop {
            let length = match tar.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(undecodable(error)),
            };
            size += length as u64;
            if size > MAX_TAR {
                let text = format!("the layer decompresses to more than {MAX_TAR} bytes");
                return Err(Error::bad_input(text));
            }
            at_each(&buffer[..length])?;
        }
    });
    if result.as_ref().is_err_and(|error| error.kind() == Kind::BadInput) {
        // Read the rest, so that a wrong digest is reported instead of this error.
        io::copy(&mut Handle(input.clone()), &mut io::sink()).map_err(undecodable)?;
    }
    result.map(|(diff_id, ())| diff_id)
}
