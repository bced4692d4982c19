//! Checks an image for files.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::build_rootfs::BuildRootfs;
use super::confine::own_mounts;
use super::overlay;
use crate::channel::Channel;
use crate::error::Result;
use crate::rootfs::open_in_root;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Request: check an image for files. Descriptors: the user namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct LookRequest {
    overlay: Overlay,
    paths: Vec<String>,
}

impl Sandbox {
    /// Returns for each of these paths whether it exists in the image of a build directory.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn present(&self, rootfs: &BuildRootfs<'_>, paths: &[&str]) -> Result<Vec<bool>> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = LookRequest { overlay: rootfs.overlay().clone(), paths };
        Stage::start(self.layer_store(), &request, &[self.namespace()])?.finish()
    }
}

impl Request for LookRequest {
    const NAME: &'static str = "look";
    type Answer = Vec<bool>;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<Vec<bool>> {
        namespace::join(channel, fds.take()?)?;
        look(&self)
    }
}

/// Returns for each path whether it exists.
fn look(request: &LookRequest) -> Result<Vec<bool>> {
    own_mounts()?;
    overlay::enter(&request.overlay)?;
    let image = overlay::open("../before")?;
    let found = |path: &String| {
        let path = Path::new(path.trim_start_matches('/'));
        open_in_root(image.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC).is_ok()
    };
    Ok(request.paths.iter().map(found).collect())
}
