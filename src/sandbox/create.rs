//! Creates a sandbox: a user namespace, and the layer store of its id map.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::trees::directories::create_store;
use super::trees::remove::{remove, sweep};
use super::userns::idmap::IdMap;
use super::userns::namespace;
use crate::error::Result;

/// A user namespace and the layer store whose trees belong to its root.
#[derive(Debug)]
pub(crate) struct Sandbox {
    namespace: OwnedFd,
    map: IdMap,
    layer_store: PathBuf,
}

impl Sandbox {
    /// Creates the user namespace, and under `trees` the layer store of its id map; removes the build directories
    /// that killed commands left there.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with a hint, if this host does not let the caller create
    /// a user namespace; [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn create(trees: &Path) -> Result<Sandbox> {
        let map = IdMap::for_caller()?;
        let layer_store = create_store(trees, &map)?;
        let namespace = namespace::create(&map)?;
        sweep(&layer_store, namespace.as_fd());
        Ok(Sandbox { namespace, map, layer_store })
    }

    /// Creates a sandbox without a layer store, for [`Rootfs::HostTools`](super::Rootfs::HostTools) alone.
    ///
    /// # Errors
    /// As [`Sandbox::create`].
    pub(crate) fn without_layer_store() -> Result<Sandbox> {
        let map = IdMap::for_caller()?;
        let namespace = namespace::create(&map)?;
        Ok(Sandbox { namespace, map, layer_store: PathBuf::from("/") })
    }

    /// Returns the id map: the host ids that the container's ids map to.
    pub(crate) fn map(&self) -> &IdMap {
        &self.map
    }

    /// Returns the directory of the layer store.
    pub(super) fn layer_store(&self) -> &Path {
        &self.layer_store
    }

    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    pub(super) fn namespace_fd(&self) -> &OwnedFd {
        &self.namespace
    }

    /// Removes trees of the layer store, given as paths relative to it.
    pub(super) fn remove(&self, paths: Vec<String>) -> Result<()> {
        let _cleaning = crate::interrupt::cleaning();
        remove(self.layer_store(), self.namespace(), paths)
    }

    /// As [`Sandbox::remove`] for one tree, which may be missing.
    pub(super) fn remove_existing(&self, path: String) -> Result<()> {
        if !self.layer_store().join(&path).exists() {
            return Ok(());
        }
        self.remove(vec![path])
    }
}
