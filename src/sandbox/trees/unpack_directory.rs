//! Unpacks an image into any directory of the caller, outside the layer store, for `svp unpack`.
//!
//! Root restores every owner and creates devices. An ordinary user becomes root of a user namespace with a single
//! id, so that files of the image's root belong to the caller, who can remove them again; other owners, and
//! devices, are skipped and reported. So are setuid and setgid bits: the image's root becomes the caller, and a program
//! that runs as root in the image would run as the caller for every user of the host. Either way the stage sees nothing but the directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::confine::{confine_fd, own_mounts};
use super::layer_store::LayerSource;
use super::overlay;
use super::unpack::unpack_verified;
use crate::channel::Channel;
use crate::error::{Error, IoContext, Result};
use crate::layer::meta::IdRanges;
use crate::layer::unpack::{Mode, UnpackOptions, UnpackReport};
use crate::oci::Digest;
use crate::progress::{Reporter, Step};
use crate::remove_tree::remove_tree;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::die_with_parent;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::cause::no_user_namespace;

/// Request: apply a layer to the stage's directory. Descriptors: the blob.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct DirectoryRequest {
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

/// Request: remove everything in the stage's directory. No descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ClearRequest;

impl Request for DirectoryRequest {
    const NAME: &'static str = "directory";
    type Answer = UnpackReport;

    fn serve(self, _: &Channel, mut fds: Descriptors) -> Result<UnpackReport> {
        apply(&self, fds.take()?)
    }
}

impl Request for ClearRequest {
    const NAME: &'static str = "clear";
    type Answer = ();

    fn serve(self, _: &Channel, _: Descriptors) -> Result<()> {
        clear_stage()
    }
}

/// Applies layers, the lowest first, to the directory `dir`; the reports list what could not be created.
/// After a failure the directory is empty.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a layer that doesn't match its digests or is malformed,
/// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub(crate) fn unpack_into(
    dir: &Path,
    layers: impl IntoIterator<Item = Result<LayerSource>>,
    reporter: &dyn Reporter,
) -> Result<Vec<UnpackReport>> {
    let mut apply = |layer: Result<LayerSource>| -> Result<UnpackReport> {
        let layer = layer?;
        reporter.step(Step::UnpackLayer { digest: layer.digest.to_string() });
        let request =
            DirectoryRequest { digest: layer.digest, size: layer.size, diff_id: layer.diff_id };
        let stage = Stage::start(dir, &request, &[layer.blob.as_fd()])?;
        stage.finish().map_err(|error| layer.explain(error))
    };
    let result: Result<Vec<_>> = layers.into_iter().map(&mut apply).collect();
    if result.is_err() {
        // The first failure is the one to report.
        let _ = clear(dir);
    }
    result
}

fn clear(dir: &Path) -> Result<()> {
    Stage::start_cleanup(dir, &ClearRequest, &[])?.finish()
}

/// Runs [`unpack_into`] in the stage.
fn apply(request: &DirectoryRequest, blob: OwnedFd) -> Result<UnpackReport> {
    let ids = become_root()?;
    let root = enter()?;
    let drop_set_id = ids != IdRanges::all();
    let options = UnpackOptions { mode: Mode::Plain, ids, lower: None, drop_set_id };
    let DirectoryRequest { digest, size, diff_id } = *request;
    unpack_verified(blob, (digest, size), diff_id, &root, &options)
}

/// Removes everything in the directory, in the stage.
fn clear_stage() -> Result<()> {
    become_root()?;
    let root = enter()?;
    let names = rustix::fs::Dir::read_from(&root).io("list", "the directory")?;
    for entry in names {
        let entry = entry.io("list", "the directory")?;
        let name = entry.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            remove_tree(root.as_fd(), &name)
                .io("remove", String::from_utf8_lossy(&name).as_ref())?;
        }
    }
    Ok(())
}

/// Creates a mount namespace that contains nothing but the stage's directory.
fn enter() -> Result<OwnedFd> {
    own_mounts()?;
    confine_fd("/dev", &overlay::open(".")?, &[])
}

/// Becomes root, in a new user namespace if necessary; returns the ids that files can have.
fn become_root() -> Result<IdRanges> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return Ok(IdRanges::all());
    }
    unshare(CloneFlags::CLONE_NEWUSER).map_err(no_user_namespace)?;
    let write = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, text)
            .map_err(|error| Error::sandbox(format!("can't write {path}")).source(error))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {} 1", uid.as_raw()))?;
    write("gid_map", format!("0 {} 1", gid.as_raw()))?;
    die_with_parent();
    Ok(IdRanges::up_to(0))
}
