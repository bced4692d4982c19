//! Collection: removing the blobs that no tag reaches.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use super::{Reach, Store, sync_dir};
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
    /// Removes the tag that `reference` names, and those blobs of its image that no other tag reaches;
    /// then, as nobody else uses the store, does `more` with what the tags still reach.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn remove_image(
        &mut self,
        reference: &Reference,
        more: impl FnOnce(&Store, &Reach) -> Result<()>,
    ) -> Result<Removed> {
        let record = self.resolve(reference)?;
        // An image that can't be read has no other blobs that are known of.
        let blobs = self.image_blobs(&record.manifest).unwrap_or_else(|_| vec![record.manifest]);
        let blobs: HashSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        self.remove_tag(&record.name.parse()?)?;
        let collect = |store: &Store| {
            let reach = store.reach()?.whole()?;
            let collected = store.collect(&reach, Some(&blobs))?;
            more(store, &reach).map(|()| collected)
        };
        let collected = match self.while_alone(Duration::ZERO, collect) {
            // Another image is damaged, so what it reaches isn't known: the blobs stay.
            Err(error) if error.kind() == Kind::BadInput => None,
            other => other?,
        };
        Ok(Removed { tag: record.name, collected })
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
    pub fn while_alone<T>(
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
    pub fn collect(&self, reach: &Reach, among: Option<&HashSet<Digest>>) -> Result<Collected> {
        let mut collected = Collected::default();
        for blob in self.blobs()? {
            let (digest, bytes) = blob?;
            if reach.blobs.contains(&digest) || among.is_some_and(|among| !among.contains(&digest))
            {
                continue;
            }
            let path = self.blob_path(&digest);
            fs::remove_file(&path).io("remove", &path)?;
            self.forget_diff_id(&digest);
            collected.blobs += 1;
            collected.bytes += bytes;
        }
        sync_dir(&self.blobs_dir())?;
        Ok(collected)
    }
}
