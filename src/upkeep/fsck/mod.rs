//! Verifies the whole store: every blob, size, digest, tag, diff ID, cached fact, state and unpacked layer.
//!
//! | file | purpose |
//! |---|---|
//! | `images` | blobs, tags, and the parts of each image |
//! | `unpacked` | unpacked layers against their blobs |

mod images;
mod unpacked;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::error::{IoContext, Result};
use crate::oci::{Descriptor, Digest};
use crate::progress::{Reporter, Step};
use crate::service::InstanceState;
use crate::store::{Staging, Store, StoreLayout};

/// A fault in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// The tag, or the path relative to the store's directory.
    pub what: String,
    /// The fault.
    pub problem: String,
    /// The way to repair it.
    pub remedy: &'static str,
}

const STRAY: &str = "does not belong in a store";

// Remedies.
const REMOVE: &str = "remove it";
const AGAIN: &str = "pull, import or build the image again, or `svp rmi` it";
const PRUNE: &str = "`svp prune`";
const UNPACK: &str = "`svp prune --unpacked`: layers are unpacked again when they are needed";

/// Verifies the whole store and returns all faults. Other processes may use it meanwhile; none can remove a blob
/// while `store` is open. Unless `quick`, unpacks every unpacked layer again for comparison, which needs
/// space for one layer at a time.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage) if a directory can't be read.
pub(crate) fn check_store(
    store: &Store,
    quick: bool,
    reporter: &dyn Reporter,
) -> Result<Vec<Fault>> {
    let mut check = Check { store, reporter, faults: Vec::new(), whole: HashSet::new() };
    check.strays()?;
    reporter.step(Step::CheckBlobs);
    check.blobs()?;
    reporter.step(Step::CheckImages);
    let images = check.tags()?;
    reporter.step(Step::CheckImageFiles);
    check.notes()?;
    check.instances()?;
    check.unpacked(if quick { &[] } else { &images })?;
    check.faults.sort_by(|a, b| (&a.what, &a.problem).cmp(&(&b.what, &b.problem)));
    Ok(check.faults)
}

struct Check<'a> {
    store: &'a Store,
    reporter: &'a dyn Reporter,
    faults: Vec<Fault>,
    /// The intact blobs.
    whole: HashSet<Digest>,
}

/// An image of the store: its manifest, and a tag or service that reaches it.
struct Reached {
    tag: String,
    manifest: Descriptor,
}

impl Check<'_> {
    fn fault(&mut self, what: impl Into<String>, problem: impl Into<String>, remedy: &'static str) {
        self.faults.push(Fault { what: what.into(), problem: problem.into(), remedy });
    }

    /// Reports files that don't belong in the store, and a store that other users can read.
    fn strays(&mut self) -> Result<()> {
        for name in names(self.store.root())? {
            if !StoreLayout::NAMES.contains(&&*name) {
                self.fault(name, STRAY, REMOVE);
            }
        }
        for name in names(&self.store.layout().blobs())? {
            if name != "sha256" {
                self.fault(format!("blobs/{name}"), STRAY, REMOVE);
            }
        }
        let tmp = self.store.layout().tmp();
        for name in names(&tmp)? {
            let path = tmp.join(&name);
            let what = format!("tmp/{name}");
            if !path.is_dir() {
                self.fault(what, STRAY, PRUNE);
            } else if matches!(Staging::lock_dead(&path), Ok(Some(_))) {
                // Opening the store removed every such directory that it could.
                self.fault(
                    what,
                    "is left over from an unfinished command and was not swept",
                    REMOVE,
                );
            }
        }
        let mode = fs::metadata(self.store.root()).io("stat", self.store.root())?.mode() & 0o777;
        if mode & 0o077 != 0 {
            self.fault(
                ".",
                format!("has mode {mode:o}: other users can read it"),
                "`chmod 700` it",
            );
        }
        Ok(())
    }

    fn notes(&mut self) -> Result<()> {
        let layout = self.store.layout();
        for dir in [layout.diff_ids(), layout.blob_locations()] {
            for name in names(&dir)? {
                if format!("sha256:{name}").parse::<Digest>().is_err() {
                    let path = dir.join(name);
                    let what = path.strip_prefix(layout.root()).unwrap_or(&path);
                    self.fault(what.display().to_string(), "is not named after a digest", PRUNE);
                }
            }
        }
        Ok(())
    }

    fn instances(&mut self) -> Result<()> {
        const SET_UP: &str =
            "`svp setup --force -i BASE -t INSTANCE` recreates the instance, with new secrets";
        let dir = self.store.layout().instances();
        for name in names(&dir)? {
            let what = format!("instances/{name}");
            let path = dir.join(&name);
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if !found.is_file() {
                self.fault(&what, "is not a file", REMOVE);
                continue;
            }
            if found.mode() & 0o077 != 0 {
                self.fault(&what, "is readable by other users", "`chmod 600` it");
            }
            let config = name.strip_suffix(".json").map(|hex| format!("sha256:{hex}"));
            if config.is_none_or(|config| config.parse::<Digest>().is_err()) {
                self.fault(&what, "is not named after an image's config", PRUNE);
            }
            let text = fs::read(&path).unwrap_or_default();
            match serde_json::from_slice::<InstanceState>(&text) {
                Err(_) => self.fault(&what, "is damaged", SET_UP),
                Ok(state) if state.format != 1 => {
                    let problem = format!("has the unknown format {}", state.format);
                    self.fault(&what, problem, "use the svp that wrote it");
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

/// Lists a directory, sorted; a missing directory is empty.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.io("list", dir)?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).io("list", dir)
    };
    let mut names = entries.map(name).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
