//! Diffs the upper directory of a build against the layers below it, into a compressed layer.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::confine::{confine_to, own_mounts};
use super::overlay;
use super::unmapped_ids::MappedIds;
use crate::channel::Channel;
use crate::error::{IoContext, Result};
use crate::layer::compress::Encoder;
use crate::layer::diff;
use crate::layer::entry::Timestamp;
use crate::layer::settings::Settings;
use crate::oci::{Digest, DigestWriter};
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Request: write a script's changes as a layer. Descriptors: the user namespace, the file for the blob.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct DiffRequest {
    pub(in crate::sandbox) overlay: Overlay,
    pub(in crate::sandbox) compression: Settings,
    pub(in crate::sandbox) threads: usize,
    /// The file system's clock when the script started: seconds, nanoseconds.
    pub(in crate::sandbox) started: (i64, u32),
    pub(in crate::sandbox) clamp_mtime: Option<i64>,
}

/// A layer written by a diff.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WrittenLayer {
    /// The digest of the compressed blob.
    pub digest: Digest,
    /// The size of the compressed blob; bytes.
    pub size: u64,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The number of entries in the tar.
    pub entries: u64,
    /// Sockets that were skipped; a layer can't contain them.
    pub sockets: Vec<String>,
    /// New users and groups whose ids the container does not have.
    pub unmapped: Vec<String>,
}

impl Request for DiffRequest {
    const NAME: &'static str = "diff";
    type Answer = WrittenLayer;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<WrittenLayer> {
        namespace::join(channel, fds.take()?)?;
        write_diff(&self, fds.take()?)
    }
}

/// Writes a script's changes as a compressed layer.
fn write_diff(request: &DiffRequest, blob: OwnedFd) -> Result<WrittenLayer> {
    own_mounts()?;
    overlay::enter(&request.overlay)?;
    let before = overlay::open("../before")?;
    let upper = overlay::open("../upper")?;
    // Before the mounts are detached: below a detached one openat2 returns EAGAIN for every `..` in a link.
    let unmapped = MappedIds::of_this_process().find_unmapped(before.as_fd(), upper.as_fd());
    confine_to("../empty", &[&before, &upper])?;
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
    Ok(WrittenLayer { digest, size, diff_id, entries: report.entries, sockets, unmapped })
}
