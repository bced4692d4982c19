//! Collection: removing the blobs that no tag reaches.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::mark::Depth;
use super::{Marked, Store, TagRecord, sync_dir};
use crate::error::{Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::oci::{Digest, Reference};

/// How long to wait before another look at a lock that others hold.
const PAUSE: Duration = Duration::from_millis(20);

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What removing images did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The tags that are gone.
    pub tags: Vec<String>,
    /// What became of their blobs; `None` if they stay for now, because another process uses the store or
    /// another image is damaged.
    pub collected: Option<Collected>,
}

impl Store {
    /// Removes the tags that `references` name, and those blobs of their images that no other tag reaches;
    /// then, as nobody else uses the store, does `more` with what the tags still reach: its blobs and configs,
    /// but no chain IDs. While other tags stand for the same images nothing but the tags goes.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image, and [`Kind::Usage`] if a digest
    /// has several tags, and then nothing is removed; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn remove_images(
        &mut self,
        references: &[Reference],
        more: impl FnOnce(&Store, &Marked) -> Result<()>,
    ) -> Result<Removed> {
        let mut records: Vec<TagRecord> = Vec::new();
        for reference in references {
            let record = self.resolve(reference)?;
            if reference.as_digest().is_some() {
                self.check_one_tag(&record)?;
            }
            if !records.iter().any(|other| other.name == record.name) {
                records.push(record);
            }
        }
        // Of an image that can't be read, what can be known of.
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
            let reach = store.mark_roots(&gc_roots, Depth::Blobs).whole()?;
            let collected = store.collect(&reach, Some(&blobs))?;
            more(store, &reach).map(|()| collected)
        };
        let collected = match self.with_exclusive_lock(Duration::ZERO, collect) {
            // Another image is damaged, so what it reaches isn't known: the blobs stay.
            Err(error) if error.kind() == Kind::BadInput => None,
            other => other?,
        };
        Ok(Removed { tags: records.into_iter().map(|record| record.name).collect(), collected })
    }

    fn check_one_tag(&self, record: &TagRecord) -> Result<()> {
        let tags = self.tags_of(&record.manifest.digest)?;
        if tags.len() == 1 {
            return Ok(());
        }
        let names: Vec<_> = tags.into_iter().map(|tag| tag.name).collect();
        let digest = record.manifest.digest;
        Err(Error::usage(format!("{digest} has several tags: {}", names.join(", ")))
            .hint("name those to remove"))
    }

    /// Does `work` while no other process uses the store, for which it waits as long as `wait` says; `None`
    /// if another uses it still.
    ///
    /// While it waits it holds no lock, so that of several that wait one comes first: what was read from
    /// the store before may have changed.
    ///
    /// # Errors
    /// Those of `work`; [`Kind::Storage`](crate::error::Kind::Storage) if the lock fails;
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted).
    pub fn with_exclusive_lock<T>(
        &mut self,
        wait: Duration,
        work: impl FnOnce(&Store) -> Result<T>,
    ) -> Result<Option<T>> {
        let path = self.root.join("lock");
        let since = Instant::now();
        loop {
            interrupt::check()?;
            match self.lock.try_lock() {
                Ok(()) => break,
                // The shared lock may be lost in the attempt.
                Err(fs::TryLockError::WouldBlock) if since.elapsed() >= wait => {
                    self.lock.lock_shared().io("lock", &path)?;
                    return Ok(None);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    self.lock.unlock().io("unlock", &path)?;
                    std::thread::sleep(PAUSE);
                }
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            }
        }
        let done = work(self);
        self.lock.lock_shared().io("lock", &path)?;
        done.map(Some)
    }

    /// Removes every blob (of `among`, if given) that isn't reached. Nobody else may be using the store:
    /// what another process has written may not be tagged yet.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn collect(&self, reach: &Marked, among: Option<&HashSet<Digest>>) -> Result<Collected> {
        let mut unreached: Vec<Digest> = match among {
            Some(among) => among.iter().copied().collect(),
            None => (self.blobs()?).map(|blob| Ok(blob?.0)).collect::<Result<_>>()?,
        };
        unreached.retain(|digest| !reach.blobs.contains(digest));
        let mut collected = Collected::default();
        for digest in unreached {
            let path = self.blob_path(&digest);
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            // What someone has put in a blob's place goes as well.
            let removed =
                if found.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.io("remove", &path)?;
            self.forget_diff_id(&digest);
            self.remove_blob_locations(&digest);
            collected.blobs += 1;
            collected.bytes += found.blocks() * 512;
        }
        sync_dir(&self.blobs_dir())?;
        Ok(collected)
    }
}
