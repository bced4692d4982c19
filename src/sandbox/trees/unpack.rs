//! Unpacks a layer into the layer store, confined so that the host's files are out of reach.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::confine::{confine_to, own_mounts};
use super::overlay;
use crate::channel::Channel;
use crate::error::{Context, Error, IoContext, Result};
use crate::layer::meta::IdRanges;
use crate::layer::unpack::{Mode as UnpackMode, UnpackOptions, UnpackReport, unpack_layer};
use crate::layer::verify::read_verified;
use crate::oci::Digest;
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Request: unpack a layer. Descriptors: the user namespace, the blob.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct UnpackRequest {
    /// The empty directory to unpack into, relative to the layer store.
    pub(in crate::sandbox) into: String,
    pub(in crate::sandbox) digest: Digest,
    pub(in crate::sandbox) size: u64,
    pub(in crate::sandbox) diff_id: Digest,
    /// The layers below, to resolve hard links to their files.
    pub(in crate::sandbox) below: Overlay,
    pub(in crate::sandbox) ids: IdRanges,
}

impl Request for UnpackRequest {
    const NAME: &'static str = "unpack";
    type Answer = UnpackReport;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<UnpackReport> {
        namespace::join(channel, fds.take()?)?;
        unpack(&self, fds.take()?)
    }
}

/// Unpacks a layer, verifying the blob's digest and size and the tar's diff ID while streaming.
fn unpack(request: &UnpackRequest, blob: OwnedFd) -> Result<UnpackReport> {
    own_mounts()?;
    let lower = if request.below.lowers.is_empty() {
        None
    } else {
        let here = overlay::open(".")?;
        overlay::enter(&request.below)?;
        let lower = overlay::open("../before")?;
        nix::unistd::fchdir(&here)
            .map_err(|errno| Error::sandbox("can't return to the layer store").source(errno))?;
        Some(lower)
    };
    let root = confine_to(&request.into, &Vec::from_iter(&lower))?;
    let options = UnpackOptions {
        mode: UnpackMode::Overlay,
        ids: request.ids.clone(),
        lower: lower.as_ref().map(AsFd::as_fd),
        drop_set_id: false,
    };
    let UnpackRequest { digest, size, diff_id, .. } = *request;
    unpack_verified(blob, (digest, size), diff_id, &root, &options)
}

/// Unpacks `blob` at `root`, verifying its digest and size and the diff ID.
pub(in crate::sandbox) fn unpack_verified(
    blob: OwnedFd,
    (digest, size): (Digest, u64),
    diff_id: Digest,
    root: &OwnedFd,
    options: &UnpackOptions<'_>,
) -> Result<UnpackReport> {
    let unpack = |tar: &mut dyn Read| unpack_layer(tar, root.as_fd(), options);
    let report = read_verified(File::from(blob), (digest, size), diff_id, unpack)?;
    rustix::fs::syncfs(root).io("sync", format!("layer {digest}"))?;
    Ok(report)
}

/// Unpacks a pack's tar at `root`, a private file system.
pub(in crate::sandbox) fn unpack_pack(tar: OwnedFd, root: &OwnedFd) -> Result<()> {
    let mut tar = File::from(tar);
    tar.rewind().io("rewind", "the pack's tar")?;
    let options = UnpackOptions {
        mode: UnpackMode::Plain,
        ids: IdRanges::up_to(0),
        lower: None,
        drop_set_id: false,
    };
    unpack_layer(&mut tar, root.as_fd(), &options).context("the pack").map(drop)
}
