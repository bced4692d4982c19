//! The directories of the layer store: creates, names and lists them.
//!
//! ```text
//! TREES/MAP/layers/CHAIN/fs       a layer unpacked for that id map, in overlayfs's format
//! TREES/MAP/layers/CHAIN/report   the attributes that the unpacked tree can't express
//! TREES/MAP/locks/CHAIN           locked while a layer is unpacked, so that only one build unpacks it
//! TREES/MAP/services/ID           a service's writes: the upper directory of its overlay
//! TREES/MAP/volumes/NAME/data     a volume
//! TREES/MAP/volumes/NAME/volume.json  its record; volumes of earlier versions have none
//! TREES/MAP/tmp/RANDOM            a build directory, locked by its command; removed once the command has ended
//! ```

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sandbox::userns::idmap::IdMap;

/// The format number in the name of every layer store: stores of another format are ignored.
pub(in crate::sandbox) const FORMAT: u32 = 1;

pub(in crate::sandbox) const LAYERS: &str = "layers";
pub(in crate::sandbox) const LOCKS: &str = "locks";
pub(in crate::sandbox) const TMP: &str = "tmp";
pub(in crate::sandbox) const SERVICES: &str = "services";
pub(in crate::sandbox) const VOLUMES: &str = "volumes";

/// Creates the layer store of an id map, owned by the container's root.
pub(in crate::sandbox) fn create_store(trees: &Path, map: &IdMap) -> Result<PathBuf> {
    let layer_store = trees.join(format!("{}-{FORMAT}", map.key()));
    DirBuilder::new().recursive(true).mode(0o700).create(trees).io("create", trees)?;
    for dir in [
        layer_store.clone(),
        layer_store.join(LAYERS),
        layer_store.join(LOCKS),
        layer_store.join(TMP),
    ] {
        create_owned_dir(&dir, map)?;
    }
    Ok(layer_store)
}

/// Creates a directory (mode 0700) owned by the container's root, unless it exists.
pub(in crate::sandbox) fn create_owned_dir(path: &Path, map: &IdMap) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", path, error));
        }
        _ => {}
    }
    let (uid, gid) = map.root();
    let found = fs::symlink_metadata(path).io("stat", path)?;
    if (found.uid(), found.gid()) != (uid, gid) {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).io("set the owner of", path)?;
    }
    Ok(())
}

/// Returns a chain ID as a file name: its first 40 hexadecimal digits.
pub(in crate::sandbox) fn key(chain_id: &Digest) -> String {
    chain_id.hex()[..40].to_owned()
}

/// Returns the names in a directory, sorted; empty if the directory is missing.
pub(in crate::sandbox) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.io("list", dir)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.io("list", dir)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
