//! Writes to an image layout, keeping it valid at every instant, with its other names.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::descriptor::REF_NAME;
use super::json::canonical;
use super::layout::{INDEX_FILE, Layout, MARKER, MARKER_CONTENT, empty_index, named};
use super::{Descriptor, DigestReader, Reference};
use crate::error::{Error, IoContext, Result};

/// The directory of the blobs.
const BLOBS: &str = "blobs/sha256";

/// The prefix of temporary files in a layout; the next writer sweeps those of killed writers.
const TEMPORARY: &str = ".svp-";

/// Writes one image to a layout. Nothing is visible before [`LayoutWriter::commit`]; dropped earlier, it removes
/// everything that it wrote. Holds the layout's lock, which serialises writers.
#[derive(Debug)]
pub struct LayoutWriter {
    layout: Layout,
    /// The paths to remove unless committed, in order of creation.
    made: Vec<PathBuf>,
    _lock: File,
}

/// Refuses a `path` that [`LayoutWriter::begin`] would refuse, before any work is done.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is neither an empty directory nor a layout that svp
/// supports.
pub fn check_target(path: &Path) -> Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("open", path, error)),
        Ok(lock) => {
            // Another process may be creating the layout.
            lock.lock_shared().io("lock", path)?;
            check_locked(path).map(drop)
        }
    }
}

/// Returns whether the layout must be created.
fn check_locked(path: &Path) -> Result<bool> {
    if !path.is_dir() {
        return Err(refusal(path, "not a directory"));
    }
    let marked = match fs::symlink_metadata(path.join(MARKER)) {
        Ok(_) => Some(Layout::open(path)?),
        Err(_) => None,
    };
    if is_unmade(path)? {
        return Ok(true);
    }
    match marked {
        Some(layout) => layout.index_json().map(|_| false),
        None => Err(refusal(path, "neither empty nor an OCI image layout")),
    }
}

impl LayoutWriter {
    /// Locks the layout at `path`, creating it if necessary.
    ///
    /// # Errors
    /// As [`check_target`]; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn begin(path: &Path) -> Result<Self> {
        loop {
            let undo = Undo(make_dirs(path)?);
            let lock = File::open(path).io("open", path)?;
            lock.lock().io("lock", path)?;
            // The previous lock holder may have removed a layout that it had created.
            let held = lock.metadata().io("stat", path)?;
            match fs::metadata(path) {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                    return Self::under_lock(path, lock, undo);
                }
                _ => continue,
            }
        }
    }

    fn under_lock(path: &Path, lock: File, mut undo: Undo) -> Result<Self> {
        if check_locked(path)? {
            undo.0.push(path.join(MARKER));
            replace(path, MARKER, MARKER_CONTENT)?;
            undo.0.extend(make_dirs(&path.join(BLOBS))?);
            // Last: a layout with an index is complete.
            undo.0.push(path.join(INDEX_FILE));
            replace(path, INDEX_FILE, &canonical(&empty_index()))?;
        }
        let layout = Layout::open(path)?;
        sweep(path)?;
        Ok(LayoutWriter { layout, made: undo.defuse(), _lock: lock })
    }

    /// Copies and verifies a blob. Keeps an existing intact one.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if `content` does not match the descriptor;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn put_blob(&mut self, descriptor: &Descriptor, content: impl Read) -> Result<()> {
        if self.layout.open_blob(descriptor).is_ok_and(|blob| blob.drain().is_ok()) {
            return Ok(());
        }
        let dir = self.layout.path().join(BLOBS);
        self.made.extend(make_dirs(&dir)?);
        let target = self.layout.blob_path(&descriptor.digest);
        let mut file = temporary(self.layout.path())?;
        let mut content =
            DigestReader::expecting(content, descriptor.digest, Some(descriptor.size));
        io::copy(&mut content, &mut file).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                Error::bad_input(format!("the blob {} is damaged", descriptor.digest)).source(error)
            }
            _ => Error::io("write", &target, error),
        })?;
        file.as_file().sync_all().io("sync", &target)?;
        let new = fs::symlink_metadata(&target).is_err();
        file.persist(&target).map_err(|error| Error::io("write", &target, error.error))?;
        if new {
            self.made.push(target);
        }
        sync(&dir)
    }

    /// Adds the manifest `descriptor` to the index under the name `reference` (its tag, by default `latest`), or under
    /// the name in the descriptor, replacing an entry of that name. Keeps everything else in the index.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the index is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn commit(mut self, descriptor: &Descriptor, reference: &Reference) -> Result<()> {
        let path = self.layout.path();
        let mut index = self.layout.index_json()?;
        let entry = named(descriptor, reference);
        let mut list = match index["manifests"].take() {
            Value::Array(list) => list,
            _ => Vec::new(),
        };
        list.retain(|other| other["annotations"][REF_NAME] != json!(entry.ref_name()));
        list.push(json!(entry));
        index["manifests"] = Value::Array(list);
        replace(path, INDEX_FILE, &canonical(&index))?;
        self.made.clear();
        Ok(())
    }

    /// Returns the number of names in the layout, except the new one.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the index is damaged.
    pub fn other_names(&self, descriptor: &Descriptor, reference: &Reference) -> Result<usize> {
        let new = named(descriptor, reference);
        let entries = self.layout.entries()?;
        Ok(entries.iter().filter(|d| d.ref_name() != new.ref_name()).count())
    }
}

impl Drop for LayoutWriter {
    fn drop(&mut self) {
        drop(Undo(std::mem::take(&mut self.made)));
    }
}

/// Removes the listed paths on drop, in reverse order. Keeps directories that aren't empty.
struct Undo(Vec<PathBuf>);

impl Undo {
    fn defuse(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Best effort: a later command removes the rest.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

/// Creates `path` and its parents; returns the new directories, outermost first.
fn make_dirs(path: &Path) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for dir in path.ancestors() {
        if dir.as_os_str().is_empty() || dir.exists() {
            break;
        }
        missing.push(dir.to_owned());
    }
    missing.reverse();
    let mut undo = Undo(Vec::new());
    for dir in missing {
        match fs::create_dir(&dir) {
            Ok(()) => undo.0.push(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", &dir, error)),
        }
    }
    Ok(undo.defuse())
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

/// Returns whether the directory is empty, apart from the remains of a writer that was killed while creating it.
fn is_unmade(path: &Path) -> Result<bool> {
    let mut blobs = false;
    for entry in fs::read_dir(path).io("list", path)? {
        let name = entry.io("list", path)?.file_name();
        blobs |= name == "blobs";
        if name != MARKER && name != "blobs" && !is_temporary(&name) {
            return Ok(false);
        }
    }
    // Other blobs are not a writer's remains: it writes the index before any blob.
    Ok(!blobs || (path.join(MARKER).exists() && has_no_blobs(path)?))
}

/// Returns whether the blob directories are empty or missing.
fn has_no_blobs(path: &Path) -> Result<bool> {
    for (dir, allowed) in [(path.join("blobs"), "sha256"), (path.join(BLOBS), "")] {
        match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => {
                let mut others = found.io("list", &dir)?.flatten().map(|entry| entry.file_name());
                if others.any(|name| name != allowed) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Removes the remains of killed writers; holding the lock, no other writer is alive.
fn sweep(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).io("list", path)? {
        let entry = entry.io("list", path)?;
        if is_temporary(&entry.file_name()) {
            // Best effort: a later command removes the rest.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn temporary(dir: &Path) -> Result<NamedTempFile> {
    // Readable by all, as far as the umask allows, as other tools write them.
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .io("create a file in", dir)
}

/// Writes `dir/name` atomically.
fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let target = dir.join(name);
    let mut file = temporary(dir)?;
    file.write_all(content).io("write", &target)?;
    file.as_file().sync_all().io("sync", &target)?;
    file.persist(&target).map_err(|error| Error::io("write", &target, error.error))?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).io("sync", dir)
}

fn refusal(path: &Path, why: &str) -> Error {
    Error::bad_input(format!("{} is {why}", path.display()))
        .hint("name a directory that doesn't exist, an empty one, or an OCI image layout")
}
