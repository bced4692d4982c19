//! A directory tree as comparable lines: all attributes that a layer can hold for each entry.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The properties to compare besides names, types, modes, links and contents.
#[derive(Clone, Copy)]
pub struct What {
    /// Owners.
    pub owners: bool,
    /// Modification times, with nanoseconds.
    pub times: bool,
    /// Extended attributes.
    pub xattrs: bool,
}

/// Compares everything.
pub const ALL: What = What { owners: true, times: true, xattrs: true };

/// Returns the tree below `root`, one line per entry, by path. The root itself is ".".
pub fn listing(root: &Path, what: What) -> BTreeMap<Vec<u8>, String> {
    let mut lines = BTreeMap::new();
    let mut links = HashMap::new();
    visit(root, Path::new("."), what, &mut links, &mut lines);
    lines
}

/// Panics with the differences, one per line, if the two trees are not the same.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path, what: What) {
    let (a, b) = (listing(left, what), listing(right, what));
    let mut printed = String::new();
    let mut paths: Vec<_> = a.keys().chain(b.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        if a.get(path) != b.get(path) {
            let line = |side: Option<&String>| side.map_or("(absent)".into(), String::clone);
            let name = String::from_utf8_lossy(path);
            let _ =
                writeln!(printed, "{name}:\n  - {}\n  + {}", line(a.get(path)), line(b.get(path)));
        }
    }
    assert!(printed.is_empty(), "{} and {} differ:\n{printed}", left.display(), right.display());
    assert!(!a.is_empty(), "nothing to compare");
}

fn visit(
    root: &Path,
    path: &Path,
    what: What,
    links: &mut HashMap<(u64, u64), PathBuf>,
    lines: &mut BTreeMap<Vec<u8>, String>,
) {
    let full = root.join(path);
    let meta = full.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", full.display()));
    lines.insert(path.as_os_str().as_bytes().to_vec(), describe(&full, path, &meta, what, links));
    if meta.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&full)
            .unwrap_or_else(|e| panic!("{}: {e}", full.display()))
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        for name in names {
            visit(root, &path.join(name), what, links, lines);
        }
    }
}

fn describe(
    full: &Path,
    path: &Path,
    meta: &std::fs::Metadata,
    what: What,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> String {
    let kind = meta.file_type();
    let mut line = if kind.is_dir() {
        "dir".to_string()
    } else if kind.is_symlink() {
        format!("symlink to {:?}", std::fs::read_link(full).expect("readlink"))
    } else if kind.is_file() {
        let content = std::fs::read(full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
        let hash = Sha256::digest(&content);
        let hex = hash.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        format!("file of {} bytes, {hex}", content.len())
    } else if kind.is_fifo() {
        "fifo".into()
    } else if kind.is_socket() {
        "socket".into()
    } else {
        format!("device {:?} {:x}", kind.is_block_device(), meta.rdev())
    };
    if !kind.is_symlink() {
        let _ = write!(line, ", mode {:o}", meta.mode() & 0o7777);
    }
    if what.owners {
        let _ = write!(line, ", owner {}:{}", meta.uid(), meta.gid());
    }
    if what.times {
        let _ = write!(line, ", time {}.{:09}", meta.mtime(), meta.mtime_nsec());
    }
    if what.xattrs {
        line += &xattrs(full);
    }
    if meta.nlink() > 1 && !kind.is_dir() {
        let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| path.to_owned());
        let _ = write!(line, ", links to {}", first.display());
    }
    line
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 64 * 1024];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names) else { return String::new() };
    let mut found: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 * 1024];
            let length = rustix::fs::lgetxattr(path, name, &mut value).expect("getxattr");
            format!(
                ", {}={:?}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(&value[..length])
            )
        })
        .collect();
    found.sort();
    found.concat()
}
