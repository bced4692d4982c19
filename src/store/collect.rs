//! Collection: removing the blobs that no tag reaches.

use std::collections::HashSet;
use std::fs;

use super::{Store, sync_dir};
use crate::error::{Error, IoContext, Kind, Result};
use crate::oci::{Digest, Image, Reference};

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What removing an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The tag that is gone.
    pub tag: String,
    /// What became of its blobs; `None` if they stay for now, because another process uses the store or
    /// another image is damaged.
    pub collected: Option<Collected>,
}

impl Store {
    /// Removes the tag that `reference` names, and those blobs of its image that no other tag reaches.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn remove_image(&mut self, reference: &Reference) -> Result<Removed> {
        let record = self.resolve(reference)?;
        // An image that can't be read has no other blobs that are known of.
        let blobs = self.image_blobs(&record.manifest).unwrap_or_else(|_| vec![record.manifest]);
        let blobs: HashSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        self.remove_tag(&record.name.parse()?)?;
        let collected = match self.collect(Some(&blobs)) {
            // Another image is damaged, so what it reaches isn't known: the blobs stay.
            Err(error) if error.kind() == Kind::BadInput => None,
            other => other?,
        };
        Ok(Removed { tag: record.name, collected })
    }

    /// Removes every blob (of `among`, if given) that no tag reaches. `None` if another process uses the
    /// store: what it has written may not be tagged yet, so nothing is removed.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tagged image can't be read: as what it
    /// reaches can't be told, nothing is removed. [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn collect(&mut self, among: Option<&HashSet<Digest>>) -> Result<Option<Collected>> {
        self.while_alone(|store| store.remove_unreached(among))
    }

    /// Does `work` while no other process uses the store; `None` if one does now.
    ///
    /// # Errors
    /// Those of `work`; [`Kind::Storage`](crate::error::Kind::Storage) if the lock fails.
    pub fn while_alone<T>(&mut self, work: impl FnOnce(&Store) -> Result<T>) -> Result<Option<T>> {
        let path = self.root.join("lock");
        match self.lock.try_lock() {
            Ok(()) => {}
            // The shared lock may be lost in the attempt.
            Err(fs::TryLockError::WouldBlock) => {
                self.lock.lock_shared().io("lock", &path)?;
                return Ok(None);
            }
            Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
        }
        let done = work(self);
        self.lock.lock_shared().io("lock", &path)?;
        done.map(Some)
    }

    /// The images that tags stand for, each once.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if one can't be read.
    pub fn tagged_images(&self) -> Result<Vec<Image>> {
        let mut seen = HashSet::new();
        let mut images = Vec::new();
        for record in self.tags()? {
            let record = record?;
            if seen.insert(record.manifest.digest) {
                images.push(self.load_image(&record.manifest)?);
            }
        }
        Ok(images)
    }

    /// The chain IDs of all layers of tagged images: the unpacked layers worth keeping.
    ///
    /// # Errors
    /// As [`Store::tagged_images`].
    pub fn reachable_chain_ids(&self) -> Result<HashSet<Digest>> {
        Ok(self.tagged_images()?.iter().flat_map(Image::chain_ids).collect())
    }

    fn remove_unreached(&self, among: Option<&HashSet<Digest>>) -> Result<Collected> {
        let reached = self.reached()?;
        let dir = self.blobs_dir();
        let mut collected = Collected::default();
        for entry in fs::read_dir(&dir).io("list", &dir)? {
            let entry = entry.io("list", &dir)?;
            let name = entry.file_name();
            let digest: Option<Digest> = format!("sha256:{}", name.to_string_lossy()).parse().ok();
            let kept = match (digest, among) {
                (Some(digest), Some(among)) if !among.contains(&digest) => true,
                (None, Some(_)) => true,
                (Some(digest), _) => reached.contains(&digest),
                (None, None) => false,
            };
            if kept {
                continue;
            }
            let size = entry.metadata().map(|m| m.len()).unwrap_or_default();
            fs::remove_file(entry.path()).io("remove", entry.path())?;
            if let Some(digest) = digest {
                self.forget_diff_id(&digest);
            }
            collected.blobs += 1;
            collected.bytes += size;
        }
        sync_dir(&dir)?;
        Ok(collected)
    }

    fn reached(&self) -> Result<HashSet<Digest>> {
        let mut reached = HashSet::new();
        for record in self.tags()? {
            let record = record?;
            if reached.insert(record.manifest.digest) {
                let manifest = self.load_manifest(&record.manifest)?;
                reached.insert(manifest.config.digest);
                reached.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        Ok(reached)
    }
}
