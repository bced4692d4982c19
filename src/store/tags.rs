//! Tags: one small file for each `REPO:TAG`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Store, StoreLayout, open_file, parallel, sync_dir};
use crate::error::{Error, IoContext, Result};
use crate::oci::json::parse;
use crate::oci::{Descriptor, Digest, Reference};

/// A tag's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The name, `[REGISTRY/]REPO:TAG`.
    pub name: String,
    /// The image's manifest.
    pub manifest: Descriptor,
    /// Creation time of the image, as RFC 3339, if recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

impl TagRecord {
    /// Returns the name as a reference.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the file has an invalid name.
    pub fn reference(&self) -> Result<Reference> {
        self.name.parse::<Reference>().map_err(|e| e.with_kind(crate::error::Kind::BadInput))
    }
}

/// The maximum size of a tag's file, in bytes.
const MAX_TAG_FILE: u64 = 64 << 10;
/// The maximum length of a file name on Linux file systems, in bytes.
const MAX_FILE_NAME: usize = 255;

impl Store {
    /// Reads the tag `[REGISTRY/]REPO:TAG`, if it exists. Ignores a digest in the reference.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the tag's file is damaged.
    pub fn tag(&self, reference: &Reference) -> Result<Option<TagRecord>> {
        Store::peek_tag(self.root(), reference)
    }

    /// Reads a tag of the store at `root` without opening the store, which would wait for garbage collection.
    ///
    /// # Errors
    /// As [`Store::tag`].
    pub fn peek_tag(root: &Path, reference: &Reference) -> Result<Option<TagRecord>> {
        let name = reference.tagged();
        let path = StoreLayout::new(root).tags().join(file_name(&name));
        Ok(read(&path)?.filter(|record| record.name == name))
    }

    /// Lists the tags of the image or index `digest`, sorted by name.
    ///
    /// # Errors
    /// As [`Store::tags`].
    pub fn tags_of(&self, digest: &Digest) -> Result<Vec<TagRecord>> {
        let mut found = Vec::new();
        for record in self.tags()? {
            found.push(record?);
        }
        found.retain(|record| record.manifest.digest == *digest);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Points the tag of `reference` (by default `latest`) at an image, replacing an existing tag.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if the reference has a digest or is one;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn set_tag(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        created: Option<&str>,
    ) -> Result<()> {
        let (file, target) = self.tag_file(reference, manifest, created)?;
        file.persist(&target).map_err(|error| Error::io("write", &target, error.error))?;
        sync_dir(&self.layout.tags())
    }

    /// Creates the tag of `reference`; returns `false` if it exists already. Of several concurrent calls, exactly
    /// one succeeds.
    ///
    /// # Errors
    /// As [`Store::set_tag`].
    pub fn set_new_tag(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        created: Option<&str>,
    ) -> Result<bool> {
        let (file, target) = self.tag_file(reference, manifest, created)?;
        match file.persist_noclobber(&target) {
            Ok(_) => sync_dir(&self.layout.tags()).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io("write", &target, error.error)),
        }
    }

    /// Returns a complete tag file under a temporary name, and its target.
    fn tag_file(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        created: Option<&str>,
    ) -> Result<(tempfile::NamedTempFile, PathBuf)> {
        if reference.digest().is_some() || reference.as_digest().is_some() {
            return Err(Error::usage(format!("{reference} has a digest, so it can't be a tag"))
                .hint("write it as REPOSITORY:TAG"));
        }
        let record = TagRecord {
            name: reference.tagged(),
            manifest: manifest.clone(),
            created: created.map(str::to_owned),
        };
        let target = self.layout.tags().join(file_name(&record.name));
        let bytes = serde_json::to_vec(&record).expect("a record serialises");
        let mut file =
            tempfile::NamedTempFile::new_in(self.shared_staging()?).io("create", &target)?;
        file.write_all(&bytes).io("write", &target)?;
        file.as_file().sync_all().io("sync", &target)?;
        Ok((file, target))
    }

    /// Removes a tag but not the image's blobs; `false` if there was no such tag.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn remove_tag(&self, reference: &Reference) -> Result<bool> {
        let dir = self.layout.tags();
        let path = dir.join(file_name(&reference.tagged()));
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&dir).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove", &path, error)),
        }
    }

    /// Lists every file in the tags directory: its name, its content, and whether the name matches the content,
    /// without which the tag can't be found.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the directory can't be listed.
    pub fn tag_files(&self) -> Result<Vec<(String, Result<TagRecord>, bool)>> {
        let dir = self.layout.tags();
        let entries = fs::read_dir(&dir).io("list", &dir)?;
        let mut names = (entries.map(|entry| Ok(entry?.file_name())))
            .collect::<io::Result<Vec<_>>>()
            .io("list", &dir)?;
        names.sort();
        let look = |name: &std::ffi::OsString| {
            let record = read(&dir.join(name)).transpose()?;
            let fits = record.as_ref().is_ok_and(|record| *name == *file_name(&record.name));
            Some((name.to_string_lossy().into_owned(), record, fits))
        };
        Ok(parallel::map(&names, look).into_iter().flatten().collect())
    }

    /// Iterates over all tags, in no particular order. May miss a tag that is removed meanwhile.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the directory can't be listed; an item is
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if its file is damaged.
    pub fn tags(&self) -> Result<impl Iterator<Item = Result<TagRecord>> + use<>> {
        let dir = self.layout.tags();
        let entries = fs::read_dir(&dir).io("list", &dir)?;
        let paths = entries
            .map(|entry| entry.map(|entry| entry.path()).io("list", &dir))
            .collect::<Result<Vec<PathBuf>>>()?;
        let records = parallel::map(&paths, |path| read(path).transpose());
        Ok(records.into_iter().flatten())
    }
}

fn read(path: &Path) -> Result<Option<TagRecord>> {
    let Some(file) = open_file(path)? else { return Ok(None) };
    // Large enough for a typical file, so that one read suffices.
    let mut bytes = Vec::with_capacity(2048);
    io::Read::read_to_end(&mut io::Read::take(file, MAX_TAG_FILE), &mut bytes).io("read", path)?;
    parse(&bytes, &format!("tag file {}", path.display()))
        .map_err(|error| error.hint("remove that file and tag the image again"))
        .map(Some)
}

/// Percent-encodes the name. Uses the digest of a name too long for a file name: the file contains the name too.
fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    if out.len() > MAX_FILE_NAME { format!("%{}", Digest::of(name).hex()) } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain_and_distinct() {
        let long = format!("{}:t", "a/".repeat(120) + "b");
        let longer = format!("{long}u");
        let names = ["a:b", "a/b:c", "a.b/c:d", "[::1]:5000/a:b", "a:B", &long, &longer];
        let files: std::collections::BTreeSet<_> = names.iter().map(|n| file_name(n)).collect();
        assert_eq!(files.len(), names.len());
        for file in &files {
            assert!(file.len() <= 255 && !file.contains('/') && !file.starts_with('.'), "{file}");
        }
        assert_eq!(file_name("mysql:8"), "mysql%3A8");
    }
}
