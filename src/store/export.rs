//! Writing an image of the store into an OCI image layout.

use super::Store;
use crate::error::{Context, Result};
use crate::oci::{Descriptor, LayoutWriter, Reference};
use std::path::Path;

impl Store {
    /// Writes the image whose manifest is `descriptor` into the layout at `dir`, as `reference`; returns
    /// how many other names the layout has. On failure the layout is as it was.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if `dir` is neither empty nor a layout, or a blob
    /// of the image is missing or damaged; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn save_to_layout(
        &self,
        descriptor: &Descriptor,
        dir: &Path,
        reference: &Reference,
    ) -> Result<usize> {
        let mut writer = LayoutWriter::begin(dir)?;
        let write = |writer: &mut LayoutWriter| -> Result<()> {
            for blob in self.image_blobs(descriptor)? {
                writer.put_blob(&blob, self.open_blob(&blob.digest)?)?;
            }
            Ok(())
        };
        write(&mut writer).context(format!("can't write {reference} to {}", dir.display()))?;
        let others = writer.other_names(reference)?;
        writer.commit(descriptor, reference)?;
        Ok(others)
    }

    /// Everything that an image consists of: manifest, config and layers, each once.
    ///
    /// # Errors
    /// As [`Store::load_manifest`].
    pub fn image_blobs(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        let manifest = self.load_manifest(descriptor)?;
        let mut blobs: Vec<Descriptor> = Vec::new();
        for blob in [descriptor, &manifest.config].into_iter().chain(&manifest.layers) {
            if !blobs.iter().any(|b| b.digest == blob.digest) {
                blobs.push(blob.clone());
            }
        }
        Ok(blobs)
    }
}
