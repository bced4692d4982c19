//! Unpacking, diffing and removing trees: the stages' side, as root of the user namespace and with
//! nothing of the host in reach.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use serde::{Deserialize, Serialize};

use super::overlay;
use super::spec::Overlay;
use super::stage::protocol::{Descriptors, Request};
use super::userns::namespace;
use crate::channel::Channel;
use crate::error::{Context, Error, IoContext, Result};
use crate::layer::compress::Encoder;
use crate::layer::diff;
use crate::layer::entry::Timestamp;
use crate::layer::meta::IdRanges;
use crate::layer::settings::Settings;
use crate::layer::unpack::{Mode as UnpackMode, UnpackOptions, UnpackReport, unpack_layer};
use crate::layer::verify::read_verified;
use crate::oci::media_type::Compression;
use crate::oci::{Digest, DigestWriter};
use crate::remove::remove_tree;

/// A layer to unpack. The user namespace, the blob.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnpackRequest {
    /// The empty directory to unpack into, relative to the tree area.
    pub(super) into: String,
    pub(super) compression: Compression,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
    /// The layers below, for hard links to their files.
    pub(super) below: Overlay,
    pub(super) ids: IdRanges,
}

/// A script's changes to write as a layer. The user namespace, the file for the blob.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DiffRequest {
    pub(super) overlay: Overlay,
    pub(super) compression: Settings,
    pub(super) threads: usize,
    /// The file system's clock when the script began: seconds, nanoseconds.
    pub(super) started: (i64, u32),
    pub(super) clamp_mtime: Option<i64>,
}

/// Trees of the tree area to remove. The user namespace, if they belong to one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RemoveRequest(pub(super) Vec<String>);

/// A layer that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WrittenLayer {
    /// Of the blob as stored.
    pub digest: Digest,
    /// Of the blob as stored; bytes.
    pub size: u64,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// How many entries the tar has.
    pub entries: u64,
    /// Sockets that were left out; a layer can't hold them.
    pub sockets: Vec<String>,
}

/// Unpacks a layer, verifying the blob's digest and size and the tar's diff ID as they stream.
fn unpack(request: &UnpackRequest, blob: OwnedFd) -> Result<UnpackReport> {
    own_mounts()?;
    let lower = if request.below.lowers.is_empty() {
        None
    } else {
        let here = overlay::open(".")?;
        overlay::enter(&request.below)?;
        let lower = overlay::open("../before")?;
        nix::unistd::fchdir(&here)
            .map_err(|errno| Error::sandbox("can't go back to the tree area").source(errno))?;
        Some(lower)
    };
    let root = confine_to(&request.into)?;
    let options = UnpackOptions {
        mode: UnpackMode::Overlay,
        ids: request.ids.clone(),
        lower: lower.as_ref().map(AsFd::as_fd),
    };
    let UnpackRequest { digest, size, compression, diff_id, .. } = *request;
    unpack_verified(blob, (digest, size), compression, diff_id, &root, &options)
}

/// Unpacks `blob` at `root`, verifying its digest and size and the diff ID.
pub(super) fn unpack_verified(
    blob: OwnedFd,
    (digest, size): (Digest, u64),
    compression: Compression,
    diff_id: Digest,
    root: &OwnedFd,
    options: &UnpackOptions<'_>,
) -> Result<UnpackReport> {
    let unpack = |tar: &mut dyn Read| unpack_layer(tar, root.as_fd(), options);
    let report = read_verified(File::from(blob), (digest, size), compression, diff_id, unpack)?;
    rustix::fs::syncfs(root).io("sync", format!("layer {digest}"))?;
    Ok(report)
}

/// Unpacks a pack's tar at `root`, in a file system of its own.
pub(super) fn unpack_pack(tar: OwnedFd, root: &OwnedFd) -> Result<()> {
    let mut tar = File::from(tar);
    tar.rewind().io("rewind", "the pack's tar")?;
    let options = UnpackOptions { mode: UnpackMode::Plain, ids: IdRanges::up_to(0), lower: None };
    unpack_layer(&mut tar, root.as_fd(), &options).context("the pack").map(drop)
}

/// Writes what a script changed as a compressed layer.
fn diff(request: &DiffRequest, blob: OwnedFd) -> Result<WrittenLayer> {
    own_mounts()?;
    overlay::enter(&request.overlay)?;
    let before = overlay::open("../before")?;
    let upper = overlay::open("../upper")?;
    confine_to("../empty")?;
    let stored = DigestWriter::new(BufWriter::with_capacity(1 << 18, File::from(blob)));
    let encoder = Encoder::new(stored, request.compression, request.threads)?;
    let mut tar = DigestWriter::new(encoder);
    let (seconds, nanoseconds) = request.started;
    let changes = diff::DiffRequest {
        upper: upper.as_fd(),
        before: before.as_fd(),
        started: Timestamp { seconds, nanoseconds },
        clamp_mtime: request.clamp_mtime,
    };
    let report = diff::diff(&changes, &mut tar)?;
    let (encoder, diff_id, _) = tar.finish();
    let (mut file, digest, size) = encoder.finish()?.finish();
    file.flush().io("write", "the new layer")?;
    let sockets = report.sockets.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
    Ok(WrittenLayer { digest, size, diff_id, entries: report.entries, sockets })
}

/// Removes trees of the tree area.
fn remove(paths: &[String]) -> Result<()> {
    let here = overlay::open(".")?;
    paths.iter().try_for_each(|path| remove_patiently(here.as_fd(), path).io("remove", path))
}

/// As [`remove_tree`], again for a while as long as something is made in there: after an interrupt a
/// script's processes are being killed, and svp can't wait for them.
fn remove_patiently(here: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    for _ in 0..100 {
        match remove_tree(here, path) {
            Err(Errno::NOTEMPTY | Errno::NOENT) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
    remove_tree(here, path)
}

pub(super) fn own_mounts() -> Result<()> {
    // Unpacking has no use for a network or for System V IPC either.
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    unshare(flags).map_err(|errno| Error::sandbox("can't make a mount namespace").source(errno))?;
    overlay::make_private()
}

/// Makes this process's root an empty file system with the directory at `path` in it, and nothing of
/// the host but this process's own descriptors, at the path where every library looks for them.
pub(super) fn confine_to(path: &str) -> Result<OwnedFd> {
    confine_fd(path, &overlay::open(path)?)
}

/// As [`confine_to`], for an open directory; `at` is one to put the empty file system on.
pub(super) fn confine_fd(at: &str, tree: &OwnedFd) -> Result<OwnedFd> {
    let mut trees = confine_all(at, &[tree])?;
    trees.pop().ok_or_else(|| Error::sandbox("no tree to confine a stage to"))
}

/// As [`confine_fd`], for several.
pub(super) fn confine_all(at: &str, trees: &[&OwnedFd]) -> Result<Vec<OwnedFd>> {
    confine(at, trees)
        .map_err(|error| Error::sandbox(format!("can't confine a stage to {at}")).source(error))?;
    (0..trees.len()).map(|n| overlay::open(format!("/tree{n}"))).collect()
}

fn confine(at: &str, trees: &[&OwnedFd]) -> io::Result<()> {
    mount("svp", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755,size=64k")?;
    std::env::set_current_dir(at)?;
    std::fs::create_dir_all("proc/self/fd")?;
    for (n, tree) in trees.iter().enumerate() {
        let name = format!("tree{n}");
        std::fs::create_dir(&name)?;
        mount_bind(format!("/proc/self/fd/{}", tree.as_raw_fd()), name)?;
    }
    mount_bind("/proc/self/fd", "proc/self/fd")?;
    nix::unistd::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

impl Request for UnpackRequest {
    const NAME: &'static str = "unpack";
    type Answer = UnpackReport;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<UnpackReport> {
        namespace::join(channel, fds.take()?)?;
        unpack(&self, fds.take()?)
    }
}

impl Request for DiffRequest {
    const NAME: &'static str = "diff";
    type Answer = WrittenLayer;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<WrittenLayer> {
        namespace::join(channel, fds.take()?)?;
        diff(&self, fds.take()?)
    }
}

impl Request for RemoveRequest {
    const NAME: &'static str = "remove";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        fds.take_optional().map_or(Ok(()), |namespace| namespace::join(channel, namespace))?;
        remove(&self.0)
    }
}
