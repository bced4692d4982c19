//! Metadata of files on disk: extended attributes by descriptor, owners inside and outside the id map, and the
//! records of metadata that an unpacked layer could not express.
//!
//! Inside a user namespace, devices can't be created and owners outside the id map can't be set. A stand-in file
//! then has a record in an extended attribute, which the diff reads back:
//!
//! - `user.svp.node` = `c:MAJOR:MINOR` or `b:MAJOR:MINOR`, on an empty file: a device.
//! - `user.svp.owner` = `UID:GID:MODE:AS_UID:AS_GID:AS_MODE` (modes octal): the intended ownership, and that of the
//!   stand-in. The record is void if the stand-in's ownership has changed since.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, Stat, openat};
use rustix::io::Errno;

use crate::layer::entry::{Entry, EntryKind, Timestamp, Xattrs};

/// The attribute that records a device.
pub const NODE: &[u8] = b"user.svp.node";
/// The attribute that records an owner.
pub const OWNER: &[u8] = b"user.svp.owner";
/// The prefix of svp's private attributes: never read from a layer, never written to one.
pub const OWN_PREFIX: &[u8] = b"user.svp.";
/// The prefix that overlayfs (mounted with `userxattr`) reserves.
const OVERLAY: &[u8] = b"user.overlay.";
/// The prefix that overlayfs gives such names when a user sets them.
const ESCAPED: &[u8] = b"user.overlay.overlay.";
/// Marks a directory as opaque: it hides the entries of lower layers.
pub const OPAQUE: &[u8] = b"user.overlay.opaque";

/// The ids mapped in the user namespace, as inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdRanges {
    /// Ranges of user ids, first and last.
    pub users: Vec<(u32, u32)>,
    /// Ranges of group ids, first and last.
    pub groups: Vec<(u32, u32)>,
}

impl IdRanges {
    /// Returns all ids: outside every user namespace.
    pub fn all() -> Self {
        IdRanges { users: vec![(0, u32::MAX - 1)], groups: vec![(0, u32::MAX - 1)] }
    }

    /// Returns ids 0 to `last`, for users and groups.
    pub fn up_to(last: u32) -> Self {
        IdRanges { users: vec![(0, last)], groups: vec![(0, last)] }
    }

    /// Returns whether the user id is mapped.
    pub fn has_user(&self, id: u32) -> bool {
        self.users.iter().any(|&(first, last)| (first..=last).contains(&id))
    }

    /// Returns whether the group id is mapped.
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
    /// Returns the ownership in `stat`.
    pub fn of(stat: &Stat) -> Self {
        Ownership { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
    }

    /// Returns the closest ownership within `ids`: root instead of an unmapped id, and then without setuid and setgid,
    /// which would apply to another user than intended.
    pub fn possible(self, ids: &IdRanges) -> Self {
        let (user, group) = (ids.has_user(self.uid), ids.has_group(self.gid));
        Ownership {
            uid: if user { self.uid } else { 0 },
            gid: if group { self.gid } else { 0 },
            mode: if user && group { self.mode } else { self.mode & !0o6000 },
        }
    }

    /// Returns the value of [`OWNER`] for a file that should be `self` but is `stand_in`.
    pub fn record(self, stand_in: Self) -> Vec<u8> {
        let Ownership { uid, gid, mode } = self;
        let Ownership { uid: as_uid, gid: as_gid, mode: as_mode } = stand_in;
        format!("{uid}:{gid}:{mode:o}:{as_uid}:{as_gid}:{as_mode:o}").into_bytes()
    }

    /// Returns the intended ownership of a file that is `self`, according to its `record`; `self` if that is void.
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
            // Keep a mode that was changed on purpose; the owner is unchanged.
            Some((meant, stand_in)) if (stand_in.uid, stand_in.gid) == (self.uid, self.gid) => {
                Ownership { mode: self.mode, ..meant }
            }
            _ => self,
        }
    }
}

/// Returns the value of [`NODE`] for a device.
pub fn node_record(kind: EntryKind, major: u32, minor: u32) -> Vec<u8> {
    let letter = if kind == EntryKind::BlockDevice { 'b' } else { 'c' };
    format!("{letter}:{major}:{minor}").into_bytes()
}

/// Parses the record of a device; `None` if it is malformed.
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

/// Returns the name under which an overlay layer stores the attribute `name`.
pub fn escape(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY) {
        Some(rest) => [ESCAPED, rest].concat(),
        None => name.to_vec(),
    }
}

/// Returns the attribute that an overlay layer stores as `name`; `None` for overlayfs's private ones.
pub fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    match name.strip_prefix(ESCAPED) {
        Some(rest) => Some([OVERLAY, rest].concat()),
        None if name.starts_with(OVERLAY) => None,
        None => Some(name.to_vec()),
    }
}

/// Returns whether an attribute belongs in a layer: no security labels of the host, and no attributes that are
/// specific to a file system.
pub fn is_portable(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => {
            name.starts_with(b"user.") || name.starts_with(b"trusted.") && !is_foreign_overlay(name)
        }
    }
}

/// Returns whether rootful overlayfs reserves the name: it would interpret the attribute in a tree used as a layer.
pub fn is_foreign_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
}

/// Returns the mtime.
pub fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// Returns the ctime, which no process can set.
pub fn ctime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec as u32 }
}

/// Returns the entry of a file as the layer meant it: applies svp's records of owner and device, and leaves them out.
pub fn entry(path: impl Into<Vec<u8>>, kind: EntryKind, stat: &Stat, mut xattrs: Xattrs) -> Entry {
    let (owner, device) = (xattrs.remove(OWNER), xattrs.remove(NODE));
    xattrs.retain(|name, _| !name.starts_with(OWN_PREFIX));
    let found = Ownership::of(stat);
    let meant = owner.map_or(found, |record| found.meant(&record));
    let mut entry = Entry::new(path, kind, meant.mode);
    (entry.uid, entry.gid) = (meant.uid, meant.gid);
    (entry.mtime, entry.xattrs) = (mtime(stat), xattrs);
    match kind {
        EntryKind::File => {
            entry.size = stat.st_size as u64;
            let device = device.and_then(|record| parse_node(&record));
            if let (0, Some((kind, major, minor))) = (entry.size, device) {
                (entry.kind, entry.major, entry.minor) = (kind, major, minor);
            }
        }
        EntryKind::CharDevice | EntryKind::BlockDevice => {
            entry.major = rustix::fs::major(stat.st_rdev);
            entry.minor = rustix::fs::minor(stat.st_rdev);
        }
        _ => {}
    }
    entry
}

/// Reads all extended attributes of an open file or directory, under their names in the file system.
///
/// # Errors
/// The kernel's errors. A file system without attributes yields none.
pub fn read_xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    collect(
        |list| rustix::fs::flistxattr(file, list),
        |name, value| rustix::fs::fgetxattr(file, name, value),
    )
}

/// As [`read_xattrs`], for the file `name` in `dir`, of any type; does not follow a link.
///
/// # Errors
/// The kernel's errors.
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

/// Returns a path to the file of an `O_PATH` descriptor, even to a link itself, for system calls that take only
/// paths.
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
    fn device_records_round_trip() {
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
