//! The interface of image sources.

use std::io::{self, Read};

use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Platform, Reference};

/// An open source: serves documents and blobs to several threads at once.
pub(super) trait ImageSource: Sync {
    /// Returns the manifest or index that the source names, with its bytes. For a layout with several
    /// platforms under one name, `platform` decides.
    fn root(&self, platform: &Platform) -> Result<(Descriptor, Vec<u8>)>;

    /// Reads a manifest or an index that an index names, and verifies it.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;

    /// Opens a blob; the reader fails at its end unless size and digest match.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>>;

    /// Converts a failure to read a blob.
    fn read_error(&self, error: io::Error) -> Error;

    /// Returns the registry repository that served the blobs, if the source is a registry.
    fn location(&self) -> Option<Reference> {
        None
    }

    /// Reads a small blob and verifies it.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the blob has more than `max` bytes; else as converted by
    /// [`ImageSource::read_error`].
    fn read(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        let Descriptor { digest, size, .. } = *descriptor;
        if size > max {
            return Err(Error::bad_input(format!("the blob {digest} has more than {max} bytes")));
        }
        let mut bytes = Vec::new();
        // The stream ends at the descriptor's size.
        let name = || format!("blob {digest}");
        let mut blob = self.blob(descriptor).map_err(|error| match error.kind() {
            // A registry's error does not name the blob.
            Kind::Registry => error.context(name()),
            _ => error,
        })?;
        let read = blob.read_to_end(&mut bytes);
        read.map_err(|error| self.read_error(error).context(name()))?;
        Ok(bytes)
    }
}
