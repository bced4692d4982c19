//! Images in registries.

use std::io::{self, Read};

use super::image_source::ImageSource;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, DigestReader, Platform, Reference};
use crate::registry::{Remote, read_error};

/// An image in a registry or its mirrors.
pub(super) struct RegistrySource(pub(super) Remote);

impl ImageSource for RegistrySource {
    fn root(&self, _: &Platform) -> Result<(Descriptor, Vec<u8>)> {
        let raw = self.0.manifest()?;
        Ok((
            Descriptor::new(raw.media_type.as_str(), raw.digest, raw.bytes.len() as u64),
            raw.bytes,
        ))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let raw = self.0.manifest_at(descriptor.digest)?;
        if raw.bytes.len() as u64 != descriptor.size {
            return Err(Error::registry(format!(
                "the manifest {} has {} bytes, not {} as its index says",
                descriptor.digest,
                raw.bytes.len(),
                descriptor.size
            )));
        }
        Ok(raw.bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let Descriptor { digest, size, .. } = *descriptor;
        let blob = self.0.blob(&digest, size)?;
        Ok(Box::new(DigestReader::expecting(blob, digest, Some(size))))
    }

    fn location(&self) -> Option<Reference> {
        self.0.served_by().cloned()
    }

    fn read_error(&self, error: io::Error) -> Error {
        read_error(error)
    }
}
