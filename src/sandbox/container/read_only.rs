//! Makes a mount read-only together with every mount below it.
//!
//! A bind mount is recursive, but a remount changes one mount only: what is mounted below `/usr` or below a directory
//! of `-v DIR:PATH:ro` would stay writable. The mounts become private too, so that none appears below them later.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use log::trace;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};

use crate::layer::meta::proc_path;
use crate::mountinfo::{self, MountEntry};
use crate::sys::set_mount_attributes;

/// Makes the mount `top`, and all mounts below it, read-only, without set-id programs and devices: a read-only mount
/// does not stop writes to a device. Other attributes stay, so that none which the kernel has locked is cleared.
///
/// # Errors
/// The kernel's errors; then some of the mounts may be writable.
pub(super) fn apply(top: &OwnedFd) -> rustix::io::Result<()> {
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    match set_mount_attributes(top, set, libc::MS_PRIVATE) {
        Ok(()) => Ok(()),
        // ENOSYS before Linux 5.12; some engines' filters refuse a call that they don't know with EPERM.
        Err(error) => {
            trace!("mount_setattr: {error}; remounting each mount");
            remount_each(top)
        }
    }
}

/// Remounts each mount on its own: for kernels without mount_setattr(2).
fn remount_each(top: &OwnedFd) -> rustix::io::Result<()> {
    mount_change(
        proc_path(top.as_fd()),
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let id = mount_id(top).map_err(errno)?;
    let below = below(&mountinfo::read().map_err(errno)?, id);
    remount(top)?;
    let known: HashSet<u64> = below.iter().map(|mount| mount.id).collect();
    for mount in &below {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = rustix::fs::open(&mount.at, flags, Mode::empty())?;
        let found = mount_id(&here).map_err(errno)?;
        if found == mount.id {
            remount(&here)?;
        } else if !known.contains(&found) {
            // Not hidden by another of these mounts, which are all remounted, but replaced meanwhile.
            return Err(Errno::BUSY);
        }
    }
    Ok(())
}

/// Remounts one mount, keeping the flags that the kernel may have locked.
fn remount(mount: &OwnedFd) -> rustix::io::Result<()> {
    let has = rustix::fs::fstatvfs(mount)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if has.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        flags |= MountFlags::NOEXEC;
    }
    mount_remount(proc_path(mount.as_fd()), flags, c"")
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Returns the number of the mount that a descriptor is on, as in mountinfo.
fn mount_id(fd: &OwnedFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// Returns the mounts below the mount `top`, at any depth.
fn below(all: &[MountEntry], top: u64) -> Vec<MountEntry> {
    let mut found = Vec::new();
    let mut next = vec![top];
    while let Some(parent) = next.pop() {
        for mount in all.iter().filter(|mount| mount.parent == parent && mount.id != parent) {
            found.push(mount.clone());
            next.push(mount.id);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_are_found_at_any_depth() {
        let table = b"1 1 0:1 / / rw - rootfs rootfs rw\n\
            20 1 0:2 / /a rw shared:1 - tmpfs x rw\n\
            21 20 0:3 / /a/b\\040c\\134d rw - tmpfs x rw\n\
            22 21 0:4 / /a/b\\040c\\134d/\xff rw - tmpfs x rw\n\
            23 1 0:5 / /other rw - tmpfs x rw\n";
        let all = mountinfo::parse(table);
        assert_eq!(all.len(), 5);
        let found = below(&all, 20);
        let ids: Vec<u64> = found.iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [21, 22]);
        assert_eq!(found[0].at, std::path::Path::new("/a/b c\\d"));
        assert_eq!(below(&all, 1).len(), 4);
        assert!(below(&all, 23).is_empty());
    }
}
