//! Finds the service that a command names.

use std::path::PathBuf;

use crate::error::Result;
use crate::service::service_dir::ServiceDir;
use crate::store::Store;

/// Opens an existing service; returns it with the root of its store.
pub(super) fn find(name: &str) -> Result<(PathBuf, ServiceDir)> {
    let root = Store::default_root()?;
    let service_dir = ServiceDir::existing(&root, name)?;
    Ok((root, service_dir))
}
