//! `svp import`: creates an image of one layer from the tar of a root file system.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::rc::Rc;

use crate::error::{Context, Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::layer::compress::{Encoder, detect, read_full};
use crate::layer::entry::EntryKind;
use crate::layer::outline::Outline;
use crate::layer::path::EntryPath;
use crate::layer::read::TarReader;
use crate::layer::settings::Settings;
use crate::oci::config::timestamp;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, History, Image, Platform, Reference};
use crate::progress::{Reporter, Step};
use crate::shell_words::quote_path;
use crate::source::layer::report_ignored;
use crate::source::tee::{Failure, Tee, decompress};
use crate::store::{LayerNote, Store};

/// The keywords that reading the tar ignored.
type Ignored = BTreeSet<&'static str>;

/// `PATH` in an imported image, as Docker and podman set it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Options of an import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The platform of the root file system's programs.
    pub platform: Platform,
    /// The image's creation time, in seconds since 1970.
    pub created: i64,
    /// Number of threads that compress an uncompressed tar.
    pub threads: usize,
}

/// The tar of a root file system, compressed or not, and its name in messages.
pub struct Input {
    reader: Box<dyn Read + Send>,
    name: String,
}

impl Input {
    /// Opens `path`, or stdin for `-`.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if there is no such file; [`Kind::Usage`] if stdin is a terminal.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        if name == "-" {
            if io::stdin().is_terminal() {
                return Err(Error::usage("standard input is a terminal, not a tar")
                    .hint("name a file, or pipe a tar: tar -C DIR -c . | svp import - -t REF"));
            }
            return Ok(Input { reader: Box::new(io::stdin()), name: "stdin".into() });
        }
        let missing = |error: Error| match path.exists() {
            true => error,
            false => error.with_kind(Kind::BadInput),
        };
        let file = File::open(path).io("open", path).map_err(missing)?;
        if file.metadata().io("read", path)?.is_dir() {
            return Err(Error::bad_input(format!("{name} is a directory")).hint(format!(
                "import its tar: `tar -C {} --numeric-owner --xattrs -c . | svp import - -t REF`",
                quote_path(&name)
            )));
        }
        Ok(Input { reader: Box::new(file), name })
    }
}

/// Creates and tags an image from the tar of a root file system. Keeps the bytes of a gzip or zstd tar;
/// compresses a plain one with gzip. Leaves the store unchanged on failure.
///
/// # Errors
/// [`Kind::BadInput`] if the input is not a tar, is damaged or empty, or is an image archive instead of a root
/// file system; [`Kind::Storage`].
pub fn import(
    input: Input,
    store: &Store,
    reference: &Reference,
    options: &ImportOptions,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let Input { mut reader, name } = input;
    let created = timestamp(options.created)?;
    reporter.step(Step::Import { input: name.clone(), reference: reference.tagged() });
    let mut head = [0; 6];
    let length = read_full(&mut reader, &mut head).io("read", &name)?;
    let reader = Box::new(io::Cursor::new(head[..length].to_vec()).chain(reader));
    let found = detect(&head[..length]);
    let writer = store.blob_writer()?;
    let (writer, (diff_id, ignored)) = match found {
        Compression::None => {
            let encoder = Encoder::new(writer, Settings::default(), options.threads)?;
            let (encoder, read) = copy(reader, encoder, &name)?;
            (encoder.finish()?, read)
        }
        _ => copy(reader, writer, &name)?,
    };
    report_ignored(&ignored, &name, reporter);
    let kept = if found == Compression::None { Compression::Gzip } else { found };
    let mut image = Image::new(&options.platform);
    let config = image.config_mut();
    config.set_created(&created);
    if let Some((name, value)) = PATH.split_once('=') {
        config.set_env(name, value);
    }
    let (digest, size) = writer.finish()?;
    store.note_layer(&digest, &LayerNote { diff_id, needs_lower: false, below: None })?;
    let entry =
        History { created: Some(created), created_by: "svp import".into(), ..Default::default() };
    image.append_layer(Descriptor::new(kept.layer_media_type(), digest, size), diff_id, &entry)?;
    store.insert_image(&image, reference)
}

/// Reads and checks the whole tar while copying its bytes to `output`.
fn copy<W: io::Write + 'static>(
    reader: Box<dyn Read + Send>,
    output: W,
    name: &str,
) -> Result<(W, (Digest, Ignored))> {
    let tee = Rc::new(RefCell::new(Tee::new(reader, output)));
    let result = decompress(&tee, check);
    let tee = Rc::into_inner(tee).expect("the decoder is gone").into_inner();
    match (tee.failure, result) {
        (Some(Failure::Read(error)), _) => Err(Error::io("read", name, error)),
        (Some(Failure::Write(error)), _) => Err(Error::io("write a layer of", name, error)),
        (None, Err(error)) => Err(error)
            .context(name)
            .hint("import the tar of a root file system, plain or compressed with gzip or zstd"),
        (None, Ok(read)) => Ok((tee.output, read)),
    }
}

/// Reads a tar's entries; refuses those that can't be unpacked, and image archives.
fn check(mut tar: &mut dyn Read) -> Result<Ignored> {
    let mut reader = TarReader::new(&mut tar);
    let mut outline = Outline::of_image();
    let mut names = TopNames::default();
    while let Some(entry) = reader.next_entry()? {
        interrupt::check()?;
        outline.add(&entry)?;
        names.add(&EntryPath::parse(&entry.path)?, entry.kind);
    }
    reader.drain()?;
    let ignored = reader.ignored().clone();
    let hint = match names {
        TopNames { any: false, .. } => return Err(Error::bad_input("the tar is empty")),
        // A root file system may have files of these names.
        TopNames { other: true, .. } => return Ok(ignored),
        TopNames { layout: true, .. } => "use it directly, as oci-archive:FILE, or `svp load` it",
        TopNames { docker: true, .. } => {
            "it was written by docker save: use it directly, as docker-archive:FILE, or `svp load` it"
        }
        _ => return Ok(ignored),
    };
    Err(Error::bad_input("the tar is an image archive, not a root file system").hint(hint))
}

/// What the names at the root of a tar tell about it.
#[derive(Default)]
struct TopNames {
    any: bool,
    /// Whether there is a file `oci-layout`.
    layout: bool,
    /// Whether there is a file `manifest.json`.
    docker: bool,
    /// Whether there is a name that image archives don't have.
    other: bool,
}

impl TopNames {
    fn add(&mut self, path: &EntryPath, kind: EntryKind) {
        self.any = true;
        let Some(top) = path.names().next() else { return };
        let alone = kind == EntryKind::File && path.names().count() == 1;
        match top {
            b"oci-layout" => self.layout |= alone,
            b"manifest.json" => self.docker |= alone,
            b"index.json" | b"blobs" | b"repositories" => {}
            // docker save and podman save name configs and layers after digests.
            name => {
                let name =
                    name.strip_suffix(b".json").or(name.strip_suffix(b".tar")).unwrap_or(name);
                self.other |= name.len() != 64 || !name.iter().all(u8::is_ascii_hexdigit);
            }
        }
    }
}
