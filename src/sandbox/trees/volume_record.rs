//! The record of a volume: when it was created, and for which service and setup. It is next to the volume's data, where
//! no container can reach it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::directories::VOLUMES;
use crate::error::{Error, IoContext, Result};
use crate::sandbox::create::Sandbox;

const FILE: &str = "volume.json";
/// Maximum size of a record, in bytes.
const MAX_RECORD: u64 = 64 << 10;

/// The record of a volume. It holds no secret, and nothing that is derived from one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    /// The version of this file's format.
    pub format: u32,
    /// When the volume was created; seconds since 1970.
    pub created: i64,
    /// The service that it was created for.
    pub service: Option<String>,
    /// The image of that service.
    pub instance: Option<String>,
    /// The random id of the setup whose secrets that service had.
    pub setup: Option<String>,
}

impl VolumeRecord {
    /// The record of a volume that belongs to no setup.
    pub(crate) fn new(created: i64) -> VolumeRecord {
        VolumeRecord { format: 1, created, service: None, instance: None, setup: None }
    }

    /// Reads the record of the volume at `dir`; for a volume of an earlier version, which has none, only the time of
    /// creation is known.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is damaged,
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn read(dir: &Path) -> Result<VolumeRecord> {
        let path = dir.join(FILE);
        let mut text = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Nothing else changes this directory after the creation.
                let found = fs::symlink_metadata(dir).io("stat", dir)?;
                return Ok(VolumeRecord::new(found.mtime()));
            }
            other => other.io("open", &path)?.take(MAX_RECORD).read_to_end(&mut text),
        }
        .io("read", &path)?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::bad_input(format!("the volume's record {} is damaged", path.display()))
                .source(error)
                .hint("remove that file: the volume then counts as one of an unknown setup")
        })
    }

    /// Writes the record into `dir`, the directory of a new volume.
    pub(in crate::sandbox) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("a record is plain data");
        let mut file = match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            other => other.io("create", &path)?,
        };
        file.write_all(&text).io("write", &path)?;
        file.sync_all().io("sync", &path)
    }
}

impl Sandbox {
    /// Reads the record of a volume; `None` if there is no such volume.
    ///
    /// # Errors
    /// As [`VolumeRecord::read`].
    pub(crate) fn volume_record(&self, name: &str) -> Result<Option<VolumeRecord>> {
        let dir = self.layer_store().join(VOLUMES).join(name);
        if !dir.exists() {
            return Ok(None);
        }
        VolumeRecord::read(&dir).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written_and_may_be_missing_but_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let old = VolumeRecord::read(dir.path()).unwrap();
        assert!(old.created > 0 && old.setup.is_none());
        let record = VolumeRecord {
            service: Some("a".into()),
            setup: Some("x".into()),
            ..VolumeRecord::new(5)
        };
        record.write(dir.path()).unwrap();
        assert_eq!(VolumeRecord::read(dir.path()).unwrap(), record);
        // The first record stays.
        VolumeRecord::new(6).write(dir.path()).unwrap();
        assert_eq!(VolumeRecord::read(dir.path()).unwrap(), record);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(VolumeRecord::read(dir.path()).is_err());
    }
}
