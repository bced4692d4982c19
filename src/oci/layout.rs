//! OCI image layouts (image-spec, image-layout.md): a directory of blobs with an index of names.
//!
//! Layouts are untrusted: sizes are bounded, symbolic links below the directory are not followed, and every blob is
//! verified as it is read. [`super::layout_writer`] writes layouts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::OciLayout;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use serde::Deserialize;
use serde_json::{Value, json};

use super::descriptor::{CONTAINERD_NAME, REF_NAME};
use super::json::{canonical, parse};
use super::manifest::Index;
use super::media_type::INDEX;
use super::{Descriptor, Digest, DigestReader, Platform, Reference};
use crate::error::{Error, IoContext, Result};

/// The file that marks a layout.
pub(super) const MARKER: &str = "oci-layout";
/// The file that lists a layout's images.
pub(super) const INDEX_FILE: &str = "index.json";
/// The content of [`MARKER`] in new layouts.
pub(super) const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The maximum size of `index.json`, in bytes: 50,000 names take 14 MB.
pub const MAX_INDEX: u64 = 32 << 20;

/// A layout, opened for reading.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    dir: File,
}

impl Layout {
    /// Opens the layout at `path` and checks its version.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if `path` is not a layout, or its version is not 1.
    pub fn open(path: &Path) -> Result<Self> {
        let dir =
            openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| {
                    Error::bad_input(format!("{} is not an OCI image layout", path.display()))
                        .source(io::Error::from(errno))
                })?;
        let layout = Layout { path: path.to_owned(), dir: dir.into() };
        let marker = layout.read_small(MARKER, 4096)?.ok_or_else(|| not_a_layout(path))?;
        check_marker(&marker, path)?;
        Ok(layout)
    }

    /// Returns the layout's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `index.json` as JSON, including unknown fields.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is missing, too large or not an index.
    pub fn index_json(&self) -> Result<Value> {
        let shown = self.path.join(INDEX_FILE);
        let bytes = self
            .read_small(INDEX_FILE, MAX_INDEX)?
            .ok_or_else(|| Error::bad_input(format!("{} is missing", shown.display())))?;
        let index: Value = parse(&bytes, &shown.display().to_string())?;
        index_entries(&index, &shown.display().to_string())?;
        Ok(index)
    }

    /// Returns the entries of `index.json`.
    ///
    /// # Errors
    /// As [`Layout::index_json`].
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        index_entries(&self.index_json()?, &self.path.join(INDEX_FILE).display().to_string())
    }

    /// Returns the entry that `reference` names, or the only one; see [`find`].
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput), listing the available names.
    pub fn find(&self, reference: Option<&str>, platform: &Platform) -> Result<Descriptor> {
        find(&self.entries()?, reference, platform, &self.path)
    }

    /// Opens a blob; the reader fails at its end unless size and digest match.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the blob is missing, not a regular file, or of another size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<DigestReader<File>> {
        let digest = &descriptor.digest;
        let shown = self.blob_path(digest);
        let bad = |why: &str| {
            Error::bad_input(format!("the blob {digest} {why}: {}", shown.display()))
                .hint("the layout is damaged: write it again")
        };
        let file =
            self.open_file(&["blobs", "sha256", &digest.hex()]).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => bad("is missing"),
                    io::ErrorKind::InvalidInput => bad("is a symbolic link, or not a regular file"),
                    _ => Error::io("open", &shown, error),
                }
            })?;
        let size = file.metadata().io("read", &shown)?.len();
        if size != descriptor.size {
            return Err(bad(&format!("has {size} bytes, not {}", descriptor.size)));
        }
        Ok(DigestReader::expecting(file, *digest, Some(size)))
    }

    /// Reads a small blob and verifies it.
    ///
    /// # Errors
    /// As [`Layout::open_blob`]; also if the blob has more than `max` bytes or another digest.
    pub fn read_blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        let digest = descriptor.digest;
        if descriptor.size > max {
            return Err(Error::bad_input(format!("the blob {digest} has more than {max} bytes")));
        }
        let shown = self.blob_path(&digest);
        let mut bytes = Vec::new();
        self.open_blob(descriptor)?.read_to_end(&mut bytes).map_err(|error| {
            match error.kind() {
                io::ErrorKind::InvalidData => {
                    Error::bad_input(format!("the blob {digest} in {} is damaged", shown.display()))
                        .source(error)
                }
                _ => Error::io("read", &shown, error),
            }
        })?;
        Ok(bytes)
    }

    /// Returns the path of a blob.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn read_small(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let shown = self.path.join(name);
        let file = match self.open_file(&[name]) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Error::bad_input(format!("{} is not a regular file", shown.display())));
            }
            Err(error) => return Err(Error::io("open", &shown, error)),
        };
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).io("read", &shown)?;
        if bytes.len() as u64 > max {
            return Err(Error::bad_input(format!("{} has more than {max} bytes", shown.display())));
        }
        Ok(Some(bytes))
    }

    /// Opens a regular file below the layout. Fails with `InvalidInput` if it is of another type, or if its path
    /// contains a symbolic link.
    fn open_file(&self, components: &[&str]) -> io::Result<File> {
        let (name, parents) = components.split_last().expect("a name");
        let base = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let refused = |errno: rustix::io::Errno| match errno {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
                io::ErrorKind::InvalidInput.into()
            }
            other => io::Error::from(other),
        };
        let mut dir = self.dir.try_clone()?;
        for parent in parents {
            dir = openat(&dir, *parent, base | OFlags::DIRECTORY, Mode::empty())
                .map_err(refused)?
                .into();
        }
        // NONBLOCK: opening a fifo must not wait for a writer.
        let file = openat(&dir, *name, base | OFlags::NONBLOCK, Mode::empty()).map_err(refused)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(file.into())
    }
}

/// Checks the content of the file `oci-layout`.
pub(crate) fn check_marker(bytes: &[u8], path: &Path) -> Result<()> {
    let marker: OciLayout = parse(bytes, &path.join(MARKER).display().to_string())?;
    let version = marker.image_layout_version();
    if version.split('.').next() != Some("1") {
        return Err(Error::bad_input(format!(
            "{} is an OCI image layout of version {version:?}; svp supports version 1",
            path.display()
        )));
    }
    Ok(())
}

/// Returns the descriptors in an index's JSON.
pub(crate) fn index_entries(index: &Value, shown: &str) -> Result<Vec<Descriptor>> {
    let bad = || Error::bad_input(format!("{shown} is not an image index"));
    if index.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err(bad());
    }
    match index.get("manifests") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => Deserialize::deserialize(list).map_err(|error| bad().source(error)),
    }
}

/// Chooses an entry of a layout: the one whose `org.opencontainers.image.ref.name` is `reference` or
/// `reference:latest`, or whose `io.containerd.image.name` is `reference`; without a reference, the only one. If
/// several entries have the name, `platform` decides.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput), listing the available names.
pub fn find(
    entries: &[Descriptor],
    reference: Option<&str>,
    platform: &Platform,
    path: &Path,
) -> Result<Descriptor> {
    let found: Vec<Descriptor> = match reference {
        None => entries.to_vec(),
        Some(name) => {
            let latest = format!("{name}:latest");
            let containerd = |d: &Descriptor| {
                d.annotations.get(CONTAINERD_NAME).map(String::as_str) == Some(name)
            };
            let tests: [&dyn Fn(&Descriptor) -> bool; 3] =
                [&|d| d.ref_name() == Some(name), &|d| d.ref_name() == Some(&latest), &containerd];
            let matching = |test: &dyn Fn(&Descriptor) -> bool| -> Vec<Descriptor> {
                entries.iter().filter(|d| test(d)).cloned().collect()
            };
            tests.into_iter().map(matching).find(|list| !list.is_empty()).unwrap_or_default()
        }
    };
    let shown = path.display();
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => {
            let what = reference.map_or("no image".into(), |name| format!("no image {name:?}"));
            Err(Error::bad_input(format!("{shown} has {what}")).hint(available(entries)))
        }
        several if reference.is_some() => Index::new(several.to_vec()).select(platform).cloned(),
        several => Err(Error::bad_input(format!("{shown} has {} images", several.len()))
            .hint(format!("choose one by writing :REF after the path; {}", available(entries)))),
    }
}

/// Formats the available names for a hint.
fn available(entries: &[Descriptor]) -> String {
    let mut names: Vec<&str> = entries.iter().filter_map(Descriptor::ref_name).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(20);
    names.truncate(20);
    match (names.is_empty(), more) {
        (true, _) if entries.is_empty() => "it has no images".to_owned(),
        (true, _) => "its images have no names".to_owned(),
        (_, 0) => format!("available: {}", names.join(", ")),
        (_, more) => format!("available: {} and {more} more", names.join(", ")),
    }
}

pub(super) fn not_a_layout(path: &Path) -> Error {
    Error::bad_input(format!("{} is not an OCI image layout", path.display()))
        .hint("it must have a file oci-layout, as written by skopeo, umoci and svp")
}

/// Returns the files besides the blobs, by name, of a layout with a single image.
pub fn archive_files(
    descriptor: &Descriptor,
    reference: &Reference,
) -> [(&'static str, Vec<u8>); 2] {
    let mut index = empty_index();
    index["manifests"] = json!([named(descriptor, reference)]);
    [(INDEX_FILE, canonical(&index)), (MARKER, MARKER_CONTENT.to_vec())]
}

/// Returns the descriptor as an entry of a layout's index, with names for the image. Keeps an existing name, and then
/// adds the full name for containerd only if both are the same.
pub(super) fn named(descriptor: &Descriptor, reference: &Reference) -> Descriptor {
    let mut named = descriptor.clone();
    let name = named.annotations.entry(REF_NAME.into()).or_insert_with(|| reference.tagged());
    let same = |name: Reference| name.tagged() == reference.tagged();
    if name.contains([':', '/']) && name.parse().is_ok_and(same) {
        let full = reference.clone().with_default_registry();
        named.annotations.insert(CONTAINERD_NAME.into(), full.tagged());
    }
    named
}

/// Returns whether `text` is valid as `org.opencontainers.image.ref.name` (image-spec, annotations.md).
pub fn is_ref_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:@/+".contains(c))
}

/// Returns the index of a layout without images.
pub(super) fn empty_index() -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
}
