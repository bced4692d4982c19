//! The exact layer of each kind of change: its entries, in order.

use std::fs::{self, OpenOptions, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use crate::layer_common::{Lab, inside, judge, open, sketch};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use svp::error::{Kind, Result};
use svp::layer::diff::{DiffReport, DiffRequest, diff};
use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::layer::meta;
use svp::layer::unpack::copy_directory_metadata;

/// The initial tree of every case.
const BASE: &[&str] = &[
    "d d",
    "f d/file content",
    "d d/sub",
    "f d/sub/x x",
    "s d/link file",
    "p d/fifo",
    "f e e",
    "d empty",
    "f l1 linked",
    "l l2 l1",
    "c null",
];

/// Returns the layer of `change`, and its entries as lines.
fn layer(
    change: impl FnOnce(&Path),
    clamp: Option<i64>,
) -> (Result<DiffReport>, Vec<Entry>, Vec<String>) {
    let mut lab = Lab::new();
    lab.add(&sketch(BASE)).unwrap();
    let below = lab.mount(None);
    let (upper, work) = (lab.make_dir(), lab.make_dir());
    copy_directory_metadata(open(&below.0).as_fd(), open(&upper).as_fd()).unwrap();
    let started = meta::ctime(&rustix::fs::stat(&upper).unwrap());
    let merged = lab.mount(Some((&upper, &work)));
    change(&merged.0);
    drop(merged);
    let (upper, before) = (open(&upper), open(&below.0));
    let request =
        DiffRequest { upper: upper.as_fd(), before: before.as_fd(), started, clamp_mtime: clamp };
    let mut tar = Vec::new();
    let report = diff(&request, &mut tar);
    let entries = if report.is_ok() { judge::entries(&tar) } else { Vec::new() };
    let lines = entries.iter().map(line).collect();
    (report, entries, lines)
}

fn line(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File => 'f',
        EntryKind::Symlink => 's',
        EntryKind::HardLink => 'l',
        EntryKind::Fifo => 'p',
        _ => 'c',
    };
    let path = String::from_utf8_lossy(&entry.path);
    let path = path.strip_suffix('/').filter(|path| *path != ".").unwrap_or(&path);
    match entry.kind {
        EntryKind::HardLink => format!("l {path} {}", String::from_utf8_lossy(&entry.link)),
        _ => format!("{kind} {path}"),
    }
}

fn touch(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn again(root: &Path, path: &str, seconds: i64) {
    fs::write(root.join(path), "content").unwrap();
    touch(&root.join(path), 1_000_000 + seconds, 0);
}

/// A name, a change, and the entries of its layer.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

const CASES: &[Case] = &[
    ("nothing", |_: &Path| {}, &[]),
    (
        "opened_deleted_copied_and_mode_back",
        |r: &Path| {
            OpenOptions::new().write(true).open(r.join("e")).unwrap();
            fs::write(r.join("d/tmp"), "x").unwrap();
            fs::remove_file(r.join("d/tmp")).unwrap();
            fs::copy(r.join("e"), r.join("empty/copy")).unwrap();
            chmod(&r.join("d/file"), 0o600);
            chmod(&r.join("d/file"), 0o644);
        },
        &["d empty", "f empty/copy"],
    ),
    ("new_file_in_root", |r: &Path| fs::write(r.join("new"), "x").unwrap(), &["f new"]),
    (
        "new_tree",
        |r: &Path| {
            fs::create_dir_all(r.join("n/m")).unwrap();
            fs::write(r.join("n/m/f"), "x").unwrap()
        },
        &["d n", "d n/m", "f n/m/f"],
    ),
    ("removed_file", |r: &Path| fs::remove_file(r.join("e")).unwrap(), &["f .wh.e"]),
    ("removed_tree", |r: &Path| fs::remove_dir_all(r.join("d")).unwrap(), &["f .wh.d"]),
    (
        "removed_inside",
        |r: &Path| fs::remove_dir_all(r.join("d/sub")).unwrap(),
        &["d d", "f d/.wh.sub"],
    ),
    (
        "removed_and_made_again",
        |r: &Path| {
            fs::remove_file(r.join("d/file")).unwrap();
            again(r, "d/file", 1)
        },
        &[],
    ),
    ("same_content_other_time", |r: &Path| again(r, "d/file", 7), &["d d", "f d/file"]),
    (
        "same_time_other_content",
        |r: &Path| {
            fs::write(r.join("d/file"), "CONTENT").unwrap();
            touch(&r.join("d/file"), 1_000_001, 0)
        },
        &["d d", "f d/file"],
    ),
    ("a_nanosecond", |r: &Path| touch(&r.join("e"), 1_000_006, 1), &["f e"]),
    ("mode", |r: &Path| chmod(&r.join("e"), 0o4755), &["f e"]),
    ("owner", |r: &Path| lchown(r.join("d/link"), Some(7), None).unwrap(), &["d d", "s d/link"]),
    ("xattr", |r: &Path| set(&r.join("e"), "user.x", b""), &["f e"]),
    ("xattr_of_overlay", |r: &Path| set(&r.join("d"), "user.overlay.opaque", b"y"), &["d d"]),
    ("directory_mode", |r: &Path| chmod(&r.join("d/sub"), 0o700), &["d d", "d d/sub"]),
    ("directory_time", |r: &Path| touch(&r.join("d/sub"), 5, 5), &["d d", "d d/sub"]),
    (
        "directory_time_ahead",
        |r: &Path| touch(&r.join("d/sub"), 4_000_000_000, 0),
        &["d d", "d d/sub"],
    ),
    ("root_mode", |r: &Path| chmod(r, 0o750), &["d ./"]),
    ("root_time", |r: &Path| touch(r, 5, 5), &["d ./"]),
    (
        "file_to_directory",
        |r: &Path| {
            fs::remove_file(r.join("e")).unwrap();
            fs::create_dir(r.join("e")).unwrap()
        },
        &["d e"],
    ),
    (
        "file_to_link",
        |r: &Path| {
            fs::remove_file(r.join("e")).unwrap();
            symlink("x", r.join("e")).unwrap()
        },
        &["s e"],
    ),
    (
        "directory_to_file",
        |r: &Path| {
            fs::remove_dir_all(r.join("d")).unwrap();
            fs::write(r.join("d"), "x").unwrap()
        },
        &["f d"],
    ),
    (
        "link_to_directory",
        |r: &Path| {
            fs::remove_file(r.join("d/link")).unwrap();
            fs::create_dir(r.join("d/link")).unwrap()
        },
        &["d d", "d d/link"],
    ),
    (
        "link_retargeted",
        |r: &Path| {
            fs::remove_file(r.join("d/link")).unwrap();
            symlink("other", r.join("d/link")).unwrap()
        },
        &["d d", "s d/link"],
    ),
    (
        "fifo_to_file",
        |r: &Path| {
            fs::remove_file(r.join("d/fifo")).unwrap();
            fs::write(r.join("d/fifo"), "x").unwrap()
        },
        &["d d", "f d/fifo"],
    ),
    (
        "new_directory_for_old",
        |r: &Path| {
            fs::remove_dir_all(r.join("d")).unwrap();
            fs::create_dir_all(r.join("d/sub/y")).unwrap()
        },
        &[
            "d d",
            "f d/.wh.fifo",
            "f d/.wh.file",
            "f d/.wh.link",
            "d d/sub",
            "f d/sub/.wh.x",
            "d d/sub/y",
        ],
    ),
    ("renamed_file", |r: &Path| fs::rename(r.join("e"), r.join("g")).unwrap(), &["f .wh.e", "f g"]),
    ("hard_link", |r: &Path| fs::hard_link(r.join("e"), r.join("a")).unwrap(), &["f a", "l e a"]),
    (
        "one_name_more",
        |r: &Path| fs::hard_link(r.join("l1"), r.join("l3")).unwrap(),
        &["f l1", "l l3 l1"],
    ),
    ("one_name_of_two_changed", |r: &Path| fs::write(r.join("l1"), "new").unwrap(), &["f l1"]),
    (
        "device_copied",
        |r: &Path| fs::hard_link(r.join("null"), r.join("zero")).unwrap(),
        &["c null", "l zero null"],
    ),
    ("device_mode", |r: &Path| chmod(&r.join("null"), 0o600), &["c null"]),
    (
        "not_utf8",
        |r: &Path| {
            use std::os::unix::ffi::OsStrExt;
            fs::write(r.join(std::ffi::OsStr::from_bytes(b"a\nb")), "").unwrap();
        },
        &["f a\nb"],
    ),
];

#[test]
fn a_change_gives_its_entries_and_no_others() {
    if !inside("layer_diff::a_change_gives_its_entries_and_no_others") {
        return;
    }
    for (name, change, expected) in CASES {
        let (report, _, lines) = layer(change, None);
        assert_eq!(&lines, expected, "{name}");
        assert_eq!(report.unwrap().entries as usize, expected.len(), "{name}");
    }
}

#[test]
fn sockets_are_omitted_and_reported() {
    if !inside("layer_diff::sockets_are_omitted_and_reported") {
        return;
    }
    let bind = |path: std::path::PathBuf| {
        rustix::fs::mknodat(CWD, path, FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
    };
    let change = |r: &Path| {
        bind(r.join("empty/s"));
        fs::remove_file(r.join("e")).unwrap();
        bind(r.join("e"));
    };
    let (report, _, lines) = layer(change, None);
    assert_eq!(lines, ["f .wh.e"]);
    let report = report.unwrap();
    assert_eq!(report.sockets, [b"e".to_vec(), b"empty/s".to_vec()]);
    assert_eq!(report.socket_count, 2);
}

#[test]
fn a_whiteout_name_is_refused() {
    if !inside("layer_diff::a_whiteout_name_is_refused") {
        return;
    }
    let (report, ..) = layer(|r| fs::write(r.join("d/.wh.x"), "").unwrap(), None);
    let error = report.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert!(error.to_string().contains("\"d/.wh.x\""), "{error}");
    let (report, ..) = layer(|r| fs::create_dir(r.join("d/.wh.dir")).unwrap(), None);
    let error = report.unwrap_err();
    assert!(error.to_string().contains("\"d/.wh.dir\""), "{error}");
}

#[test]
fn times_are_clamped_after_the_comparison() {
    if !inside("layer_diff::times_are_clamped_after_the_comparison") {
        return;
    }
    let change = |r: &Path| {
        fs::write(r.join("new"), "x").unwrap();
        touch(&r.join("e"), 5, 5);
        fs::remove_file(r.join("l1")).unwrap();
    };
    let (_, entries, lines) = layer(change, Some(1_000));
    assert_eq!(lines, ["f .wh.l1", "f e", "f new"]);
    let times: Vec<_> = entries.iter().map(|entry| entry.mtime).collect();
    let clamp = Timestamp { seconds: 1000, nanoseconds: 0 };
    assert_eq!(times, [clamp, Timestamp { seconds: 5, nanoseconds: 5 }, clamp]);
    assert_eq!(layer(|_| {}, Some(1_000)).2, [""; 0]);
}

#[test]
fn recorded_attributes_are_decoded() {
    if !inside("layer_diff::recorded_attributes_are_decoded") {
        return;
    }
    let change = |r: &Path| {
        chmod(&r.join("null"), 0o600);
        // Writing to the stand-in of a device turns it into an ordinary file.
        fs::copy(r.join("null"), r.join("plain")).unwrap();
        set(&r.join("e"), "user.svp.node", b"c:1:1");
        chmod(&r.join("e"), 0o600);
        set(&r.join("d"), "user.overlay.x", b"mine");
    };
    let (_, entries, lines) = layer(change, None);
    assert_eq!(lines, ["d d", "f e", "c null", "f plain"]);
    assert_eq!((entries[2].major, entries[2].minor, entries[2].mode), (1, 3, 0o600));
    assert_eq!(entries[1].xattrs.len(), 0);
    assert_eq!(entries[0].xattrs[&b"user.overlay.x"[..]], b"mine");
}

#[test]
fn deep_trees_are_walked() {
    if !inside("layer_diff::deep_trees_are_walked") {
        return;
    }
    let deep = |levels: usize| {
        move |r: &Path| {
            let mut at = svp::rootfs::Cursor::new(open(r).as_fd()).unwrap();
            for _ in 0..levels {
                rustix::fs::mkdirat(at.dir(), "d2", Mode::from_raw_mode(0o755)).unwrap();
                at.push(b"d2").unwrap();
            }
        }
    };
    assert_eq!(layer(deep(1000), None).2.len(), 1000);
    let error = layer(deep(3000), None).0.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
}
