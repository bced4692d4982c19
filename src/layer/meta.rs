//! Metadata of files on disk: extended attributes by descriptor, owners that can and can't be given, and
//! the records of what an unpacked layer could not express.
//!
//! Inside a user namespace no device can be made and no owner outside the id map can be given. The file
//! that stands in carries a record in an extended attribute, which the diff reads back:
//!
//! - `user.svp.node` = `c:MAJOR:MINOR` or `b:MAJOR:MINOR`, on an empty file: a device.
//! - `user.svp.owner` = `UID:GID:MODE:AS_UID:AS_GID:AS_MODE` (modes octal): what was meant, and what the
//!   stand-in has. A stand-in that no longer has it was changed since, and the record is void.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, Stat, openat};
use rustix::io::Errno;

use crate::layer::entry::{EntryKind, Timestamp, Xattrs};

/// The record of a device.
pub const NODE: &[u8] = b"user.svp.node";
/// The record of an owner.
pub const OWNER: &[u8] = b"user.svp.owner";
/// The names that are svp's own: never read from a layer, never written to one.
pub const OWN_PREFIX: &[u8] = b"user.svp.";
/// The names that overlayfs (mounted with `userxattr`) keeps for itself.
const OVERLAY: &[u8] = b"user.overlay.";
/// What overlayfs puts before such names where a user sets them.
const ESCAPED: &[u8] = b"user.overlay.overlay.";
/// Marks a directory that hides what lower layers have in it.
pub const OPAQUE: &[u8] = b"user.overlay.opaque";

/// The ids that exist in the user namespace, as inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdRanges {
    /// Ranges of user ids, first and last.
    pub users: Vec<(u32, u32)>,
    /// Ranges of group ids, first and last.
    pub groups: Vec<(u32, u32)>,
}

impl IdRanges {
    /// All ids: outside every user namespace.
    pub fn all() -> Self {
        IdRanges { users: vec![(0, u32::MAX - 1)], groups: vec![(0, u32::MAX - 1)] }
    }

    /// Ids 0 to `last`, of users and groups.
    pub fn up_to(last: u32) -> Self {
        IdRanges { users: vec![(0, last)], groups: vec![(0, last)] }
    }

    /// Whether files can be given to the user.
    pub fn has_user(&self, id: u32) -> bool {
        self.users.iter().any(|&(first, last)| (first..=last).contains(&id))
    }

    /// Whether files can be given to the group.
    pub fn has_group(&self, id: u32) -> bool {
        self.groups.iter().any(|&(first, last)| (first..=last).contains(&id))
    }
}

/// Owner and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permissions, at most 0o7777.
    pub mode: u32,
}

impl Ownership {
    /// The ownership that `stat` tells.
    pub fn of(stat: &Stat) -> Self {
        Ownership { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
    }

    /// What can be given instead where an id is outside `ids`: root, and then neither setuid nor setgid,
    /// which would mean another user than they were set for.
    pub fn possible(self, ids: &IdRanges) -> Self {
        let (user, group) = (ids.has_user(self.uid), ids.has_group(self.gid));
        Ownership {
            uid: if user { self.uid } else { 0 },
            gid: if group { self.gid } else { 0 },
            mode: if user && group { self.mode } else { self.mode & !0o6000 },
        }
    }

    /// The value of [`OWNER`] for a file meant to be `self` that is `stand_in`.
    pub fn record(self, stand_in: Self) -> Vec<u8> {
        let Ownership { uid, gid, mode } = self;
        let Ownership { uid: as_uid, gid: as_gid, mode: as_mode } = stand_in;
        format!("{uid}:{gid}:{mode:o}:{as_uid}:{as_gid}:{as_mode:o}").into_bytes()
    }

    /// What a file that is `self` is meant to be, by its `record`; itself where the record is void.
    pub fn meant(self, record: &[u8]) -> Self {
        let parse = || {
            let text = std::str::from_utf8(record).ok()?;
            let mut fields = text.split(':');
            let mut one = || {
                let uid = fields.next()?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                let mode = u32::from_str_radix(fields.next()?, 8).ok()? & 0o7777;
                Some(Ownership { uid, gid, mode })
            };
            let (meant, stand_in) = (one()?, one()?);
            (meant.uid != u32::MAX && meant.gid != u32::MAX).then_some((meant, stand_in))
        };
        match parse() {
            Some((meant, stand_in)) if stand_in == self => meant,
            // A mode that was changed on purpose counts; the owner was not.
            Some((meant, stand_in)) if (stand_in.uid, stand_in.gid) == (self.uid, self.gid) => {
                Ownership { mode: self.mode, ..meant }
            }
            _ => self,
        }
    }
}

/// The value of [`NODE`] for a device.
pub fn node_record(kind: EntryKind, major: u32, minor: u32) -> Vec<u8> {
    let letter = if kind == EntryKind::BlockDevice { 'b' } else { 'c' };
    format!("{letter}:{major}:{minor}").into_bytes()
}

/// The device that a record names; `None` if it names none.
pub fn parse_node(record: &[u8]) -> Option<(EntryKind, u32, u32)> {
    let text = std::str::from_utf8(record).ok()?;
    let (letter, numbers) = text.split_once(':')?;
    let (major, minor) = numbers.split_once(':')?;
    let kind = match letter {
        "c" => EntryKind::CharDevice,
        "b" => EntryKind::BlockDevice,
        _ => return None,
    };
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 1 << 12 && minor < 1 << 20).then_some((kind, major, minor))
}

/// The name under which an overlay layer stores the attribute `name`.
pub fn escape(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY) {
        Some(rest) => [ESCAPED, rest].concat(),
        None => name.to_vec(),
    }
}

/// The attribute that an overlay layer stores as `name`; `None` for overlayfs's own.
pub fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    match name.strip_prefix(ESCAPED) {
        Some(rest) => Some([OVERLAY, rest].concat()),
        None if name.starts_with(OVERLAY) => None,
        None => Some(name.to_vec()),
    }
}

/// Whether an attribute belongs into a layer: not the host's security labels, nor what only means
/// something to one file system.
pub fn is_portable(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => {
            name.starts_with(b"user.") || name.starts_with(b"trusted.") && !is_foreign_overlay(name)
        }
    }
}

/// Whether the name is a rootful overlayfs's own: in a tree that is used as its layer it would be obeyed.
pub fn is_foreign_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
}

/// The time of last modification.
pub fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// The time of the last change of the inode, which nobody can set.
pub fn ctime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec as u32 }
}

/// All extended attributes of an open file or directory, under the names that the file system has.
///
/// # Errors
/// The kernel's. A file system without attributes has none.
pub fn read_xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    collect(
        |list| rustix::fs::flistxattr(file, list),
        |name, value| rustix::fs::fgetxattr(file, name, value),
    )
}

/// As [`read_xattrs`], of the file `name` in `dir` of any type, not through a link.
///
/// # Errors
/// The kernel's.
pub fn read_xattrs_at(dir: BorrowedFd<'_>, name: &[u8], kind: EntryKind) -> Result<Xattrs, Errno> {
    let flags = match kind {
        EntryKind::File | EntryKind::HardLink | EntryKind::Fifo => {
            OFlags::RDONLY | OFlags::NONBLOCK
        }
        EntryKind::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        _ => OFlags::PATH,
    };
    let file = openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !flags.contains(OFlags::PATH) {
        return read_xattrs(file.as_fd());
    }
    let path = proc_path(file.as_fd());
    collect(
        |list| rustix::fs::listxattr(&*path, list),
        |name, value| rustix::fs::getxattr(&*path, name, value),
    )
}

/// The path by which calls that take none but a path reach an `O_PATH` descriptor's file, a link itself
/// included.
pub fn proc_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    let mut small = [0; 1024];
    let mut large = Vec::new();
    let names = match list(&mut small) {
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            // XATTR_LIST_MAX and XATTR_SIZE_MAX are 64 KiB.
            large.resize(1 << 16, 0);
            let length = list(&mut large)?;
            &large[..length]
        }
        Err(Errno::NOTSUP | Errno::NOENT) => return Ok(Xattrs::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Xattrs::new();
    let mut value = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        value.resize(1 << 16, 0);
        match get(name, &mut value) {
            Ok(length) => xattrs.insert(name.to_vec(), value[..length].to_vec()),
            Err(Errno::NODATA | Errno::NOTSUP) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_stand_in_voids_its_record() {
        let meant = Ownership { uid: 1 << 20, gid: 5, mode: 0o4755 };
        let stand_in = meant.possible(&IdRanges::up_to(65535));
        assert_eq!(stand_in, Ownership { uid: 0, gid: 5, mode: 0o755 });
        let record = meant.record(stand_in);
        assert_eq!(stand_in.meant(&record), meant);
        let chowned = Ownership { uid: 7, ..stand_in };
        assert_eq!(chowned.meant(&record), chowned);
        let chmodded = Ownership { mode: 0o700, ..stand_in };
        assert_eq!(chmodded.meant(&record), Ownership { mode: 0o700, ..meant });
        for forged in [&b""[..], b"1:2", b"x:1:2:0:5:755", b"4294967295:0:0:0:5:755"] {
            assert_eq!(stand_in.meant(forged), stand_in);
        }
    }

    #[test]
    fn devices_go_there_and_back() {
        for kind in [EntryKind::CharDevice, EntryKind::BlockDevice] {
            assert_eq!(parse_node(&node_record(kind, 1, 3)), Some((kind, 1, 3)));
        }
        for forged in [&b""[..], b"c:1", b"x:1:3", b"c:-1:3", b"c:4096:0", b"c:1:3:5"] {
            assert_eq!(parse_node(forged), None);
        }
    }

    #[test]
    fn overlay_names_are_escaped() {
        assert_eq!(escape(b"user.overlay.opaque"), b"user.overlay.overlay.opaque");
        assert_eq!(unescape(&escape(b"user.overlay.x")).unwrap(), b"user.overlay.x");
        assert_eq!(
            unescape(&escape(b"user.overlay.overlay.x")).unwrap(),
            b"user.overlay.overlay.x"
        );
        assert_eq!(unescape(b"user.overlay.origin"), None);
        assert_eq!(unescape(&escape(b"user.x")).unwrap(), b"user.x");
    }
}
