//! Confines a stage: a private mount namespace, and a root that contains nothing of the host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::overlay;
use crate::error::{Error, Result};
use crate::layer::meta::proc_path;
use crate::sandbox::landlock::{self, Access};
use crate::sandbox::userns::cause::no_namespaces;

/// Creates new mount, network and IPC namespaces for this process.
pub(in crate::sandbox) fn own_mounts() -> Result<()> {
    // Unpacking needs neither a network nor System V IPC.
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    unshare(flags).map_err(|errno| no_namespaces("a mount namespace", errno))?;
    overlay::make_private()
}

/// Replaces this process's root with an otherwise empty file system that contains the directory at `path`. Of the host,
/// only this process's descriptors stay visible, in /proc/self/fd, where libraries expect them.
///
/// Landlock is the second wall: this process and its later threads can read the trees in `read`, which are open already,
/// and write only in the directory.
pub(in crate::sandbox) fn confine_to(path: &str, read: &[&OwnedFd]) -> Result<OwnedFd> {
    confine_fd(path, &overlay::open(path)?, read)
}

/// As [`confine_to`], for an open directory; the empty file system is mounted at `at`.
pub(in crate::sandbox) fn confine_fd(
    at: &str,
    tree: &OwnedFd,
    read: &[&OwnedFd],
) -> Result<OwnedFd> {
    let mut trees = confine_all(at, &[tree], read)?;
    trees.pop().ok_or_else(|| Error::sandbox("no tree to confine a stage to"))
}

/// As [`confine_fd`], for several directories.
pub(in crate::sandbox) fn confine_all(
    at: &str,
    trees: &[&OwnedFd],
    read: &[&OwnedFd],
) -> Result<Vec<OwnedFd>> {
    confine(at, trees)
        .map_err(|error| Error::sandbox(format!("can't confine a stage to {at}")).source(error))?;
    let open = |n| overlay::open(format!("/tree{n}"));
    let trees = (0..trees.len()).map(open).collect::<Result<Vec<_>>>()?;
    let descriptors = overlay::open("/proc")?;
    let readable = read.iter().copied().chain([&descriptors]);
    let rules = trees.iter().map(|tree| (tree.as_fd(), Access::Write));
    let rules: Vec<_> = rules.chain(readable.map(|fd| (fd.as_fd(), Access::Read))).collect();
    landlock::restrict(&rules)?;
    Ok(trees)
}

fn confine(at: &str, trees: &[&OwnedFd]) -> io::Result<()> {
    mount("svp", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755,size=64k")?;
    std::env::set_current_dir(at)?;
    std::fs::create_dir_all("proc/self/fd")?;
    for (n, tree) in trees.iter().enumerate() {
        let name = format!("tree{n}");
        std::fs::create_dir(&name)?;
        mount_bind(proc_path(tree.as_fd()), name)?;
    }
    mount_bind("/proc/self/fd", "proc/self/fd")?;
    nix::unistd::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
