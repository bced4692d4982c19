//! Copies a stream to a writer while it is read, such as a layer that is stored and decompressed in one pass.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::layer::compress::{layer_decoder, zstd_permit};
use crate::oci::{Digest, DigestReader};

/// Copies the bytes read from a source to `output`, and keeps the first failure, because a decoder may wrap it.
pub(crate) struct Tee<W> {
    input: Box<dyn Read + Send>,
    /// The destination of the bytes.
    pub(crate) output: W,
    /// Bytes copied so far.
    pub(crate) done: u64,
    /// The first failure.
    pub(crate) failure: Option<Failure>,
}

/// The side of a [`Tee`] that failed, with the error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The source.
    Read(io::Error),
    /// The output.
    Write(io::Error),
}

impl<W: Write> Tee<W> {
    /// Creates a reader of `input` that copies to `output`.
    pub(crate) fn new(input: Box<dyn Read + Send>, output: W) -> Self {
        Tee { input, output, done: 0, failure: None }
    }
}

impl<W: Write> Read for Tee<W> {
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

/// A shared reader.
pub(crate) struct Handle<R>(pub(crate) Rc<RefCell<R>>);

impl<R: Read> Read for Handle<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buf)
    }
}

/// Decompresses `input` for `consume`, and returns the digest of the whole tar. Reads all of the input, so that a
/// verifying reader checks it.
pub(crate) fn decompress<R: Read + 'static, T>(
    input: &Rc<RefCell<R>>,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<(Digest, T)> {
    let (compression, tar) = layer_decoder(Handle(input.clone()))?;
    let _permit = zstd_permit(compression);
    let mut tar = DigestReader::new(tar);
    let consumed = consume(&mut tar)?;
    let (digest, _) = tar.drain().map_err(undecodable)?;
    io::copy(&mut Handle(input.clone()), &mut io::sink()).map_err(undecodable)?;
    Ok((digest, consumed))
}

/// Creates the error for a stream that can't be decompressed.
pub(crate) fn undecodable(error: io::Error) -> Error {
    Error::bad_input("the layer can't be decompressed").source(error)
}
