//! A container's /sys: read-only, and only what it may know.
//!
//! With a network namespace of its own it is a new sysfs, which shows that namespace. The kernel mounts none for a
//! container in the host's network, nor where the existing one is partly hidden: then it is the host's, as with podman.
//! Either way the paths that docker and podman hide are hidden, and /sys/fs/cgroup shows the container's own cgroups,
//! where programs such as a JVM read their limits.

use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

use super::mounts::{Step, apply, make_read_only};
use crate::error::{Error, Result};
use crate::layer::meta::proc_path;
use crate::rootfs::open_in_root;
use crate::sandbox::cgroup::view::{CgroupMount, visible};
use crate::sys::set_read_only;

/// What no container may see: the firmware's tables, the energy meters and thermal events, which leak what other
/// processes compute, and the host's disks.
const HIDDEN: [&str; 4] =
    ["sys/firmware", "sys/fs/selinux", "sys/dev/block", "sys/devices/virtual/powercap"];

/// File systems that are mounted in the host's /sys; a new sysfs has empty directories there.
const HIDDEN_OF_HOST: [&str; 8] = [
    "sys/kernel/debug",
    "sys/kernel/tracing",
    "sys/kernel/security",
    "sys/kernel/config",
    "sys/fs/bpf",
    "sys/fs/pstore",
    "sys/fs/fuse/connections",
    "sys/fs/resctrl",
];

const CLOSED: MountFlags =
    MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts /sys, if the container has that directory; leaves it empty where the kernel allows neither kind.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if a part that must be hidden can't be.
pub(in crate::sandbox) fn mount_sys(root: BorrowedFd<'_>, own_network: bool) -> Result<()> {
    let new = Step::Mount("sys".into(), "sysfs", CLOSED, String::new());
    let is_new = own_network && apply(root, &[new]).is_ok();
    if !is_new && !mount_hosts(root) {
        return Ok(());
    }
    let mut hidden: Vec<String> = HIDDEN.map(str::to_owned).to_vec();
    hidden.extend(thermal_events().map_err(not_hidden)?);
    if !is_new {
        hidden.extend(HIDDEN_OF_HOST.map(str::to_owned));
    }
    let hide: Vec<Step> = hidden.into_iter().map(Step::Mask).collect();
    apply(root, &hide)?;
    mount_cgroups(root, is_new)
}

/// Mounts the host's /sys with everything below it, read-only; returns whether the kernel allows that.
fn mount_hosts(root: BorrowedFd<'_>) -> bool {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let Ok(tree) = open_tree(rustix::fs::CWD, "/sys", flags) else { return false };
    // Before it is mounted: cgroups may belong to the container's root.
    if set_read_only(&tree).is_err() {
        return false;
    }
    let Some(at) = directory(root, "sys") else { return false };
    let both_empty =
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &at, "", both_empty).is_ok()
}

fn directory(root: BorrowedFd<'_>, path: &str) -> Option<OwnedFd> {
    open_in_root(root, Path::new(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).ok()
}

/// Returns the directories of the processors' thermal events. The host's /sys lists the same processors as a new one.
fn thermal_events() -> io::Result<Vec<String>> {
    let dir = "sys/devices/system/cpu";
    let entries = match std::fs::read_dir(Path::new("/").join(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // The kernel's names are ASCII. Not every processor has the directory.
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with("cpu")
        {
            found.push(format!("{dir}/{name}/thermal_throttle"));
        }
    }
    Ok(found)
}

fn not_hidden(error: io::Error) -> Error {
    Error::sandbox("can't hide the host's part of /sys in the container").source(error)
}

/// Mounts the container's cgroups at /sys/fs/cgroup, as the host has them.
fn mount_cgroups(root: BorrowedFd<'_>, is_new: bool) -> Result<()> {
    const AT: &str = "sys/fs/cgroup";
    let mounts = visible();
    if let [one] = &mounts[..]
        && one.name.is_empty()
        && mount_cgroup(root, AT, one)?
    {
        return Ok(());
    }
    let several = mounts.iter().any(|one| !one.name.is_empty());
    if !several || directory(root, AT).is_none() {
        // Otherwise the host's cgroups would remain visible.
        return if is_new { Ok(()) } else { apply(root, &[Step::Mask(AT.into())]) };
    }
    let writable = CLOSED - MountFlags::RDONLY;
    apply(root, &[Step::Mount(AT.into(), "tmpfs", writable, "mode=755,size=64k".into())])?;
    for one in mounts.iter().filter(|one| !one.name.is_empty()) {
        let at = format!("{AT}/{}", one.name);
        apply(root, &[Step::Dir(at.clone(), 0o755)])?;
        if !mount_cgroup(root, &at, one)? {
            // An empty directory is harmless.
            let _ = rustix::fs::unlinkat(root, at.as_str(), rustix::fs::AtFlags::REMOVEDIR);
            continue;
        }
        for alias in one.controllers.iter().filter(|name| **name != one.name) {
            // Best effort: a controller is always found by its mount.
            let _ = apply(root, &[Step::Symlink(format!("{AT}/{alias}"), one.name.clone())]);
        }
    }
    make_read_only(root, AT).map_err(|error| {
        Error::sandbox(format!("can't set up /{AT} in the container"))
            .source(io::Error::from(error))
    })
}

/// Mounts one hierarchy, whose root is the container's cgroup; returns whether it is mounted. Never mounts the root of
/// the hierarchy itself, which has no limits and shows the whole host.
fn mount_cgroup(root: BorrowedFd<'_>, at: &str, mount: &CgroupMount) -> Result<bool> {
    let mut options = String::new();
    for name in &mount.controllers {
        let comma = if options.is_empty() { "" } else { "," };
        // Writing to a string can't fail.
        let _ = write!(options, "{comma}{name}");
    }
    let kind = if mount.unified { "cgroup2" } else { "cgroup" };
    if apply(root, &[Step::Mount(at.to_owned(), kind, CLOSED, options)]).is_err() {
        return Ok(false);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mounted = open_in_root(root, Path::new(at), flags).map_err(not_hidden)?;
    let has = |file: &str| match rustix::fs::statat(&mounted, file, rustix::fs::AtFlags::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(not_hidden(error.into())),
    };
    // The kernel has these files only there, respectively everywhere else.
    let is_root = if mount.unified { !has("cgroup.type")? } else { has("release_agent")? };
    if is_root {
        unmount(proc_path(mounted.as_fd()), UnmountFlags::DETACH)
            .map_err(|error| not_hidden(error.into()))?;
    }
    Ok(!is_root)
}
