//! Computes a layer from a container's changes.
//!
//! `before` is the container's root file system at its start, `upper` the overlay's upper directory after all
//! processes have ended. The layer contains exactly the changes: applied to `before`, it gives the container's final
//! root file system. docs/decisions/003-diff.md has the rules and their reasons.

pub(super) mod changes;
mod whiteout;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};

use crate::error::{Error, Result};
use crate::layer::diff::changes::{Change, Changes, comparable_upper};
use crate::layer::entry::{Entry, EntryKind, Timestamp, Xattrs};
use crate::layer::meta;
use crate::layer::path::{MAX_PATH, show};
use crate::layer::unpack::tree::failure;
use crate::layer::write::TarWriter;
use crate::rootfs::Cursor;

/// The input of a diff.
#[derive(Clone, Copy, Debug)]
pub struct DiffRequest<'a> {
    /// The upper directory itself (not the mount) of an overlay mounted with `userxattr`. Its root had the metadata of
    /// the root of `before` at the start (see
    /// [`copy_directory_metadata`](crate::layer::unpack::copy_directory_metadata)).
    pub upper: BorrowedFd<'a>,
    /// A read-only merged view of the layers below.
    pub before: BorrowedFd<'a>,
    /// The file system's time before the container started: the ctime of a file created then.
    pub started: Timestamp,
    /// Later times are clamped to this one, in seconds: `SOURCE_DATE_EPOCH`.
    pub clamp_mtime: Option<i64>,
}

/// The content of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiffReport {
    /// Number of entries written.
    pub entries: u64,
    /// Paths (as bytes) of sockets, which a layer can't contain and which were skipped: the first thousand.
    pub sockets: Vec<Vec<u8>>,
    /// Number of skipped sockets.
    pub socket_count: u64,
}

/// Writes the layer of the changes to `tar`; a layer without entries if nothing changed.
///
/// # Errors
/// `BadInput` for a file that a layer can't contain (a name that begins with `.wh.`); `Sandbox` for an overlay mounted
/// with redirects or metadata-only copies; `Storage` if reading or writing fails.
pub fn diff(request: &DiffRequest<'_>, tar: &mut dyn Write) -> Result<DiffReport> {
    let changes = changes::find(request.upper, request.before, request.started)?;
    let cursor = Cursor::new(request.upper).map_err(|error| failure("open", b"", error))?;
    let mut emitter = Emitter {
        cursor,
        clamp: request.clamp_mtime,
        writer: TarWriter::new(tar),
        first_names: Vec::new(),
    };
    let mut report = DiffReport { socket_count: changes.socket_count, ..Default::default() };
    for index in 0..changes.items.len() {
        if changes.items[index].emit {
            emitter.emit(&changes, index)?;
            report.entries += 1;
        }
    }
    emitter.writer.finish()?;
    report.sockets = changes.sockets;
    Ok(report)
}

struct Emitter<W: Write> {
    cursor: Cursor,
    clamp: Option<i64>,
    writer: TarWriter<W>,
    /// The item of each group's first name, indexed by group.
    first_names: Vec<Option<u32>>,
}

impl<W: Write> Emitter<W> {
    fn emit(&mut self, changes: &Changes, index: usize) -> Result<()> {
        let names = changes.names(index);
        let path = names.join(&b'/');
        if path.len() > MAX_PATH {
            let path = show(&path);
            return Err(Error::bad_input(format!(
                "{path} can't be put into an image: its path is longer than {MAX_PATH} bytes"
            )));
        }
        match changes.items[index].change {
            Change::Directory => {
                self.cursor.go(&names).map_err(|error| failure("open", &path, error))?;
                self.directory(path)
            }
            Change::Whiteout => {
                let Some(entry) = whiteout::entry(&names, self.clamp.unwrap_or(0)) else {
                    return Ok(());
                };
                self.writer.append(&entry, &mut std::io::empty())
            }
            Change::File => self.file(&names, path, None),
            Change::Linked(group) => {
                let group = group as usize;
                if self.first_names.len() <= group {
                    self.first_names.resize(group + 1, None);
                }
                let first = *self.first_names[group].get_or_insert(index as u32) as usize;
                let link = (first != index).then(|| changes.names(first).join(&b'/'));
                self.file(&names, path, link)
            }
        }
    }

    fn directory(&mut self, path: Vec<u8>) -> Result<()> {
        let dir = self.cursor.dir();
        let stat = fstat(dir).map_err(|error| failure("read", &path, error))?;
        let raw = meta::read_xattrs(dir).map_err(|error| failure("read", &path, error))?;
        let path = if path.is_empty() { b"./".to_vec() } else { path };
        let entry = self.entry(path, EntryKind::Directory, &stat, raw);
        self.writer.append(&entry, &mut std::io::empty())
    }

    /// Writes a file, or a hard link to the file `link`.
    fn file(&mut self, names: &[&[u8]], path: Vec<u8>, link: Option<Vec<u8>>) -> Result<()> {
        let Some((&name, parents)) = names.split_last() else { return Ok(()) };
        let failed = |error| failure("read", &path, error);
        self.cursor.go(parents).map_err(failed)?;
        let dir = self.cursor.dir();
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::Fifo => EntryKind::Fifo,
            FileType::BlockDevice => EntryKind::BlockDevice,
            _ => EntryKind::CharDevice,
        };
        let mut content = None;
        let raw = if kind == EntryKind::File {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty()).map_err(failed)?;
            let raw = meta::read_xattrs(file.as_fd()).map_err(failed)?;
            content = Some(File::from(file));
            raw
        } else {
            meta::read_xattrs_at(dir, name, kind).map_err(failed)?
        };
        let target = match kind {
            EntryKind::Symlink => readlinkat(dir, name, Vec::new()).map_err(failed)?.into_bytes(),
            _ => Vec::new(),
        };
        let mut entry = self.entry(path, kind, &stat, raw);
        entry.link = target;
        if let Some(link) = link {
            (entry.kind, entry.link, entry.size) = (EntryKind::HardLink, link, 0);
        }
        match content {
            Some(mut file) if entry.kind == EntryKind::File => {
                self.writer.append(&entry, &mut file)
            }
            _ => self.writer.append(&entry, &mut std::io::empty()),
        }
    }

    /// Returns the entry with a file's intended metadata.
    fn entry(&self, path: Vec<u8>, kind: EntryKind, stat: &Stat, raw: Xattrs) -> Entry {
        let mut entry = meta::entry(path, kind, stat, comparable_upper(raw));
        if let Some(clamp) = self.clamp
            && entry.mtime > (Timestamp { seconds: clamp, nanoseconds: 0 })
        {
            entry.mtime = Timestamp { seconds: clamp, nanoseconds: 0 };
        }
        entry
    }
}
