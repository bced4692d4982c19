//! Images in a tar archive of a layout, as `skopeo copy … oci-archive:FILE` and `podman save` write it.
//!
//! The archive is read once for the places of its blobs, and then each blob from its place. One that is
//! compressed, or no plain file, is first written to staging uncompressed.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::damaged;
use super::origin::Origin;
use crate::error::{Context, Error, IoContext, Result};
use crate::layer::compress::{decoder, detect};
use crate::layer::entry::EntryKind;
use crate::layer::read::TarReader;
use crate::oci::json::{MAX_MANIFEST, parse};
use crate::oci::layout::{MAX_INDEX, check_marker, find, index_entries};
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, DigestReader, Platform};
use crate::store::{Staging, Store};

/// More blobs are not kept track of: no image has as many.
const MAX_BLOBS: usize = 100_000;

/// An archive, and which of its images.
pub(super) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    blobs: HashMap<Digest, Span>,
    entries: Vec<Descriptor>,
    reference: Option<String>,
    // Holds the uncompressed copy, if there is one.
    _staging: Option<Staging>,
}

/// Where something is in the archive, in bytes.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    size: u64,
}

impl Archive {
    pub(super) fn open(path: &Path, reference: Option<&str>, store: &Store) -> Result<Self> {
        let (file, staging) = plain(path, store)?;
        let shown = path.display().to_string();
        let places = scan(&file).context(&shown)?;
        let file = Arc::new(file);
        let small = |span: Option<Span>, name: &str, max: u64| -> Result<Vec<u8>> {
            let span = span.filter(|span| span.size <= max).ok_or_else(|| {
                Error::bad_input(format!("{shown} has no {name}: it is no archive of an OCI layout"))
                    .hint("an archive written by docker save is copied by `skopeo copy docker-archive:FILE oci:DIR:REF`")
            })?;
            let mut bytes = Vec::new();
            Section::new(&*file, span).read_to_end(&mut bytes).io("read", path)?;
            Ok(bytes)
        };
        check_marker(&small(places.marker, "oci-layout", 4096)?, path)?;
        let name = format!("{shown}: index.json");
        let index = parse(&small(places.index, "index.json", MAX_INDEX)?, &name)?;
        let entries = index_entries(&index, &name)?;
        Ok(Archive {
            path: path.to_owned(),
            file,
            blobs: places.blobs,
            entries,
            reference: reference.map(str::to_owned),
            _staging: staging,
        })
    }
}

impl Origin for Archive {
    fn root(&self, platform: &Platform) -> Result<(Descriptor, Vec<u8>)> {
        let descriptor = find(&self.entries, self.reference.as_deref(), platform, &self.path)?;
        let bytes = self.manifest(&descriptor)?;
        Ok((descriptor, bytes))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.read(descriptor, MAX_MANIFEST)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let Descriptor { digest, size, .. } = *descriptor;
        let shown = self.path.display();
        let bad = |why: String| Error::bad_input(format!("the blob {digest} in {shown} {why}"));
        let span = *self.blobs.get(&digest).ok_or_else(|| bad("is missing".into()))?;
        if span.size != size {
            return Err(bad(format!("has {} bytes, not {size}", span.size)));
        }
        let section = Section::new(self.file.clone(), span);
        Ok(Box::new(DigestReader::expecting(section, digest, Some(size))))
    }

    fn read_error(&self, error: io::Error) -> Error {
        damaged(error, &self.path)
    }
}

/// The archive as a plain tar in a file that can be read anywhere.
fn plain(path: &Path, store: &Store) -> Result<(File, Option<Staging>)> {
    let mut file = File::open(path).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let error = Error::io("open", path, error);
        if missing { error.with_kind(crate::error::Kind::BadInput) } else { error }
    })?;
    let metadata = file.metadata().io("read", path)?;
    if metadata.is_dir() {
        return Err(Error::bad_input(format!("{} is a directory", path.display()))
            .hint("a layout's directory is written oci:DIR"));
    }
    let mut head = [0; 6];
    let length = crate::layer::compress::read_full(&mut file, &mut head).io("read", path)?;
    let compression = detect(&head[..length]);
    if metadata.is_file() && compression == Compression::None {
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
        .io("make", &copy_path)?;
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

/// Where a layout's files are in its archive.
#[derive(Default)]
struct Places {
    marker: Option<Span>,
    index: Option<Span>,
    blobs: HashMap<Digest, Span>,
}

/// Finds them. Directories and whatever else there is are of no interest; of two files with one name the
/// last counts, as tar has it, and blobs are verified when they are read.
fn scan(file: &File) -> Result<Places> {
    let length = file.metadata().io("read", "the archive")?.len();
    let position = Cell::new(0);
    let section = Section::new(file, Span { start: 0, size: length });
    let mut input = Counting { inner: section, position: &position };
    let mut reader = TarReader::new(&mut input);
    let mut places = Places::default();
    while let Some(entry) = reader.next_entry()? {
        if entry.kind != EntryKind::File {
            continue;
        }
        let span = Span { start: position.get(), size: entry.size };
        let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        match path {
            b"oci-layout" => places.marker = Some(span),
            b"index.json" => places.index = Some(span),
            _ => {
                let hex = path.strip_prefix(b"blobs/sha256/").and_then(|p| str::from_utf8(p).ok());
                if let Some(Ok(digest)) = hex.map(|hex| format!("sha256:{hex}").parse()) {
                    places.blobs.insert(digest, span);
                }
            }
        }
        if places.blobs.len() > MAX_BLOBS {
            return Err(Error::bad_input(format!("it has more than {MAX_BLOBS} blobs")));
        }
    }
    Ok(places)
}

/// Tells how far the archive has been read.
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

/// A part of a file, read without moving the file's own position.
struct Section<F> {
    file: F,
    at: u64,
    end: u64,
}

impl<F> Section<F> {
    fn new(file: F, span: Span) -> Self {
        Section { file, at: span.start, end: span.start.saturating_add(span.size) }
    }
}

impl<F: Deref<Target = File>> Read for Section<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = left.min(buf.len());
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
