//! The paths in a store. No other module knows the names in its directory.

use std::path::{Path, PathBuf};

use crate::oci::Digest;

const LOCK: &str = "lock";
const BLOBS: &str = "blobs";
const DIFF_IDS: &str = "diff-ids";
const BLOB_LOCATIONS: &str = "homes";
const TAGS: &str = "tags";
const TMP: &str = "tmp";
const INSTANCES: &str = "instances";
const LOGS: &str = "logs";
const SERVICES: &str = "services";
const TREES: &str = "trees";

/// The file that marks a directory as a service's, and has its record.
pub const SERVICE_RECORD: &str = "service.json";

/// The journal of a replacement of a service, in the service's directory.
pub const REPLACEMENT_JOURNAL: &str = "swap.json";

/// The paths of a store, whether they exist or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLayout {
    root: PathBuf,
}

impl StoreLayout {
    /// All names in a store's directory.
    pub const NAMES: [&str; 10] =
        [LOCK, BLOBS, DIFF_IDS, BLOB_LOCATIONS, TAGS, TMP, INSTANCES, LOGS, SERVICES, TREES];

    /// Creates the paths of the store at `root`.
    pub fn new(root: impl Into<PathBuf>) -> StoreLayout {
        StoreLayout { root: root.into() }
    }

    /// Returns the store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the lock file: locked shared while the store is in use, exclusively for garbage collection.
    pub fn lock(&self) -> PathBuf {
        self.root.join(LOCK)
    }

    /// Returns `blobs`, with a directory for each digest algorithm, as in an OCI layout.
    pub fn blobs(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    /// Returns the directory of all blobs.
    pub fn sha256(&self) -> PathBuf {
        self.blobs().join("sha256")
    }

    /// Returns the file of a blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.sha256().join(digest.hex())
    }

    /// Returns the directory of the cached diff IDs.
    pub fn diff_ids(&self) -> PathBuf {
        self.root.join(DIFF_IDS)
    }

    /// Returns the file that caches a layer's diff ID.
    pub fn diff_id(&self, layer: &Digest) -> PathBuf {
        self.diff_ids().join(layer.hex())
    }

    /// Returns the directory of the blob locations.
    pub fn blob_locations(&self) -> PathBuf {
        self.root.join(BLOB_LOCATIONS)
    }

    /// Returns the file with the repositories that had a blob.
    pub fn blob_location(&self, blob: &Digest) -> PathBuf {
        self.blob_locations().join(blob.hex())
    }

    /// Returns the directory of the tags.
    pub fn tags(&self) -> PathBuf {
        self.root.join(TAGS)
    }

    /// Returns the directory of staging directories.
    pub fn tmp(&self) -> PathBuf {
        self.root.join(TMP)
    }

    /// Returns the directory of instances' secrets and environments.
    pub fn instances(&self) -> PathBuf {
        self.root.join(INSTANCES)
    }

    /// Returns the state of the instance whose image has the config `config`.
    pub fn instance(&self, config: &Digest) -> PathBuf {
        self.instances().join(format!("{}.json", config.hex()))
    }

    /// Returns the directory of the full output of scripts.
    pub fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// Returns the directory of the services.
    pub fn services(&self) -> PathBuf {
        self.root.join(SERVICES)
    }

    /// Returns the directory of a service.
    pub fn service(&self, name: &str) -> PathBuf {
        self.services().join(name)
    }

    /// Returns the record in a service's directory.
    pub fn service_record(service: &Path) -> PathBuf {
        service.join(SERVICE_RECORD)
    }

    /// Returns the directory of the layer trees.
    pub fn trees(&self) -> PathBuf {
        self.root.join(TREES)
    }

    /// Returns the directories to create in a new store, each after its parent.
    pub(super) fn initial(&self) -> [PathBuf; 8] {
        [
            self.blobs(),
            self.sha256(),
            self.diff_ids(),
            self.blob_locations(),
            self.tags(),
            self.tmp(),
            self.instances(),
            self.logs(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_below_one_of_the_names() {
        let layout = StoreLayout::new("/s");
        let digest = Digest::of("x");
        let mut paths = vec![
            layout.lock(),
            layout.blob(&digest),
            layout.diff_id(&digest),
            layout.blob_location(&digest),
            layout.instance(&digest),
            layout.service("a"),
            layout.trees(),
        ];
        paths.extend(layout.initial());
        for path in paths {
            let below = path.strip_prefix("/s").unwrap();
            let first = below.iter().next().unwrap().to_str().unwrap();
            assert!(StoreLayout::NAMES.contains(&first), "{}", path.display());
        }
    }
}
