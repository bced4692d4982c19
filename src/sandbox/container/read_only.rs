//! Makes a mount read-only together with every mount below it.
//!
//! A bind mount is recursive, but a remount changes one mount only: what is mounted below `/usr` or below a directory
//! of `-v DIR:PATH:ro` would stay writable. The mounts become private too, so that none appears below them later.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use log::trace;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};

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
    mount_change(fd_path(top), MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let id = mount_id(top).map_err(errno)?;
    let table = std::fs::read("/proc/self/mountinfo").map_err(errno)?;
    let below = below(&parse(&table), id);
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
    mount_remount(fd_path(mount), flags, c"")
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
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

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MountEntry {
    id: u64,
    parent: u64,
    at: PathBuf,
}

/// Parses mountinfo (proc(5)).
fn parse(table: &[u8]) -> Vec<MountEntry> {
    let entry = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let at = PathBuf::from(std::ffi::OsString::from_vec(unescape(words.nth(2)?)));
        Some(MountEntry { id, parent, at })
    };
    table.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// Replaces the octal escapes of mountinfo, such as `\\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let byte =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
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
        let all = parse(table);
        assert_eq!(all.len(), 5);
        let found = below(&all, 20);
        let ids: Vec<u64> = found.iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [21, 22]);
        assert_eq!(found[0].at, PathBuf::from("/a/b c\\d"));
        assert_eq!(below(&all, 1).len(), 4);
        assert!(below(&all, 23).is_empty());
    }
}
