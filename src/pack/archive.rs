//! Writes the pack as an image layer: the same content gives the same bytes in every clone.
//!
//! Entries are sorted within each directory, owned by 0:0, with mode 0755 for directories and for files that their
//! owner may execute, otherwise 0644, one fixed mtime and no extended attributes. Symbolic links stay as they
//! are, hard links become files. `.git` at any depth and the files that `.svpignore` lists are excluded; other
//! file types are refused.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::ignore::{self, Rules};
use super::{Pack, REQUIRED};
use crate::error::{Error, IoContext, Result};
use crate::layer::entry::{Entry, EntryKind, Timestamp};
use crate::layer::path::OPAQUE;
use crate::layer::write::TarWriter;
use crate::oci::digest::{Digest, DigestWriter};

/// The pack's directory in an image, without the leading slash.
pub const PREFIX: &str = "service";

/// The mtime of every entry: 1980-01-01, the earliest that zip files and FAT can represent.
const MTIME: i64 = 315_532_800;

/// The maximum directory depth: the walk holds a descriptor for each level.
const MAX_DEPTH: usize = 128;

/// The digest of a pack's content: the diff ID of its normalised layer.
pub type PackDigest = Digest;

impl Pack {
    /// Writes the pack as an uncompressed layer below the directory `prefix` (see [`PREFIX`]), and returns its
    /// diff ID.
    ///
    /// # Errors
    /// [`crate::error::Kind::BadInput`] for files that a pack may not contain: devices, fifos, sockets, too
    /// deeply nested directories, a `.svpignore` that excludes a required script. [`crate::error::Kind::Storage`]
    /// for a file that can't be read or written, or that changes meanwhile.
    pub fn write_layer(&self, output: &mut dyn Write, prefix: &str) -> Result<PackDigest> {
        let rules = self.rules()?;
        let mut walk = Walk {
            rules,
            prefix,
            root: self.path(),
            tar: TarWriter::new(DigestWriter::new(output)),
            depth: 0,
        };
        walk.tar.append(&entry(prefix.into(), EntryKind::Directory, 0o755), &mut io::empty())?;
        walk.directory(self.dir.as_fd(), &[])?;
        let (_, digest, _) = walk.tar.finish()?.finish();
        Ok(digest)
    }

    /// Returns whether `.svpignore` excludes the file at `path`.
    pub(super) fn ignores(&self, path: &str) -> bool {
        self.rules().is_ok_and(|rules| rules.excludes_file(path))
    }

    /// Reads the rules of `.svpignore`, which must not exclude the required scripts.
    fn rules(&self) -> Result<Rules> {
        const NAME: &str = ".svpignore";
        let path = self.path().join(NAME);
        let mut text = Vec::new();
        match open_file(self.dir.as_fd(), &CString::new(NAME).expect("no NUL")) {
            Err(rustix::io::Errno::NOENT) => return Ok(Rules::default()),
            Err(error) => return Err(error).io("open", path),
            Ok(file) => {
                if !file.metadata().io("stat", &path)?.is_file() {
                    return Err(Error::bad_input(format!("{} is not a file", path.display())));
                }
                file.take(ignore::MAX_SIZE + 1).read_to_end(&mut text).io("read", &path)?;
            }
        }
        if text.len() as u64 > ignore::MAX_SIZE {
            let limit = ignore::MAX_SIZE;
            return Err(Error::bad_input(format!(
                "{} is larger than {limit} bytes",
                path.display()
            )));
        }
        let rules = Rules::parse(&text);
        match REQUIRED.iter().find(|script| rules.excludes_file(script)) {
            None => Ok(rules),
            Some(script) => Err(Error::bad_input(format!("{} excludes {script}", path.display()))
                .hint(format!("add the line !/{script} at its end, or narrow its patterns"))),
        }
    }
}

/// Returns the entry of the directory `prefix` as a layer begins with it, and the opaque whiteout in that directory,
/// which hides the files that the layers below have there.
///
/// # Errors
/// [`crate::error::Kind::BadInput`] for a prefix that a tar can't contain.
pub(crate) fn opaque_prefix(prefix: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let written = |path: Vec<u8>, kind, mode| -> Result<Vec<u8>> {
        let mut tar = TarWriter::new(Vec::new());
        tar.append(&entry(path, kind, mode), &mut io::empty())?;
        Ok(tar.into_inner())
    };
    let marker = [prefix.as_bytes(), b"/", OPAQUE].concat();
    Ok((
        written(prefix.into(), EntryKind::Directory, 0o755)?,
        written(marker, EntryKind::File, 0o644)?,
    ))
}

fn entry(path: Vec<u8>, kind: EntryKind, mode: u32) -> Entry {
    let mut entry = Entry::new(path, kind, mode);
    entry.mtime = Timestamp { seconds: MTIME, nanoseconds: 0 };
    entry
}

/// Opens a file without following a link, and without blocking on a fifo.
fn open_file(dir: BorrowedFd<'_>, name: &CString) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(dir, name, flags | OFlags::NOCTTY, Mode::empty())?.into())
}

/// A recursive walk over the pack, through directory descriptors.
struct Walk<'a> {
    rules: Rules,
    prefix: &'a str,
    root: &'a Path,
    tar: TarWriter<DigestWriter<&'a mut dyn Write>>,
    depth: usize,
}

impl Walk<'_> {
    /// Writes the content of the directory at `path` in the pack.
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        if self.depth == MAX_DEPTH {
            let what =
                format!("{}: directories nested more than {MAX_DEPTH} deep", self.show(path));
            return Err(Error::bad_input(what));
        }
        self.depth += 1;
        for name in self.names(dir, path)? {
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name.as_bytes());
            self.entry(dir, &name, &inner)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Lists a directory, sorted by name.
    fn names(&self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<CString>> {
        let shown = || self.root_path(path);
        let mut names = Vec::new();
        for found in Dir::read_from(dir).io("read", shown())? {
            let found = found.io("read", shown())?;
            let name = found.file_name();
            if !matches!(name.to_bytes(), b"." | b".." | b".git") {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<()> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .io("stat", self.root_path(path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.rules.excludes(path, kind == FileType::Directory) {
            return Ok(());
        }
        let mut full = Vec::from(self.prefix);
        full.push(b'/');
        full.extend_from_slice(path);
        match kind {
            FileType::Directory => {
                self.tar.append(&entry(full, EntryKind::Directory, 0o755), &mut io::empty())?;
                let inner = self.open_directory(dir, name, path)?;
                self.directory(inner.as_fd(), path)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .io("read the link", self.root_path(path))?;
                let mut link = entry(full, EntryKind::Symlink, 0o777);
                link.link = target.into_bytes();
                self.tar.append(&link, &mut io::empty())
            }
            FileType::RegularFile => self.file(dir, name, path, full),
            other => Err(self.refused(path, other)),
        }
    }

    fn open_directory(&self, dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty()).io("open", self.root_path(path))
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
        full: Vec<u8>,
    ) -> Result<()> {
        let shown = self.root_path(path);
        let mut file = open_file(dir, name).io("open", &shown)?;
        let before = rustix::fs::fstat(&file).io("stat", &shown)?;
        let kind = FileType::from_raw_mode(before.st_mode);
        if kind != FileType::RegularFile {
            return Err(self.refused(path, kind));
        }
        let mode = if before.st_mode & 0o100 != 0 { 0o755 } else { 0o644 };
        let mut entry = entry(full, EntryKind::File, mode);
        entry.size = before.st_size.unsigned_abs();
        self.tar.append(&entry, &mut file)?;
        let after = rustix::fs::fstat(&file).io("stat", &shown)?;
        if stamp(&before) == stamp(&after) {
            return Ok(());
        }
        let what = io::Error::other("the file changed while being read");
        Err(Error::io("read", shown, what).hint("don't change the pack while svp reads it"))
    }

    fn refused(&self, path: &[u8], kind: FileType) -> Error {
        let what = match kind {
            FileType::Fifo => "a fifo",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "not a file",
        };
        Error::bad_input(format!("{} is {what}", self.show(path))).hint(
            "remove it or list it in .svpignore: a pack may have files, directories and links",
        )
    }

    fn root_path(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }

    fn show(&self, path: &[u8]) -> String {
        self.root_path(path).display().to_string()
    }
}

/// Returns the attributes that change along with a file's content.
fn stamp(stat: &Stat) -> impl PartialEq {
    (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
}
