//! Images of registries.

use std::io::{self, Read};

use super::origin::Origin;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, DigestReader, Platform, Reference};
use crate::registry::{Client, read_error};

/// A repository of a registry.
pub(super) struct Docker {
    client: Client,
    reference: Reference,
}

impl Docker {
    pub(super) fn new(client: Client, reference: &Reference) -> Self {
        Docker { client, reference: reference.clone() }
    }
}

impl Origin for Docker {
    fn root(&self, _: &Platform) -> Result<(Descriptor, Vec<u8>)> {
        let raw = self.client.manifest(&self.reference)?;
        Ok((Descriptor::new(&raw.media_type, raw.digest, raw.bytes.len() as u64), raw.bytes))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let reference = self.reference.at_digest(descriptor.digest);
        let raw = self.client.manifest(&reference)?;
        if raw.bytes.len() as u64 != descriptor.size {
            return Err(Error::registry(format!(
                "{reference} has {} bytes and not {} as its index says",
                raw.bytes.len(),
                descriptor.size
            )));
        }
        Ok(raw.bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let Descriptor { digest, size, .. } = *descriptor;
        let blob = self.client.blob(&self.reference, &digest, size)?;
        Ok(Box::new(DigestReader::expecting(blob, digest, Some(size))))
    }

    fn read_error(&self, error: io::Error) -> Error {
        read_error(error)
    }
}
