//! The tar of a service's writes and its volumes: maps each tree to its prefix.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::volume::volume_data;
use crate::error::{Error, Result};
use crate::layer::meta::IdRanges;
use crate::layer::read::TarReader;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;

/// The prefix of the service's writes.
pub(in crate::sandbox) const WRITES: &str = "writes/";

/// A service's writes and its volumes, to be written as one tar or filled from it.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ArchiveRequest {
    pub(in crate::sandbox) overlay: Overlay,
    /// The prefix of each volume, and its directory, relative to the layer store.
    pub(in crate::sandbox) volumes: Vec<(String, PathBuf)>,
    pub(in crate::sandbox) ids: IdRanges,
}

/// A volume and its mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchivedVolume {
    /// Its name.
    pub name: String,
    /// The mount point, absolute in the container.
    pub at: String,
}

impl ArchivedVolume {
    /// Returns the prefix in the tar: the mount point with its slashes escaped, so that no prefix contains another.
    fn prefix(&self) -> String {
        let at = self.at.trim_matches('/').replace('%', "%25").replace('/', "%2F");
        format!("volumes/{at}/")
    }
}

impl ArchiveRequest {
    pub(in crate::sandbox) fn new(
        sandbox: &Sandbox,
        overlay: &Overlay,
        volumes: Vec<&ArchivedVolume>,
    ) -> Self {
        let volumes = volumes.iter().map(|one| (one.prefix(), volume_data(&one.name))).collect();
        ArchiveRequest { overlay: overlay.clone(), volumes, ids: sandbox.id_ranges() }
    }
}

/// Reads the content of a tar's current entry.
pub(in crate::sandbox) struct Content<'a, 'b>(pub(in crate::sandbox) &'a mut TarReader<'b>);

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_content(buffer).map_err(io::Error::other)
    }
}

pub(in crate::sandbox) fn pipe() -> Result<(PipeReader, PipeWriter)> {
    io::pipe().map_err(|error| Error::sandbox("can't create a pipe").source(error))
}
