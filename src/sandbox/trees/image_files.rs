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
    /// Whether each must be a directory, not a link to one.
    directories: bool,
}

impl Sandbox {
    /// Returns for each of these paths whether it exists in the image of a build directory.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn present(&self, rootfs: &BuildRootfs<'_>, paths: &[&str]) -> Result<Vec<bool>> {
        self.look(rootfs, paths, false)
    }

    /// Returns whether the image of a build directory has a directory at `path`; a link to one doesn't count.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn has_directory(&self, rootfs: &BuildRootfs<'_>, path: &str) -> Result<bool> {
        // An overlay needs a layer.
        let empty = rootfs.overlay().lowers.is_empty();
        Ok(!empty && self.look(rootfs, &[path], true)? == [true])
    }

    fn look(
        &self,
        rootfs: &BuildRootfs<'_>,
        paths: &[&str],
        directories: bool,
    ) -> Result<Vec<bool>> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = LookRequest { overlay: rootfs.overlay().clone(), paths, directories };
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

/// Returns for each path whether it exists as requested.
fn look(request: &LookRequest) -> Result<Vec<bool>> {
    own_mounts()?;
    overlay::enter(&request.overlay)?;
    let image = overlay::open("../before")?;
    let kind = match request.directories {
        true => OFlags::DIRECTORY | OFlags::NOFOLLOW,
        false => OFlags::empty(),
    };
    let found = |path: &String| {
        let path = Path::new(path.trim_start_matches('/'));
        open_in_root(image.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC | kind).is_ok()
    };
    Ok(request.paths.iter().map(found).collect())
}
