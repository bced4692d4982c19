//! Images in a tar archive of a layout, as written by `skopeo copy … oci-archive:FILE` and `podman save`.

use std::io::{self, Read};

use super::image_source::ImageSource;
use super::oci_layout::damaged;
use super::tarball::Tarball;
use crate::error::{Error, Result};
use crate::oci::json::{MAX_MANIFEST, parse};
use crate::oci::layout::{MAX_INDEX, check_marker, find, index_entries};
use crate::oci::{Descriptor, DigestReader, Platform};

/// The file that identifies an archive of a layout.
pub(super) const INDEX: &str = "index.json";

/// An archive, and the chosen image.
pub(super) struct OciArchiveSource<'a> {
    tar: &'a Tarball,
    entries: Vec<Descriptor>,
    reference: Option<String>,
}

impl<'a> OciArchiveSource<'a> {
    pub(super) fn open(tar: &'a Tarball, reference: Option<&str>) -> Result<Self> {
        let shown = tar.path().display();
        let small = |name: &str, max: u64| -> Result<Vec<u8>> {
            tar.read_small(name, max)?.ok_or_else(|| {
                Error::bad_input(format!(
                    "{shown} has no {name}: it is not an archive of an OCI layout"
                ))
                .hint("for an archive of docker save, write docker-archive:FILE")
            })
        };
        check_marker(&small("oci-layout", 4096)?, tar.path())?;
        let name = format!("{shown}: {INDEX}");
        let index = parse(&small(INDEX, MAX_INDEX)?, &name)?;
        let entries = index_entries(&index, &name)?;
        Ok(OciArchiveSource { tar, entries, reference: reference.map(str::to_owned) })
    }

    /// Opens the archive with `entry` as the chosen image.
    pub(super) fn of_entry(tar: &'a Tarball, entry: Descriptor) -> Self {
        OciArchiveSource { tar, entries: vec![entry], reference: None }
    }

    /// Returns the entries of the index.
    pub(super) fn entries(&self) -> &[Descriptor] {
        &self.entries
    }
}

impl ImageSource for OciArchiveSource<'_> {
    fn root(&self, platform: &Platform) -> Result<(Descriptor, Vec<u8>)> {
        let reference = self.reference.as_deref();
        let descriptor = find(&self.entries, reference, platform, self.tar.path())?;
        let bytes = self.manifest(&descriptor)?;
        Ok((descriptor, bytes))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.read(descriptor, MAX_MANIFEST)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let Descriptor { digest, size, .. } = *descriptor;
        let shown = self.tar.path().display();
        let bad = |why: String| Error::bad_input(format!("the blob {digest} in {shown} {why}"));
        let span = self.tar.find(&format!("blobs/sha256/{}", digest.hex()));
        let span = span.ok_or_else(|| bad("is missing".into()))?;
        if span.size != size {
            return Err(bad(format!("has {} bytes, not {size}", span.size)));
        }
        Ok(Box::new(DigestReader::expecting(self.tar.section(span), digest, Some(size))))
    }

    fn read_error(&self, error: io::Error) -> Error {
        damaged(error, self.tar.path())
    }
}
