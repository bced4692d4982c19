//! `svp unpack`: an image's root file system in a directory.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, IoContext, Result};
use crate::interrupt;
use crate::layer::compress::decoder;
use crate::layer::meta::IdRanges;
use crate::layer::unpack::{Mode, UnpackOptions, UnpackReport, unpack_layer};
use crate::oci::media_type::Compression;
use crate::oci::{DigestReader, Image, Layer};
use crate::progress::Reporter;
use crate::store::Store;

/// Unpacks an image of the store into `dir`, which must not exist or be empty; it appears when it is whole.
///
/// Owners are kept where the caller may give files away, devices made where the caller may make them; the
/// report lists the rest.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if `dir` is not empty,
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a damaged layer,
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub fn unpack(
    store: &Store,
    image: &Image,
    dir: &Path,
    reporter: &dyn Reporter,
) -> Result<UnpackReport> {
    check(dir)?;
    let absolute = std::path::absolute(dir).io("find", dir)?;
    let parent = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    let staging = tempfile::Builder::new()
        .prefix(".svp-unpack-")
        .tempdir_in(&parent)
        .io("make a directory in", &parent)?;
    let tree = staging.path().join("tree");
    std::fs::create_dir(&tree).io("make", &tree)?;
    let root = std::fs::File::open(&tree).io("open", &tree)?;
    let options = UnpackOptions { mode: Mode::Plain, ids: own_ids()?, lower: None };
    let mut total = UnpackReport::default();
    for layer in image.layers() {
        reporter.step(&format!("unpacking layer {}", layer.descriptor.digest.short()));
        let report = one(store, layer, &root, &options)?;
        total.entries += report.entries;
        total.bytes += report.bytes;
        total.unmade_count += report.unmade_count;
        total.unmade.extend(report.unmade);
    }
    std::fs::rename(&tree, dir).io("make", dir)?;
    Ok(total)
}

/// Refuses a directory that has something in it.
fn check(dir: &Path) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::usage(format!("{} {why}", dir.display()))
            .hint("name a directory that doesn't exist yet, or an empty one"))
    };
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            refuse("is not a directory")
        }
        Err(error) => Err(Error::io("list", dir, error)),
        Ok(mut entries) => match entries.next() {
            Some(_) => refuse("is not empty"),
            None => Ok(()),
        },
    }
}

fn one(
    store: &Store,
    layer: &Layer,
    root: &std::fs::File,
    options: &UnpackOptions<'_>,
) -> Result<UnpackReport> {
    let descriptor = &layer.descriptor;
    let name = format!("layer {}", descriptor.digest);
    let compression = Compression::of_layer(&descriptor.media_type)?;
    let blob = Interruptible(store.blob_reader(descriptor)?);
    let tar = decoder(blob, compression).context(&name)?;
    let mut tar = DigestReader::expecting(tar, layer.diff_id, None);
    let unpacked = unpack_layer(&mut tar, root.as_fd(), options);
    interrupt::check()?;
    let report = unpacked.context(&name)?;
    tar.drain().map_err(|error| Error::bad_input(name).source(error))?;
    Ok(report)
}

/// Everyone's ids for root, the caller's own for anyone else.
fn own_ids() -> Result<IdRanges> {
    if rustix::process::geteuid().is_root() {
        return Ok(IdRanges::all());
    }
    let one = |id: u32| (id, id);
    let mut groups = vec![one(rustix::process::getegid().as_raw())];
    let others = rustix::process::getgroups().map_err(|error| {
        Error::sandbox("can't tell your groups").source(std::io::Error::from(error))
    })?;
    groups.extend(others.into_iter().map(|gid| one(gid.as_raw())));
    Ok(IdRanges { users: vec![one(rustix::process::geteuid().as_raw())], groups })
}

/// Stops reading when the user has asked svp to stop.
struct Interruptible<R>(R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if interrupt::requested() {
            return Err(std::io::Error::other("interrupted"));
        }
        self.0.read(buf)
    }
}
