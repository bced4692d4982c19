//! Images in an OCI layout.

use std::io::{self, Read};
use std::path::Path;

use super::image_source::ImageSource;
use crate::error::{Error, Result};
use crate::oci::json::MAX_MANIFEST;
use crate::oci::{Descriptor, Layout, Platform};

/// A layout, and the chosen image.
pub(super) struct OciLayoutSource {
    layout: Layout,
    reference: Option<String>,
}

impl OciLayoutSource {
    pub(super) fn open(dir: &Path, reference: Option<&str>) -> Result<Self> {
        Ok(OciLayoutSource { layout: Layout::open(dir)?, reference: reference.map(str::to_owned) })
    }
}

impl ImageSource for OciLayoutSource {
    fn root(&self, platform: &Platform) -> Result<(Descriptor, Vec<u8>)> {
        let descriptor = self.layout.find(self.reference.as_deref(), platform)?;
        let bytes = self.manifest(&descriptor)?;
        Ok((descriptor, bytes))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.layout.read_blob(descriptor, MAX_MANIFEST)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.layout.open_blob(descriptor)?))
    }

    fn read_error(&self, error: io::Error) -> Error {
        damaged(error, self.layout.path())
    }
}

/// Converts a failure to read a blob of a layout: damaged content, or an I/O error.
pub(super) fn damaged(error: io::Error, path: &Path) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::bad_input("the blob is damaged")
            .source(error)
            .hint(format!("write {} again", path.display())),
        _ => Error::io("read", path, error),
    }
}
