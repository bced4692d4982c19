//! The state of an instance: data needed to run it that does not belong in an image, above all secrets.
//!
//! The store has one file (mode 0600) per instance, named after the digest of the image's config, so that the state is
//! still found after tagging, saving and loading the image.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, Digest, Image, Reference};
use crate::pack::Answers;
use crate::secret::Secret;
use crate::store::{Marked, Store};

/// The state of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InstanceState {
    /// The version of this file's format.
    pub format: u32,
    /// The tag that the instance was set up as.
    pub name: String,
    /// When the instance was set up; seconds since 1970.
    pub created: i64,
    /// A random id of the secrets: setups with the same secrets share it. Missing in states of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// The secrets, in the pack's order.
    pub secrets: Vec<(String, Secret)>,
    /// The pack's environment, in its order, with `%IP` unexpanded.
    pub env: Vec<(String, String)>,
}

/// A written state, which is rolled back if the operation fails.
#[derive(Debug)]
pub(crate) struct SavedInstanceState {
    path: PathBuf,
    previous: Option<Vec<u8>>,
}

impl InstanceState {
    /// The state of an instance that has just been set up.
    pub(crate) fn new(
        tag: &Reference,
        answers: &Answers,
        (secrets, setup): (Vec<(String, Secret)>, String),
        source_date_epoch: Option<i64>,
    ) -> InstanceState {
        InstanceState {
            format: 1,
            name: tag.tagged(),
            created: source_date_epoch.unwrap_or_else(|| jiff::Timestamp::now().as_second()),
            setup: Some(setup),
            secrets,
            env: answers.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
        }
    }

    /// Writes the state of the image to the store.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn save(&self, store: &Store, image: &Image) -> Result<SavedInstanceState> {
        let path = path(store, image.encode().config_descriptor.digest);
        let dir = store.layout().instances();
        let previous = std::fs::read(&path).ok();
        let staging = store.stage()?;
        let mut file =
            NamedTempFile::new_in(staging.path()).io("create a file in", staging.path())?;
        let text = serde_json::to_vec_pretty(self).expect("a state is plain data");
        file.write_all(&text).io("write", &path)?;
        file.as_file().sync_all().io("sync", &path)?;
        file.persist(&path).map_err(|error| Error::io("write", &path, error.error))?;
        std::fs::File::open(&dir).and_then(|dir| dir.sync_all()).io("sync", &dir)?;
        Ok(SavedInstanceState { path, previous })
    }

    /// Loads the state of the instance whose image's manifest is `descriptor`, if the store has one.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image or the state is damaged.
    pub(crate) fn load(store: &Store, descriptor: &Descriptor) -> Result<Option<InstanceState>> {
        let manifest = store.load_manifest(descriptor)?;
        let path = path(store, manifest.config.digest);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.io("read", &path)?,
        };
        let state: InstanceState = serde_json::from_slice(&text).map_err(|error| {
            Error::bad_input(format!("the instance's state {} is damaged", path.display()))
                .source(error)
        })?;
        Ok(Some(state))
    }
}

impl InstanceState {
    /// Returns the states of all instances, each with the name of its file; skips damaged ones.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn all(store: &Store) -> Result<Vec<(String, InstanceState)>> {
        let dir = store.layout().instances();
        let mut states = Vec::new();
        for entry in std::fs::read_dir(&dir).io("list", &dir)? {
            let entry = entry.io("list", &dir)?;
            let Ok(text) = std::fs::read(entry.path()) else { continue };
            let Ok(state) = serde_json::from_slice::<InstanceState>(&text) else { continue };
            states.push((entry.file_name().to_string_lossy().into_owned(), state));
        }
        // Those with an id of their own first.
        states.sort_by(|(a, x), (b, y)| (x.setup.is_none(), a).cmp(&(y.setup.is_none(), b)));
        Ok(states)
    }
}

/// Lists the state files of instances that no tag refers to any more: their secrets are of no use.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn unreferenced_states(store: &Store, marked: &Marked) -> Result<Vec<PathBuf>> {
    let referenced: HashSet<PathBuf> = marked.configs.iter().map(|id| path(store, *id)).collect();
    let dir = store.layout().instances();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).io("list", &dir)? {
        let file = entry.io("list", &dir)?.path();
        if !referenced.contains(&file) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

impl SavedInstanceState {
    /// Rolls back to the previous state.
    pub(crate) fn undo(self) {
        // The caller reports the failure that led here.
        let _ = match self.previous {
            None => std::fs::remove_file(self.path),
            Some(previous) => std::fs::write(self.path, previous),
        };
    }
}

fn path(store: &Store, config: Digest) -> PathBuf {
    store.layout().instance(&config)
}
