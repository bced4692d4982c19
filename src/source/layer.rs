//! One layer on its way into the store: digest, size and diff ID are verified in the same pass.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::origin::Origin;
use crate::error::{Context, Error, Kind, Result};
use crate::layer::compress::decoder;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, DigestWriter, Layer};
use crate::progress::{Event, Reporter};
use crate::store::{BlobWriter, Store};

/// A layer's tar is never larger, in bytes: what inflates to more is an attack.
const MAX_TAR: u64 = 1 << 40;
/// How often progress is told, in bytes.
const STRIDE: u64 = 1 << 20;

/// What the transfers of one pull share.
pub(super) struct Transfers<'a> {
    pub(super) origin: &'a dyn Origin,
    pub(super) store: &'a Store,
    pub(super) reporter: &'a dyn Reporter,
    /// Set when one has failed, so that the others stop.
    pub(super) stop: AtomicBool,
}

/// A verified layer that isn't a blob yet.
pub(super) struct Fetched {
    writer: BlobWriter,
    descriptor: Descriptor,
    diff_id: Digest,
}

impl Fetched {
    /// Makes it one.
    pub(super) fn publish(self, store: &Store) -> Result<()> {
        let Descriptor { digest, size, .. } = self.descriptor;
        self.writer.finish_expecting(digest, size)?;
        store.note_diff_id(&digest, &self.diff_id)
    }
}

impl Transfers<'_> {
    /// Brings one layer; `None` if the store has it, verified.
    pub(super) fn fetch(&self, layer: &Layer) -> Result<Option<Fetched>> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        if self.store.blob_size(&digest) == Some(size) {
            if self.store.noted_diff_id(&digest) == Some(layer.diff_id) {
                return Ok(None);
            }
            // One that is damaged is fetched again.
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
        let id = descriptor.digest.short();
        let tell = |done| {
            self.reporter.event(Event::Transfer { id: &id, done, total: Some(descriptor.size) });
        };
        tell(0);
        let tee = Rc::new(RefCell::new(Tee {
            input: self.origin.blob(descriptor)?,
            output: self.store.blob_writer()?,
            done: 0,
            failure: None,
        }));
        let mut told = 0;
        let result = hash(tee.clone(), compression(layer)?, &mut || {
            let done = tee.borrow().done;
            if done >= told + STRIDE {
                told = done;
                tell(done);
            }
            match self.stop.load(Ordering::Relaxed) {
                true => Err(Error::new(Kind::Interrupted, "another layer has failed")),
                false => Ok(()),
            }
        });
        let tee = Rc::into_inner(tee).expect("the decoder is gone").into_inner();
        // A decoder may have wrapped what really happened.
        let diff_id = match tee.failure {
            Some(Failure::Read(error)) => return Err(self.origin.read_error(error)),
            Some(Failure::Write(error)) => {
                return Err(Error::io("write to", self.store.root(), error));
            }
            None => result?,
        };
        check(layer, diff_id)?;
        self.reporter.event(Event::TransferDone(&id));
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

/// The diff ID of a layer in the store, whose blob is verified too.
fn stored_diff_id(store: &Store, layer: &Layer) -> Result<Digest> {
    let reader = Rc::new(RefCell::new(store.blob_reader(&layer.descriptor)?));
    hash(reader, compression(layer)?, &mut || Ok(()))
}

/// Decompresses `input` and gives the digest of the tar. All of `input` is read, so that a reader that
/// verifies has done so. `at_each` is called for each piece and may stop the work.
fn hash<R: Read + 'static>(
    input: Rc<RefCell<R>>,
    compression: Compression,
    at_each: &mut dyn FnMut() -> Result<()>,
) -> Result<Digest> {
    let bad = |error| Error::bad_input("the layer can't be decompressed").source(error);
    let mut tar = decoder(Handle(input.clone()), compression)?;
    let mut hasher = DigestWriter::new(io::sink());
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let n = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // If the blob isn't what its digest says, that is what to tell.
                drop(tar);
                io::copy(&mut Handle(input), &mut io::sink()).map_err(bad)?;
                return Err(bad(error));
            }
        };
        size += n as u64;
        if size > MAX_TAR {
            return Err(Error::bad_input(format!(
                "the layer inflates to more than {MAX_TAR} bytes"
            )));
        }
        hasher.write_all(&buffer[..n]).expect("a sink takes all");
        at_each()?;
    }
    drop(tar);
    io::copy(&mut Handle(input), &mut io::sink()).map_err(bad)?;
    Ok(hasher.finish().1)
}

/// A reader that others hold too.
struct Handle<R>(Rc<RefCell<R>>);

impl<R: Read> Read for Handle<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buf)
    }
}

/// Copies what is read into a blob, and keeps the first failure.
struct Tee {
    input: Box<dyn Read + Send>,
    output: BlobWriter,
    done: u64,
    failure: Option<Failure>,
}

enum Failure {
    Read(io::Error),
    Write(io::Error),
}

impl Read for Tee {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let failed = || io::Error::other("the transfer has failed");
        if self.failure.is_some() {
            return Err(failed());
        }
        let n = match self.input.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.failure = Some(Failure::Read(error));
                return Err(failed());
            }
            Ok(n) => n,
        };
        if let Err(error) = self.output.write_all(&buf[..n]) {
            self.failure = Some(Failure::Write(error));
            return Err(failed());
        }
        self.done += n as u64;
        Ok(n)
    }
}
