//! Random changes of a tree by real system calls. An impossible change (no such file, a link across layers) does
//! nothing, like a script that goes on after an error.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};

/// One change: its kind, and three choices of operands.
#[derive(Clone, Copy, Debug)]
pub struct Op(pub u8, pub u16, pub u16, pub u16);

/// Number of kinds of changes.
pub const KINDS: u8 = 28;

/// Any sequence of up to `most` changes.
pub fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    let op = (0..KINDS, any::<u16>(), any::<u16>(), any::<u16>());
    proptest::collection::vec(op.prop_map(|(kind, a, b, c)| Op(kind, a, b, c)), 0..most)
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"lib",
    b".hidden",
    b"a b",
    b"\xff\xfe",
    b"new\nline",
    "\u{e9}".as_bytes(),
    &[b'n'; 120],
    &[b'm'; 255],
];
const TARGETS: &[&[u8]] = &[b"a", b"/etc/passwd", b"../..", b"lib/a", b"\xff", &[b't'; 150], b"/"];
const MODES: &[u32] = &[0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o600, 0o000, 0o6711, 0o400];
const IDS: &[u32] = &[0, 1, 33, 999, 1000, 65533, 65535];
const TIMES: &[(i64, i64)] = &[
    (0, 0),
    (315_532_800, 0),
    (1_000_000_000, 123_456_789),
    (-1, 999_999_999),
    (-1000, 0),
    (1_600_000_000, 1),
    (4_000_000_000, 500_000_000),
];
const XATTRS: &[&str] =
    &["user.a", "user.b\n", "user.overlay.opaque", "user.overlay.x", "user.empty"];

/// Makes one change below `root`.
pub fn apply(root: &Path, op: Op) {
    let _ = try_apply(root, op);
}

fn pick<T: Clone>(list: &[T], choice: u16) -> T {
    list[usize::from(choice) % list.len()].clone()
}

/// Returns every path below `root`, sorted; `root` itself first.
fn paths(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let mut names: Vec<_> = fs::read_dir(&found[at])
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            names.sort();
            found.extend(names);
        }
        at += 1;
    }
    found
}

fn content(choice: u16) -> Vec<u8> {
    let length = pick(&[0usize, 1, 10, 511, 512, 5000, 70_000, 200_000], choice);
    let byte = (choice >> 8) as u8;
    (0..length).map(|at| if byte.is_multiple_of(3) { 0 } else { byte ^ (at / 7) as u8 }).collect()
}

fn try_apply(root: &Path, Op(kind, a, b, c): Op) -> std::io::Result<()> {
    let all = paths(root);
    let any = &pick(&all, a);
    if all.len() < 2 {
        return first(root, b, c);
    }
    let below = &pick(&all[1..], a);
    let is = |path: &Path, want: fn(&fs::FileType) -> bool| {
        path.symlink_metadata().is_ok_and(|meta| want(&meta.file_type()))
    };
    let dirs: Vec<_> = all.iter().filter(|path| is(path, fs::FileType::is_dir)).cloned().collect();
    let files: Vec<_> =
        all.iter().filter(|path| is(path, fs::FileType::is_file)).cloned().collect();
    let fresh = pick(&dirs, b).join(OsStr::from_bytes(pick(NAMES, c)));
    let file = &if files.is_empty() { any.clone() } else { pick(&files, a) };
    match kind {
        0 => fs::write(writable(&fresh)?, content(a)),
        1 => OpenOptions::new().append(true).open(regular(file)?)?.write_all(&content(b)),
        2 => OpenOptions::new().write(true).open(regular(file)?)?.set_len(u64::from(b % 9000)),
        3 => fs::create_dir(&fresh),
        4 => symlink(OsStr::from_bytes(pick(TARGETS, a)), &fresh),
        5 => node(&fresh, FileType::Fifo),
        6 => UnixListener::bind(&fresh).map(drop),
        7 => fs::hard_link(below, &fresh),
        8 => remove(below),
        9 => fs::rename(below, &fresh),
        10 => chmod(any, pick(MODES, b)),
        11 => lchown(any, Some(pick(IDS, b)), Some(pick(IDS, c))),
        12 => touch(any, pick(TIMES, b)),
        13 => set_xattr(any, pick(XATTRS, b), &content(c % 5)),
        14 => Ok(rustix::fs::lremovexattr(any, pick(XATTRS, b))?),
        15 => set_xattr(file, "security.capability", &capability(b)),
        16 => set_xattr(any, "system.posix_acl_access", &acl(b)),
        17 => rewrite_and_restore(file),
        18 => {
            let mode = any.symlink_metadata()?.mode();
            chmod(any, mode ^ 0o111)?;
            chmod(any, mode & 0o7777)
        }
        19 => recreate(&pick(&dirs, a), root),
        20 => {
            remove(below)?;
            match b % 4 {
                0 => fs::create_dir(below),
                1 => symlink("elsewhere", below),
                2 => node(below, FileType::Fifo),
                _ => fs::write(below, content(c)),
            }
        }
        21 => {
            fs::write(writable(&fresh)?, "soon gone")?;
            remove(&fresh)
        }
        22 => set_xattr(any, "user.overlay.whiteout", b"y"),
        23 => {
            let other = &pick(&all[1..], b);
            Ok(rustix::fs::renameat_with(CWD, below, CWD, other, RenameFlags::EXCHANGE)?)
        }
        24 => {
            let file = File::create(writable(&fresh)?)?;
            file.write_all_at(b"x", u64::from(b) * 8)?;
            file.set_len(u64::from(b) * 9 + 1)
        }
        25 => overwrite_in_place(file, b),
        26 => set_xattr(&pick(&dirs, a), "system.posix_acl_default", &acl(b)),
        _ => {
            // Hard links of several names, where they can be told apart.
            let twin = pick(&dirs, c).join("twin");
            fs::hard_link(regular(file)?, twin)
        }
    }
}

/// An empty tree can only grow.
fn first(root: &Path, b: u16, c: u16) -> std::io::Result<()> {
    let path = root.join(OsStr::from_bytes(pick(NAMES, c)));
    if b.is_multiple_of(2) { fs::create_dir(path) } else { fs::write(path, content(b)) }
}

/// Opening a fifo would block, and writing to a device does not change the tree.
fn regular(path: &Path) -> std::io::Result<&Path> {
    if path.symlink_metadata()?.is_file() {
        Ok(path)
    } else {
        Err(std::io::ErrorKind::Other.into())
    }
}

/// Returns a path that can be written to without waiting for a reader, and not through a link to elsewhere.
fn writable(path: &Path) -> std::io::Result<&Path> {
    if path.symlink_metadata().is_ok() { regular(path) } else { Ok(path) }
}

fn node(path: &Path, kind: FileType) -> std::io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), 0)?)
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    if path.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn touch(path: &Path, (tv_sec, tv_nsec): (i64, i64)) -> std::io::Result<()> {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> std::io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?)
}

/// VFS_CAP_REVISION_2 (include/uapi/linux/capability.h) with some permitted capabilities.
fn capability(choice: u16) -> Vec<u8> {
    let mut value = vec![1, 0, 0, 2];
    value.extend_from_slice(&u32::from(choice | 0x400).to_le_bytes());
    value.resize(20, 0);
    value
}

/// POSIX_ACL_XATTR_VERSION with an entry for one more user.
fn acl(choice: u16) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 7u16, u32::MAX),
        (2, 5, u32::from(choice) % 65536),
        (4, 5, u32::MAX),
        (0x10, 5, u32::MAX),
        (0x20, 4, u32::MAX),
    ] {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

fn rewrite_and_restore(path: &Path) -> std::io::Result<()> {
    let meta = regular(path)?.metadata()?;
    let (mode, content) = (meta.mode() & 0o7777, fs::read(path)?);
    fs::write(path, content)?;
    chmod(path, mode)?;
    touch(path, (meta.mtime(), meta.mtime_nsec()))
}

/// Same length and time, different content.
fn overwrite_in_place(path: &Path, choice: u16) -> std::io::Result<()> {
    let meta = regular(path)?.metadata()?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&[choice as u8], u64::from(choice) % meta.len().max(1))?;
    touch(path, (meta.mtime(), meta.mtime_nsec()))
}

/// Removes a directory and creates an equal one.
fn recreate(path: &Path, root: &Path) -> std::io::Result<()> {
    if path == root {
        return Ok(());
    }
    let aside = tempfile::tempdir()?;
    let copy = aside.path().join("copy");
    let cp = |from: &Path, to: &Path| {
        Command::new("cp").arg("-a").args([from, to]).output().map(|output| output.status.success())
    };
    if cp(path, &copy)? {
        remove(path)?;
        cp(&copy, path)?;
    }
    Ok(())
}
