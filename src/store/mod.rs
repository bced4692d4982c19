//! The local store: blobs in an OCI layout, one file per tag, staging directories, locks.
//!
//! ```text
//! ROOT/lock               marks a store; locked shared while in use, exclusively by garbage collection
//! ROOT/blobs/sha256/HEX   as in an OCI layout, published atomically
//! ROOT/diff-ids/HEX       cached diff ID of a layer's blob
//! ROOT/homes/HEX          registry repositories that had a blob when it was pulled or pushed
//! ROOT/tags/NAME          one small JSON file for each REPO:TAG
//! ROOT/tmp/RANDOM/        staging, each locked by its owner; swept when the owner is gone
//! ROOT/instances, logs, services, trees   belong to other modules; services are garbage collection roots
//! ```
//!
//! Every visible file is published by temporary file → fsync → rename → fsync of the directory. A process killed
//! at any instant leaves only staging behind, which the next [`Store::open`] removes. Any number of processes
//! may use a store at once.

mod blob_locations;
mod blobs;
mod by_digest;
mod collect;
mod diff_ids;
mod docker_archive;
mod export;
mod gc_roots;
mod history;
mod images;
mod info;
mod layout;
mod mark;
pub(crate) mod parallel;
mod refused;
mod staging;
mod tags;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Kind, Result};

pub use blobs::BlobWriter;
pub use collect::{Collected, Removed};
pub use diff_ids::LayerNote;
pub use export::ArchiveFormat;
pub use gc_roots::RootOwner;
pub use history::HistoryEntry;
pub use info::{Document, InspectedIndex, InspectedLayer, Inspection, ListedImage};
pub use layout::{REPLACEMENT_JOURNAL, SERVICE_RECORD, StoreLayout};
pub use mark::Marked;
pub use staging::Staging;
pub use tags::TagRecord;

const FORMAT: &[u8] = b"1\n";

/// An open store. It holds the store's shared lock for its lifetime.
#[derive(Debug)]
pub struct Store {
    layout: StoreLayout,
    lock: File,
    staging: OnceLock<Staging>,
}

impl Store {
    /// Returns the default path of the store: `SVP_ROOT`, else `$XDG_DATA_HOME/svp`, else `~/.local/share/svp`.
    ///
    /// # Errors
    /// [`Kind::Usage`] if none of these is an absolute path.
    pub fn default_root() -> Result<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let candidates = [
            variable("SVP_ROOT").map(PathBuf::from),
            variable("XDG_DATA_HOME").map(|v| Path::new(&v).join("svp")),
            variable("HOME").map(|v| Path::new(&v).join(".local/share/svp")),
        ];
        let root = candidates.into_iter().flatten().next().ok_or_else(|| {
            Error::usage("no path for the store: neither SVP_ROOT nor HOME is set")
                .hint("set SVP_ROOT to a private directory")
        })?;
        if !root.is_absolute() {
            return Err(Error::usage(format!("the store path {} is relative", root.display()))
                .hint("set SVP_ROOT and XDG_DATA_HOME to absolute paths"));
        }
        Ok(root)
    }

    /// Opens the store at `root` and sweeps the staging of dead processes. Creates the store (0700) if `root` is
    /// missing or empty. Waits while another process collects garbage.
    ///
    /// # Errors
    /// [`Kind::Usage`] if `root` is not a store, or one of a newer format;
    /// [`Kind::Storage`] if it can't be created or locked.
    pub fn open(root: &Path) -> Result<Self> {
        Store::open_at(root).map_err(|error| refused::explain(root, error))
    }

    fn open_at(root: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).io("create", root)?;
        let layout = StoreLayout::new(root);
        let lock_path = layout.lock();
        if !lock_path.exists()
            && fs::read_dir(root).io("list", root)?.next().is_some()
            // Another process may be creating the store since the first look.
            && !lock_path.exists()
        {
            return Err(Error::usage(format!("{} is not an svp store", root.display()))
                .hint("set SVP_ROOT to an empty directory, or one that svp created"));
        }
        // Keep others out, even of an existing directory: instance images contain secrets.
        if fs::metadata(root).io("read", root)?.mode() & 0o077 != 0 {
            fs::set_permissions(root, Permissions::from_mode(0o700)).io("protect", root)?;
        }
        let lock = open_lock(&lock_path)?;
        for path in layout.initial() {
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create", &path, error));
                }
                _ => {}
            }
        }
        staging::sweep(&layout.tmp());
        Ok(Store { layout, lock, staging: OnceLock::new() })
    }

    /// Returns the store's directory.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Returns the paths in the store.
    pub fn layout(&self) -> &StoreLayout {
        &self.layout
    }

    /// Creates a private directory on the store's file system, removed when dropped.
    ///
    /// # Errors
    /// [`Kind::Storage`].
    pub fn stage(&self) -> Result<Staging> {
        Staging::new(&self.layout.tmp())
    }

    /// Returns the staging directory that all blob writers of this process share.
    fn shared_staging(&self) -> Result<&Path> {
        if let Some(staging) = self.staging.get() {
            return Ok(staging.path());
        }
        // If two threads race here, one directory is dropped again.
        let staging = self.stage()?;
        Ok(self.staging.get_or_init(|| staging).path())
    }
}

fn open_lock(path: &Path) -> Result<File> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .io("open", path)?;
    lock.lock_shared().io("lock", path)?;
    let mut format = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&lock, 64), &mut format).io("read", path)?;
    match &format[..] {
        // Two processes that create the store at once write the same bytes at the same offset.
        b"" => std::os::unix::fs::FileExt::write_all_at(&lock, FORMAT, 0).io("write", path)?,
        FORMAT => {}
        _ => {
            let text = format!(
                "the store {} has an unknown format",
                path.parent().unwrap_or(path).display()
            );
            return Err(Error::new(Kind::Usage, text)
                .hint("use the svp version that created it, or another SVP_ROOT"));
        }
    }
    Ok(lock)
}

/// Opens a file of the store for reading; `None` if it is missing. Anything but a regular file is damage; links
/// are not followed, and fifos don't block.
fn open_file(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let no_file = || {
        Error::bad_input(format!("{} is damaged: it is not a file", path.display()))
            .hint("remove it, then pull, import, build or tag the image again")
    };
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(no_file()),
        Err(error) => return Err(Error::io("open", path, io::Error::from(error))),
    };
    if !file.metadata().io("stat", path)?.is_file() {
        return Err(no_file());
    }
    Ok(Some(file))
}

/// Makes renames into and removals from `dir` durable.
fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).io("sync", dir)
}
