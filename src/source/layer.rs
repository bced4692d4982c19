//! Transfers a layer into the store. Verifies digest, size, diff ID, and that it can be unpacked, in one pass.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use log::debug;

use super::image_source::ImageSource;
use super::tee::{Failure, Handle, Tee, decompress, undecodable};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::layer::outline::Outline;
use crate::oci::{Descriptor, Digest, Layer};
use crate::progress::{Direction, Event, ImageNote, Reporter, Transfer};
use crate::store::{LayerNote, Store};

/// Maximum size of a layer's tar, in bytes, against decompression bombs.
const MAX_TAR: u64 = 1 << 40;
/// Bytes between two progress events.
const STRIDE: u64 = 1 << 20;
/// Bytes of a layer's tar that are read at a time.
const PIECE: usize = 64 << 10;

/// State shared by the transfers of one pull.
pub(super) struct Transfers<'a> {
    pub(super) image_source: &'a dyn ImageSource,
    pub(super) store: &'a Store,
    pub(super) reporter: &'a dyn Reporter,
    /// Set when one transfer has failed, so that the others stop.
    pub(super) stop: AtomicBool,
}

/// A verified layer. It is a blob of the store as soon as it was verified, so that a pull that is interrupted later
/// keeps it.
pub(super) struct Fetched {
    /// What was verified.
    pub(super) verified: LayerNote,
    /// Whether the store has the note already.
    noted: bool,
    digest: Digest,
}

impl Fetched {
    /// The blob's digest.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Opens the blob.
    pub(super) fn open(&self, store: &Store) -> Result<File> {
        store.open_blob(&self.digest)
    }

    /// Sets the chain ID of lower layers on which the layer can be unpacked.
    pub(super) fn set_below(&mut self, below: Option<Digest>) {
        self.verified.below = below;
        self.noted = false;
    }

    /// Caches what was verified.
    pub(super) fn note(&self, store: &Store) -> Result<()> {
        if self.noted { Ok(()) } else { store.note_layer(&self.digest, &self.verified) }
    }
}

impl Transfers<'_> {
    /// Transfers one layer, unless the store has it already. It becomes a blob as soon as it is verified, so that a pull
    /// that is interrupted later keeps it.
    pub(super) fn fetch(&self, layer: &Layer) -> Result<Fetched> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        if self.store.blob_size(&digest) == Some(size) {
            if let Some(note) = self.store.layer_note(&digest)
                && note.diff_id == layer.diff_id
            {
                debug!("layer {digest}: the store has it");
                return Ok(Fetched { verified: note, noted: true, digest });
            }
            // If the stored blob is damaged, fetch it again.
            if let Ok(note) = stored(self.store, layer, self.reporter) {
                check(layer, &note)?;
                return Ok(Fetched { verified: note, noted: false, digest });
            }
        }
        self.transfer(layer).context(format!("layer {digest}"))
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
        let result = verify(&tee, (digest, self.reporter), &mut || {
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
        let note = match tee.failure {
            Some(Failure::Read(error)) => return Err(self.image_source.read_error(error)),
            Some(Failure::Write(error)) => {
                return Err(Error::io("write to", self.store.root(), error));
            }
            None => result?,
        };
        check(layer, &note)?;
        tee.output.finish_expecting(descriptor.digest, descriptor.size)?;
        self.store.note_layer(&descriptor.digest, &note)?;
        debug!("layer {digest}: {} bytes in {:.1?}", descriptor.size, since.elapsed());
        self.reporter.event(Event::Transferred { digest });
        Ok(Fetched { verified: note, noted: true, digest: descriptor.digest })
    }
}

fn check(layer: &Layer, note: &LayerNote) -> Result<()> {
    if note.diff_id == layer.diff_id { Ok(()) } else { Err(layer.other_diff_id(&note.diff_id)) }
}

/// Verifies a layer in the store, and its blob.
fn stored(store: &Store, layer: &Layer, reporter: &dyn Reporter) -> Result<LayerNote> {
    let digest = layer.descriptor.digest.to_string();
    let reader = Rc::new(RefCell::new(store.blob_reader(&layer.descriptor)?));
    verify(&reader, (&digest, reporter), &mut interrupt::check)
}

/// Reads a layer's `input` to its end, and verifies that it can be unpacked. Calls `at_each` for each piece of the tar;
/// its error stops the transfer.
fn verify<R: Read + 'static>(
    input: &Rc<RefCell<R>>,
    (digest, reporter): (&str, &dyn Reporter),
    at_each: &mut dyn FnMut() -> Result<()>,
) -> Result<LayerNote> {
    let mut outline = Outline::of_layer();
    let (diff_id, needs_lower) = read_tar(input, |tar| {
        let pieces = Pieces { tar, size: 0, at_each };
        outline.add_layer(&mut BufReader::with_capacity(PIECE, pieces))
    })?;
    report_ignored(outline.ignored(), &format!("layer {digest}"), reporter);
    Ok(LayerNote { diff_id, needs_lower, below: None })
}

/// Reports what reading a tar ignored.
pub(crate) fn report_ignored(ignored: &BTreeSet<&'static str>, tar: &str, reporter: &dyn Reporter) {
    if !ignored.is_empty() {
        let keywords = ignored.iter().map(ToString::to_string).collect();
        reporter.note(ImageNote::KeywordsIgnored { tar: tar.to_owned(), keywords }.into());
    }
}

/// A layer's tar, of bounded size.
struct Pieces<'a> {
    tar: &'a mut dyn Read,
    size: u64,
    at_each: &'a mut dyn FnMut() -> Result<()>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.tar.read(buf)?;
        self.size += length as u64;
        if self.size > MAX_TAR {
            let text = format!("the layer decompresses to more than {MAX_TAR} bytes");
            return Err(io::Error::other(Error::bad_input(text)));
        }
        (self.at_each)().map_err(io::Error::other)?;
        Ok(length)
    }
}

/// Decompresses a layer's `input` for `consume`; returns the diff ID and the result. Reads the input to its end.
pub(super) fn read_tar<R: Read + 'static, T>(
    input: &Rc<RefCell<R>>,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<(Digest, T)> {
    let result = decompress(input, consume);
    if result.as_ref().is_err_and(|error| error.kind() == Kind::BadInput) {
        // Read the rest, so that a wrong digest is reported instead of this error.
        io::copy(&mut Handle(input.clone()), &mut io::sink()).map_err(undecodable)?;
    }
    result
}
