//! Random access to the files in a tar archive: one pass finds their offsets. An archive that is compressed or not a
//! regular file is first written to staging, uncompressed.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Context, Error, IoContext, Kind, Result};
use crate::layer::compress::{decoder, detect, read_full};
use crate::layer::entry::EntryKind;
use crate::layer::read::TarReader;
use crate::oci::media_type::Compression;
use crate::store::{Staging, Store};

/// The maximum number of files in an archive; image archives have far fewer.
const MAX_FILES: usize = 200_000;
/// Files with longer names (in bytes) are ignored; image archives have only short names.
const MAX_NAME: usize = 1024;
/// The maximum number of links followed to a file.
const MAX_LINKS: usize = 8;

/// The hint for files that are not image archives.
pub(super) const ARCHIVES: &str = "an image archive is a tar of an OCI layout or the output of docker save, plain or \
     compressed with gzip or zstd; use `svp import` for a root file system";

/// An archive, and the offsets of its files.
pub(super) struct Tarball {
    path: PathBuf,
    file: Arc<File>,
    names: HashMap<Vec<u8>, Node>,
    // The directory of the uncompressed copy, if any; removed on drop.
    _staging: Option<Staging>,
}

/// An entry of the archive.
enum Node {
    File(Span),
    /// A link to another name in the archive.
    Link(Vec<u8>),
}

/// A byte range in the archive.
#[derive(Clone, Copy)]
pub(super) struct Span {
    start: u64,
    pub(super) size: u64,
}

impl Tarball {
    /// Opens the archive at `path`; `-` is standard input.
    pub(super) fn open(path: &Path, store: &Store) -> Result<Self> {
        let (file, staging) = plain(path, store)?;
        let names = scan(&file).map_err(|error| not_an_archive(path, error))?;
        Ok(Tarball { path: path.to_owned(), file: Arc::new(file), names, _staging: staging })
    }

    /// Returns the archive's path as given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds the file `name`, following links.
    pub(super) fn find(&self, name: &str) -> Option<Span> {
        let mut name = name.strip_prefix("./").unwrap_or(name).as_bytes();
        for _ in 0..=MAX_LINKS {
            match self.names.get(name)? {
                Node::File(span) => return Some(*span),
                Node::Link(target) => name = target,
            }
        }
        None
    }

    /// Reads the file `name`; `None` if there is none.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if the file has more than `max` bytes.
    pub(super) fn read_small(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let Some(span) = self.find(name) else { return Ok(None) };
        if span.size > max {
            let shown = self.path.display();
            return Err(Error::bad_input(format!("{shown}: {name} has more than {max} bytes")));
        }
        let mut bytes = Vec::new();
        self.section(span).read_to_end(&mut bytes).io("read", &self.path)?;
        Ok(Some(bytes))
    }

    /// Returns a reader of a byte range.
    pub(super) fn section(&self, span: Span) -> Section {
        Section::new(self.file.clone(), span)
    }
}

/// Opens the archive as an uncompressed tar in a seekable file, with the staging directory of a copy.
fn plain(path: &Path, store: &Store) -> Result<(File, Option<Staging>)> {
    let piped = path == Path::new("-");
    if piped && io::stdin().is_terminal() {
        return Err(Error::usage("standard input is a terminal, not an image archive").hint(
            "name a file instead of -, as in `svp load --input FILE`, or pipe an archive into svp",
        ));
    }
    let mut file = if piped {
        File::from(io::stdin().as_fd().try_clone_to_owned().io("read", "standard input")?)
    } else {
        File::open(path).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = Error::io("open", path, error);
            if missing { error.with_kind(Kind::BadInput) } else { error }
        })?
    };
    let metadata = file.metadata().io("read", path)?;
    if metadata.is_dir() {
        return Err(Error::bad_input(format!("{} is a directory", path.display()))
            .hint("for the directory of an OCI layout, use `svp pull oci:DIR`"));
    }
    let mut head = [0; 6];
    let length = read_full(&mut file, &mut head).io("read", path)?;
    let compression = detect(&head[..length]);
    if metadata.is_file() && !piped && compression == Compression::None {
        file.rewind().io("read", path)?;
        return Ok((file, None));
    }
    let staging = store.stage()?;
    let copy_path = staging.path().join("archive.tar");
    let mut copy = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&copy_path)
        .io("create", &copy_path)?;
    let whole = io::Cursor::new(head[..length].to_vec()).chain(file);
    let mut tar = decoder(whole, compression).context(path.display())?;
    io::copy(&mut tar, &mut copy).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::bad_input(format!("{} is damaged or cut off", path.display())).source(error)
        }
        _ => Error::io("copy", path, error),
    })?;
    copy.rewind().io("read", &copy_path)?;
    Ok((copy, Some(staging)))
}

/// Adds a hint to a tar error: the file may be of another type.
fn not_an_archive(path: &Path, error: Error) -> Error {
    if error.kind() != Kind::BadInput {
        return error.context(path.display());
    }
    error
        .context(format!("{} is not an image archive, or is damaged", path.display()))
        .hint(ARCHIVES)
}

/// Indexes the files by name. Of several files with one name the last counts, as in tar.
fn scan(file: &File) -> Result<HashMap<Vec<u8>, Node>> {
    let length = file.metadata().io("read", "the archive")?.len();
    let position = Cell::new(0);
    let whole = Arc::new(file.try_clone().io("read", "the archive")?);
    let section = Section::new(whole, Span { start: 0, size: length });
    let mut input = Counting { inner: section, position: &position };
    let mut reader = TarReader::new(&mut input);
    let mut names = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path).to_vec();
        let node = match entry.kind {
            EntryKind::File => Node::File(Span { start: position.get(), size: entry.size }),
            EntryKind::HardLink => {
                Node::Link(entry.link.strip_prefix(b"./").unwrap_or(&entry.link).to_vec())
            }
            EntryKind::Symlink => match resolve_symlink(&name, &entry.link) {
                Some(target) => Node::Link(target),
                None => continue,
            },
            _ => continue,
        };
        if name.len() <= MAX_NAME {
            names.insert(name, node);
        }
        if names.len() > MAX_FILES {
            return Err(Error::bad_input(format!("it has more than {MAX_FILES} files")));
        }
    }
    Ok(names)
}

/// Resolves the relative symbolic link `name` with the given `target`; `None` if it leaves the archive.
fn resolve_symlink(name: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") || target.len() > MAX_NAME {
        return None;
    }
    let mut parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// A reader that tracks its position in the archive.
struct Counting<'a, R> {
    inner: R,
    position: &'a Cell<u64>,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.position.set(self.position.get() + n as u64);
        Ok(n)
    }
}

/// A reader of a byte range of a file, which does not move the file's position.
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Section {
    fn new(file: Arc<File>, span: Span) -> Self {
        Section { file, at: span.start, end: span.start.saturating_add(span.size) }
    }
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = left.min(buf.len());
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_the_archive() {
        let cases: [(&str, &str, Option<&str>); 6] = [
            ("a/layer.tar", "../b/layer.tar", Some("b/layer.tar")),
            ("a/layer.tar", "../x.tar", Some("x.tar")),
            ("layer.tar", "./b/./c", Some("b/c")),
            ("layer.tar", "../x", None),
            ("a/b", "../../x", None),
            ("a/b", "/x", None),
        ];
        for (name, target, expected) in cases {
            let found = resolve_symlink(name.as_bytes(), target.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{name} -> {target}");
        }
    }
}
