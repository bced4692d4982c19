//! Checking the whole store: every blob, size, digest, tag, diff ID, note, state and unpacked layer.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::layer::compress::decoder;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, DigestReader, Layer};
use crate::progress::Reporter;
use crate::sandbox::Sandbox;
use crate::service::State;
use crate::store::Store;

/// Something in the store that isn't as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The tag, or the path from the store's directory.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The names in the store's directory.
const NAMES: [&str; 9] =
    ["lock", "blobs", "diff-ids", "homes", "tags", "tmp", "instances", "logs", "trees"];

/// Reads everything in the store and gives all that is wrong with it. Other processes may use it meanwhile:
/// none of them removes a blob as long as `store` is open.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage) if a directory can't be read.
pub fn check_store(store: &Store, reporter: &dyn Reporter) -> Result<Vec<Fault>> {
    let mut check = Check { store, faults: Vec::new(), whole: HashSet::new() };
    check.strays()?;
    reporter.step("checking the blobs");
    check.blobs()?;
    reporter.step("checking the images");
    check.tags()?;
    reporter.step("checking what belongs to the images");
    check.notes()?;
    check.instances()?;
    check.unpacked()?;
    check.faults.sort_by(|a, b| (&a.what, &a.problem).cmp(&(&b.what, &b.problem)));
    Ok(check.faults)
}

struct Check<'a> {
    store: &'a Store,
    faults: Vec<Fault>,
    /// The blobs whose content has their digest.
    whole: HashSet<Digest>,
}

impl Check<'_> {
    fn fault(&mut self, what: impl Into<String>, problem: impl Into<String>) {
        self.faults.push(Fault { what: what.into(), problem: problem.into() });
    }

    /// What has no place where it is.
    fn strays(&mut self) -> Result<()> {
        for name in names(self.store.root())? {
            if !NAMES.contains(&&*name) {
                self.fault(name, "is nothing of a store's");
            }
        }
        for name in names(&self.store.root().join("blobs"))? {
            if name != "sha256" {
                self.fault(format!("blobs/{name}"), "is nothing of a store's");
            }
        }
        let mode = fs::metadata(self.store.root()).io("look at", self.store.root())?.mode() & 0o777;
        if mode & 0o077 != 0 {
            self.fault(".", format!("has the mode {mode:o}: others may look in"));
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for name in names(&self.store.root().join("blobs/sha256"))? {
            interrupt::check()?;
            let what = format!("blobs/sha256/{name}");
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else {
                self.fault(what, "is not named as a blob");
                continue;
            };
            if self.store.blob_size(&digest).is_none() {
                self.fault(what, "is not a file");
                continue;
            }
            match DigestReader::new(self.store.open_blob(&digest)?).drain() {
                Ok((found, _)) if found == digest => drop(self.whole.insert(digest)),
                Ok((found, _)) => self.fault(what, format!("is damaged: its digest is {found}")),
                Err(error) => self.fault(what, format!("can't be read: {error}")),
            }
        }
        Ok(())
    }

    fn tags(&mut self) -> Result<()> {
        let mut seen = HashSet::new();
        let mut layers = HashSet::new();
        for record in self.store.tags()? {
            interrupt::check()?;
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    self.fault("tags", error.to_string());
                    continue;
                }
            };
            if let Err(error) = record.reference() {
                self.fault(&record.name, error.to_string());
            }
            let Descriptor { digest, size, .. } = record.manifest;
            if let Some(found) = self.store.blob_size(&digest).filter(|found| *found != size) {
                let text = format!("says that its manifest has {size} bytes; it has {found}");
                self.fault(&record.name, text);
            }
            if !seen.insert(digest) {
                continue;
            }
            if let Err(error) = self.store.reach_of(&record.manifest) {
                self.fault(&record.name, error.to_string());
            } else if let Ok(image) = self.store.load_image(&record.manifest) {
                for layer in image.layers() {
                    let new = layers.insert((layer.descriptor.digest, layer.diff_id));
                    self.layer(&record.name, layer, new);
                }
            }
        }
        Ok(())
    }

    /// Whether an image has its layer; the diff ID is worked out if it is `new`.
    fn layer(&mut self, tag: &str, layer: &Layer, new: bool) {
        let Descriptor { digest, size, .. } = layer.descriptor;
        match self.store.blob_size(&digest) {
            None => self.fault(tag, format!("lacks its layer {digest}")),
            Some(found) if found != size => {
                self.fault(tag, format!("its layer {digest} has {found} bytes, not {size}"));
            }
            // The blob itself is told of already.
            Some(_) if !new || !self.whole.contains(&digest) => {}
            Some(_) => match diff_id(self.store, layer) {
                Ok(found) if found == layer.diff_id => {
                    if self.store.noted_diff_id(&digest).is_some_and(|noted| noted != found) {
                        let what = format!("diff-ids/{}", digest.hex());
                        self.fault(what, "is not the diff ID of that layer");
                    }
                }
                Ok(found) => {
                    let text = format!("uncompressed, its layer {digest} is {found}");
                    self.fault(tag, format!("{text}, not {} as the config says", layer.diff_id));
                }
                Err(error) => self.fault(tag, error.to_string()),
            },
        }
    }

    fn notes(&mut self) -> Result<()> {
        for notes in ["diff-ids", "homes"] {
            for name in names(&self.store.root().join(notes))? {
                if format!("sha256:{name}").parse::<Digest>().is_err() {
                    self.fault(format!("{notes}/{name}"), "is not named as a blob");
                }
            }
        }
        Ok(())
    }

    fn instances(&mut self) -> Result<()> {
        let dir = self.store.root().join("instances");
        for name in names(&dir)? {
            let what = format!("instances/{name}");
            let path = dir.join(&name);
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if !found.is_file() || found.mode() & 0o077 != 0 {
                self.fault(&what, "is not a file that its owner alone can read");
            }
            let config = name.strip_suffix(".json").map(|hex| format!("sha256:{hex}"));
            if config.is_none_or(|config| config.parse::<Digest>().is_err()) {
                self.fault(&what, "is not named for an image's config");
            }
            let text = fs::read(&path).unwrap_or_default();
            if serde_json::from_slice::<State>(&text).is_err() {
                self.fault(&what, "is damaged");
            }
        }
        Ok(())
    }

    /// Whether each unpacked layer was published whole.
    fn unpacked(&mut self) -> Result<()> {
        let trees = self.store.root().join("trees");
        for tree in Sandbox::unpacked(&trees)?.iter().filter(|tree| !tree.is_scratch()) {
            let what = tree.path();
            let what = what.strip_prefix(self.store.root()).unwrap_or(&what).display().to_string();
            if !tree.is_whole() {
                self.fault(what, "is not an unpacked layer, or a part of it is gone");
            }
        }
        Ok(())
    }
}

fn diff_id(store: &Store, layer: &Layer) -> Result<Digest> {
    let blob = store.blob_reader(&layer.descriptor)?;
    let tar = decoder(blob, Compression::of_layer(&layer.descriptor.media_type)?)?;
    let name = format!("layer {}", layer.descriptor.digest);
    DigestReader::new(tar).drain().map(|(digest, _)| digest).io("read", name)
}

/// The names in a directory, sorted; none if there is no such directory.
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
