//! Garbage collection: removes the blobs that no tag or service reaches.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use log::{debug, trace};

use super::mark::Depth;
use super::{Marked, Store, TagRecord, sync_dir};
use crate::error::{Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::oci::{Digest, Reference};

/// The interval between attempts to acquire a lock that another process holds.
const PAUSE: Duration = Duration::from_millis(20);

/// The result of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of blobs removed.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The result of removing images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The removed tags.
    pub tags: Vec<String>,
    /// The removed tags whose images services still have, and these services.
    pub in_use: Vec<(String, Vec<String>)>,
    /// The blobs removed; `None` if all stay for now because another process uses the store or another image is
    /// damaged.
    pub collected: Option<Collected>,
}

impl Store {
    /// Removes the tags that `references` name, and the blobs of their images that no other tag reaches. Then, still
    /// under the exclusive lock, calls `more` with the remaining marks: blobs and configs, but no chain IDs. Removes
    /// only the tags if other tags name the same images.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a missing image and [`Kind::Usage`] for a digest with
    /// several tags, in both cases without removing anything; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn remove_images(
        &mut self,
        references: &[Reference],
        more: impl FnOnce(&Store, &Marked) -> Result<()>,
    ) -> Result<Removed> {
        let mut records: Vec<TagRecord> = Vec::new();
        for reference in references {
            let record = self.resolve(reference)?;
            // Found by a digest: it names the image, but a tag is removed.
            let by_digits = reference.digest().is_none() && self.tag(reference)?.is_none();
            if by_digits || record.reference()?.digest().is_some() {
                self.check_one_tag(&record)?;
            }
            if !records.iter().any(|other| other.name == record.name) {
                records.push(record);
            }
        }
        // As far as the images can be read.
        let blobs: HashSet<Digest> = (records.iter())
            .flat_map(|record| self.mark_from_top(&record.manifest, Depth::Blobs).0.blobs)
            .collect();
        for record in &records {
            self.remove_tag(&record.reference()?)?;
        }
        let collect = |store: &Store| {
            let gc_roots = store.gc_roots()?;
            let held: HashSet<Digest> = gc_roots.iter().map(|root| root.manifest.digest).collect();
            if records.iter().all(|record| held.contains(&record.manifest.digest)) {
                return Ok(Collected::default());
            }
            let marked = store.mark_roots(&gc_roots, Depth::Blobs).whole()?;
            let collected = store.collect(&marked, Some(&blobs))?;
            more(store, &marked).map(|()| collected)
        };
        let collected = match self.with_exclusive_lock(Duration::ZERO, collect) {
            // Another image is damaged, so its blobs are unknown: keep them all.
            Err(error) if error.kind() == Kind::BadInput => None,
            other => other?,
        };
        let mut in_use = Vec::new();
        for record in &records {
            let services = self.services_of(&record.manifest.digest)?;
            if !services.is_empty() {
                in_use.push((record.name.clone(), services));
            }
        }
        let tags = records.into_iter().map(|record| record.name).collect();
        Ok(Removed { tags, in_use, collected })
    }

    fn check_one_tag(&self, record: &TagRecord) -> Result<()> {
        let tags = self.tags_of(&record.manifest.digest)?;
        if tags.is_empty() {
            let services = self.services_of(&record.manifest.digest)?;
            return Err(Error::usage(format!(
                "{} has no tag: it is kept for the services that run it: {}",
                record.manifest.digest,
                services.join(", ")
            ))
            .hint("`svp upgrade` or `svp rm` them; then `svp prune` removes it"));
        }
        if tags.len() == 1 {
            return Ok(());
        }
        let names: Vec<_> = tags.into_iter().map(|tag| tag.name).collect();
        let digest = record.manifest.digest;
        Err(Error::usage(format!("{digest} has several tags: {}", names.join(", ")))
            .hint("remove them by name"))
    }

    /// Runs `work` while no other process uses the store. Waits up to `wait` for that; returns `None` on timeout.
    ///
    /// Holds no lock while waiting, so that one of several waiting processes can proceed; data read from the store
    /// before the call may be outdated.
    ///
    /// # Errors
    /// The errors of `work`; [`Kind::Storage`](crate::error::Kind::Storage) if locking fails;
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted).
    pub fn with_exclusive_lock<T>(
        &mut self,
        wait: Duration,
        work: impl FnOnce(&Store) -> Result<T>,
    ) -> Result<Option<T>> {
        let path = self.layout.lock();
        let since = Instant::now();
        loop {
            interrupt::check()?;
            match self.lock.try_lock() {
                Ok(()) => break,
                // A failed upgrade may have released the shared lock.
                Err(fs::TryLockError::WouldBlock) if since.elapsed() >= wait => {
                    self.lock.lock_shared().io("lock", &path)?;
                    debug!("the store is still in use after {wait:.1?}: nothing is removed");
                    return Ok(None);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    self.lock.unlock().io("unlock", &path)?;
                    std::thread::sleep(PAUSE);
                }
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            }
        }
        trace!("locked the store exclusively after {:.1?}", since.elapsed());
        let done = work(self);
        self.lock.lock_shared().io("lock", &path)?;
        done.map(Some)
    }

    /// Removes every unmarked blob, or only those in `among`. No other process may be using the store: a blob that
    /// it has written may not be tagged yet.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn collect(&self, marked: &Marked, among: Option<&HashSet<Digest>>) -> Result<Collected> {
        let mut unreached: Vec<Digest> = match among {
            Some(among) => among.iter().copied().collect(),
            None => (self.blobs()?).map(|blob| Ok(blob?.0)).collect::<Result<_>>()?,
        };
        unreached.retain(|digest| !marked.blobs.contains(digest));
        let (kept, gone) = (marked.blobs.len(), unreached.len());
        debug!("collection: {kept} blobs are reachable, {gone} are not");
        let mut collected = Collected::default();
        for digest in unreached {
            let path = self.blob_path(&digest);
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            // Also removes a directory that someone put in a blob's place.
            let removed =
                if found.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.io("remove", &path)?;
            debug!("removed blob {digest}: no tag reaches it");
            self.forget_layer_note(&digest);
            self.remove_blob_locations(&digest);
            collected.blobs += 1;
            collected.bytes += found.blocks() * 512;
        }
        sync_dir(&self.layout.sha256())?;
        Ok(collected)
    }
}
