//! Records the repositories that have a blob, so that a push to the same registry can mount it instead of uploading.

use std::fs;
use std::io::Write;

use tempfile::NamedTempFile;

use super::Store;
use crate::error::{IoContext, Result};
use crate::oci::{Digest, Reference};

/// Number of repositories recorded for a blob.
const MOST: usize = 8;

impl Store {
    /// Returns the repositories that had the blob when it was pulled or pushed, the most recent first.
    pub fn blob_locations(&self, blob: &Digest) -> Vec<Reference> {
        let text = fs::read_to_string(self.layout.blob_location(blob)).unwrap_or_default();
        let locations = text.lines().filter_map(|line| line.parse::<Reference>().ok());
        locations.filter(|location| location.registry().is_some()).take(MOST).collect()
    }

    /// Records that the repository of `location`, which names a registry, has the blob. This is only a hint:
    /// write errors are ignored.
    pub fn add_blob_location(&self, blob: &Digest, location: &Reference) {
        let location = location.name();
        let known = self.blob_locations(blob).into_iter().map(|known| known.name());
        let known: Vec<String> = known.collect();
        if known.first() == Some(&location) {
            return;
        }
        let others = known.into_iter().filter(|known| *known != location).take(MOST - 1);
        let lines: String =
            std::iter::once(location.clone()).chain(others).map(|l| l + "\n").collect();
        // A cache: a lost entry costs an upload.
        let _ = self.write_blob_locations(blob, &lines);
    }

    fn write_blob_locations(&self, blob: &Digest, text: &str) -> Result<()> {
        let path = self.layout.blob_location(blob);
        let mut file = NamedTempFile::new_in(self.shared_staging()?).io("write", &path)?;
        file.write_all(text.as_bytes()).io("write", &path)?;
        file.persist(&path).map(drop).map_err(|error| error.error).io("write", &path)
    }

    pub(super) fn remove_blob_locations(&self, blob: &Digest) {
        // Best effort: a later command removes the rest.
        let _ = fs::remove_file(self.layout.blob_location(blob));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_locations_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blob = Digest::of("x");
        assert!(store.blob_locations(&blob).is_empty());
        for n in [1, 2, 1, 3, 4, 5, 6, 7, 8, 9, 9] {
            store
                .add_blob_location(&blob, &format!("localhost:5000/team/{n}:tag").parse().unwrap());
        }
        let locations: Vec<String> = store
            .blob_locations(&blob)
            .iter()
            .map(|location| location.repository().to_owned())
            .collect();
        assert_eq!(locations, [9, 8, 7, 6, 5, 4, 3, 1].map(|n| format!("team/{n}")));
        fs::write(store.layout().blob_location(&blob), "no registry\n/\nlocalhost:1/a\n").unwrap();
        assert_eq!(store.blob_locations(&blob).len(), 1);
    }
}
