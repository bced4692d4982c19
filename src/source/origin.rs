//! What all sources have in common once they are open.

use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Platform};

/// An open source: gives documents and blobs, by several threads at once.
pub(super) trait Origin: Sync {
    /// What the source's name stands for: a manifest or an index, and its bytes. For a layout with several
    /// platforms under one name, `platform` decides.
    fn root(&self, platform: &Platform) -> Result<(Descriptor, Vec<u8>)>;

    /// The verified bytes of a manifest or an index that an index names.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;

    /// A stream of a blob, which fails at its end unless size and digest are right.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>>;

    /// What a failure to read a blob means.
    fn read_error(&self, error: io::Error) -> Error;
}
