//! Removes trees of the layer store, as root of the user namespace.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directories::TMP;
use super::overlay;
use crate::channel::Channel;
use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::remove_tree::remove_tree;
use crate::sandbox::landlock::{self, Access};
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;
use crate::store::Staging;

/// Request: remove trees of the layer store. Descriptors: the user namespace, if they belong to one.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct RemoveRequest(pub(in crate::sandbox) Vec<String>);

impl Request for RemoveRequest {
    const NAME: &'static str = "remove";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        fds.take_optional().map_or(Ok(()), |namespace| namespace::join(channel, namespace))?;
        remove_here(&self.0)
    }
}

fn remove_here(paths: &[String]) -> Result<()> {
    let here = overlay::open(".")?;
    landlock::restrict(&[(here.as_fd(), Access::Write)])?;
    paths.iter().try_for_each(|path| remove_with_retries(here.as_fd(), path).io("remove", path))
}

/// As [`remove_tree`], but retries for a while if files appear meanwhile: after an interrupt the script's processes may
/// still be running, and svp can't wait for them.
fn remove_with_retries(here: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
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

/// Removes trees of a layer store; an interrupt does not stop the removal.
pub(in crate::sandbox) fn remove(
    layer_store: &Path,
    namespace: BorrowedFd<'_>,
    paths: Vec<String>,
) -> Result<()> {
    Stage::start_cleanup(layer_store, &RemoveRequest(paths), &[namespace])?.finish_cleanup()
}

/// Removes the build directories of commands that have ended.
pub(in crate::sandbox) fn sweep(layer_store: &Path, namespace: BorrowedFd<'_>) {
    let tmp = layer_store.join(TMP);
    let Ok(entries) = fs::read_dir(&tmp) else { return };
    let mut locks = Vec::new();
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        if let Ok(Some(lock)) = Staging::lock_dead(&entry.path()) {
            locks.push(lock);
            dead.push(format!("tmp/{}", entry.file_name().to_string_lossy()));
        }
    }
    if !dead.is_empty() {
        let _cleaning = interrupt::cleaning();
        // Best effort: a later command removes the rest.
        let _ = remove(layer_store, namespace, dead);
    }
}
