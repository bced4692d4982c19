//! Valid and hostile layers: each case is unpacked for an overlay and into a plain tree, must mean the same in both,
//! and must touch nothing outside.

use std::path::Path;

use crate::layer_common::{Lab, inside, open, sketch, tar, unpack_overlay, unpack_plain};
use rstest::rstest;
use std::os::fd::AsFd;
use svp::error::Kind;
use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::layer::meta::read_xattrs;
use svp::layer::path::show;
use svp::layer::snapshot::{self, Snapshot};
use svp::layer::unpack::Loss;

/// Returns the tree as lines "PATH KIND".
fn view(root: &Path) -> Vec<String> {
    lines(&snapshot::take(open(root).as_fd()).unwrap())
}

fn lines(snapshot: &Snapshot) -> Vec<String> {
    let below = snapshot.iter().filter(|(path, _)| !path.is_empty());
    below
        .map(|(path, node)| {
            let kind = match node.entry.kind {
                EntryKind::Directory => "d",
                EntryKind::File => "f",
                EntryKind::Symlink => "s",
                EntryKind::Fifo => "p",
                _ => "c",
            };
            format!("{kind} {}", String::from_utf8_lossy(path))
        })
        .collect()
}

/// Unpacks the layers both ways; returns the resulting tree, which must be the same.
#[track_caller]
fn both(layers: &[&[&str]]) -> Vec<String> {
    let mut lab = Lab::new();
    let plain = lab.make_dir();
    for layer in layers {
        let tar = sketch(layer);
        lab.add(&tar).unwrap();
        unpack_plain(&tar, &plain).unwrap();
    }
    let merged = lab.mount(None);
    let stacked = view(&merged.0);
    assert_eq!(stacked, view(&plain), "an overlay and a plain tree differ");
    stacked
}

#[test]
fn hostile_layers_stay_inside() {
    if !inside("layer_unpack::hostile_layers_stay_inside") {
        return;
    }
    let mut lab = Lab::new();
    let outside = lab.make_dir();
    std::fs::write(outside.join("canary"), "alive").unwrap();
    std::fs::create_dir(outside.join("sub")).unwrap();
    let host = outside.display();
    let through = [format!("s out {host}"), "f out/canary x".into(), "f out/.wh.sub ".into()];
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let deep = format!("f {}x y", "a/".repeat(200));
    let long = format!("f {} y", "n".repeat(256));
    let target = format!("s a {}", "t".repeat(4096));
    // Refused layers, and the resulting trees of accepted ones.
    type Case<'a> = (&'a str, &'a [&'a str], Option<&'a [&'a str]>);
    let cases: &[Case<'_>] = &[
        ("up", &["f ../canary x"], None),
        ("up inside", &["d a", "f a/../../canary x"], None),
        ("absolute", &["f /canary x"], Some(&["f canary"])),
        ("link up", &["s out ..", "f out/canary x"], Some(&["f canary", "s out"])),
        (
            "link far up",
            &["d a", "s a/o ../../..", "f a/o/canary x"],
            Some(&["d a", "s a/o", "f canary"]),
        ),
        ("link to the root", &["s out /", "f out/canary x"], Some(&["f canary", "s out"])),
        ("two links", &["s a ..", "s b a/a/..", "f b/canary x"], Some(&["s a", "s b", "f canary"])),
        ("whiteout by link", &["s out ..", "f out/.wh.canary "], Some(&["s out"])),
        ("opaque by link", &["s out ..", "f out/.wh..wh..opq "], Some(&["s out"])),
        ("link loop", &["s a b", "s b a", "f a/x y"], None),
        ("hard link up", &["l h ../canary"], None),
        ("hard link absolute", &["l h /canary"], None),
        ("hard link by link", &["s out ..", "l h out/canary"], None),
        ("hard link by link to nothing", &["s out x", "l h out/canary"], None),
        (
            "hard link to a link, then written",
            &["s a ../canary", "l b a", "f b x"],
            Some(&["s a", "f b"]),
        ),
        ("file over link", &["s a ../canary", "f a x"], Some(&["f a"])),
        ("directory over link", &["s a ..", "d a", "f a/canary x"], Some(&["d a", "f a/canary"])),
        (
            "parent replaced",
            &["d a", "f a/x y", "s a ..", "f a/canary x"],
            Some(&["s a", "f canary"]),
        ),
        (
            "parent replaced back",
            &["s a ..", "f a/x y", "d a", "f a/x y"],
            Some(&["d a", "f a/x", "f x"]),
        ),
        ("hard link to itself", &["f a x", "l a a"], None),
        ("hard link to itself by link", &["d d", "f d/a x", "s e d", "l e/a d/a"], None),
        ("hard link to a directory", &["d a", "l b a"], None),
        ("hard link to the root", &["l b /"], None),
        ("hard link to nothing", &["l b a"], None),
        ("hard link to a whiteout", &["f .wh.a ", "l b .wh.a"], None),
        ("hard link over its target's directory", &["d a", "f a/b x", "l a a/b"], None),
        ("file below a file", &["f a x", "f a/b y"], None),
        ("file below a fifo", &["p a", "f a/b y"], None),
        ("whiteout of nothing", &["f .wh. "], None),
        ("whiteout of .", &["f .wh.. "], None),
        ("whiteout of ..", &["f .wh... "], None),
        ("file in a whiteout", &["f .wh.a/b x"], None),
        ("aufs's own", &["d .wh..wh.plnk", "f .wh..wh.plnk/1 x", "f .wh..wh.aufs "], Some(&[])),
        ("root is a file", &["f . x"], None),
        ("root is a link", &["s / .."], None),
        ("long name", &[&long], None),
        ("empty target", &["s a "], None),
        ("long target", &[&target], None),
        ("parents made", &["f a/b/c x"], Some(&["d a", "d a/b", "f a/b/c"])),
    ];
    let check = |name: &str, tar: &[u8], expected: Option<&[&str]>, lab: &mut Lab| {
        for plain in [false, true] {
            let before = lines(&snapshot::take(open(&outside).as_fd()).unwrap());
            let root = outside.join(format!("root{plain}"));
            std::fs::create_dir(&root).unwrap();
            let result =
                if plain { unpack_plain(tar, &root) } else { unpack_overlay(tar, &root, None) };
            let mut got = view(&root);
            // In a single layer, the whiteouts are visible as devices.
            got.retain(|line| !line.starts_with('c'));
            std::fs::remove_dir_all(&root).unwrap();
            assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"alive", "{name}");
            assert_eq!(view(&outside), before, "{name}");
            match (result, expected) {
                (Ok(_), Some(expected)) => assert_eq!(sorted(&got), sorted(expected), "{name}"),
                (Err(error), None) => assert_eq!(error.kind(), Kind::BadInput, "{name}: {error}"),
                (result, _) => panic!("{name}: {result:?}"),
            }
        }
        let _ = lab;
    };
    for (name, layer, expected) in cases {
        check(name, &sketch(layer), *expected, &mut lab);
    }
    let root = outside.join("through");
    std::fs::create_dir(&root).unwrap();
    unpack_overlay(&sketch(&through), &root, None).unwrap();
    assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"alive");
    assert!(outside.join("sub").is_dir());
    assert!(root.join(outside.strip_prefix("/").unwrap()).join("canary").is_file());
    unpack_plain(&sketch(&[&deep]), &root).unwrap();
}

fn sorted<S: AsRef<str>>(lines: &[S]) -> Vec<&str> {
    let mut lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn depth_is_no_limit() {
    if !inside("layer_unpack::depth_is_no_limit") {
        return;
    }
    let mut lab = Lab::new();
    let root = lab.make_dir();
    let deep = Entry::new("d/".repeat(2000), EntryKind::Directory, 0o755);
    let file = Entry::new(["d/".repeat(1999).as_bytes(), b"f"].concat(), EntryKind::File, 0o644);
    unpack_overlay(&tar(&[(deep, b""), (file, b"")]), &root, None).unwrap();
    assert_eq!(snapshot::take(open(&root).as_fd()).unwrap().len(), 2002);
    unpack_overlay(&sketch(&["f d replaced"]), &root, None).unwrap();
    assert_eq!(view(&root), ["f d"]);
    let deeper = Entry::new("d/".repeat(10_000), EntryKind::Directory, 0o755);
    let error = unpack_overlay(&tar(&[(deeper, b"")]), &root, None).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
}

#[test]
fn later_entries_replace_earlier_ones_of_any_type() {
    if !inside("layer_unpack::later_entries_replace_earlier_ones_of_any_type") {
        return;
    }
    let all = ["d x", "f x content", "s x target", "l x other", "p x", "c x"];
    for first in all {
        for second in all {
            // A plain tree in a user namespace has no devices.
            if second.starts_with('c') {
                continue;
            }
            let last = if second.starts_with('l') { "f x" } else { &second[..3] };
            let one = both(&[&["f other o", first, second]]);
            assert_eq!(one, ["f other", last], "{first}, {second}");
            assert_eq!(both(&[&["f other o", first], &["f other o", second]]), one);
        }
    }
    assert_eq!(both(&[&["d x", "f x/a a", "d x"]]), ["d x", "f x/a"]);
    assert_eq!(both(&[&["d x", "f x/a a"], &["d x"]]), ["d x", "f x/a"]);
    assert_eq!(both(&[&["d x", "d x/y", "f x/y/a a"], &["f x b"], &["d x"]]), ["d x"]);
}

#[rstest]
#[case::opaque_first(&["d d", "f d/.wh..wh..opq ", "f d/new n"], &["d d", "f d/new", "f e"])]
#[case::opaque_last(&["d d", "f d/new n", "f d/.wh..wh..opq "], &["d d", "f d/new", "f e"])]
#[case::opaque_alone(&["f d/.wh..wh..opq "], &["d d", "f e"])]
#[case::opaque_root(&["f .wh..wh..opq ", "f new n"], &["f new"])]
#[case::opaque_root_last(&["f d/new n", "f .wh..wh..opq "], &["d d", "f d/new"])]
#[case::whiteout(&["f .wh.d "], &["f e"])]
#[case::whiteout_inside(&["f d/.wh.sub ", "f .wh.e "], &["d d", "f d/old"])]
#[case::whiteout_of_nothing(&["f .wh.nothing "], &["d d", "f d/old", "d d/sub", "f d/sub/x", "f e"])]
#[case::real_entry_after(&["f .wh.e ", "f e new"], &["d d", "f d/old", "d d/sub", "f d/sub/x", "f e"])]
#[case::real_entry_before(&["f e new", "f .wh.e "], &["d d", "f d/old", "d d/sub", "f d/sub/x", "f e"])]
#[case::directory_after(&["f .wh.d ", "d d", "f d/new n"], &["d d", "f d/new", "f e"])]
#[case::directory_before(&["d d", "f d/new n", "f .wh.d "], &["d d", "f d/new", "f e"])]
#[case::content_after(&["f .wh.d ", "f d/sub/new n"], &["d d", "d d/sub", "f d/sub/new", "f e"])]
#[case::content_before(&["f d/sub/new n", "f .wh.d "], &["d d", "d d/sub", "f d/sub/new", "f e"])]
#[case::file_for_directory(&["f .wh.d ", "f d file"], &["f d", "f e"])]
fn whiteouts_hide_only_lower_layers(#[case] layer: &[&str], #[case] expected: &[&str]) {
    let case = std::thread::current().name().unwrap().to_owned();
    if !inside(&case) {
        return;
    }
    let base: &[&str] = &["d d", "f d/old o", "d d/sub", "f d/sub/x x", "f e e"];
    assert_eq!(both(&[base, layer]), expected);
}

#[test]
fn a_directory_that_is_not_mentioned_keeps_its_metadata() {
    if !inside("layer_unpack::a_directory_that_is_not_mentioned_keeps_its_metadata") {
        return;
    }
    let mut dir = Entry::new("d", EntryKind::Directory, 0o1777);
    (dir.uid, dir.gid) = (7, 8);
    dir.mtime = Timestamp { seconds: 12345, nanoseconds: 678 };
    dir.xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
    let mut root = dir.clone();
    root.path = b"./".to_vec();
    let base = tar(&[(root, b""), (dir, b"")]);
    let more = sketch(&["f d/x x", "f d/.wh.gone "]);
    let mut lab = Lab::new();
    let plain = lab.make_dir();
    for tar in [&base, &more] {
        lab.add(tar).unwrap();
        unpack_plain(tar, &plain).unwrap();
    }
    let merged = lab.mount(None);
    for tree in [&merged.0, &plain] {
        let tree = snapshot::take(open(tree).as_fd()).unwrap();
        for path in [&b""[..], b"d"] {
            let entry = &tree[path].entry;
            assert_eq!((entry.mode, entry.uid, entry.gid), (0o1777, 7, 8), "{}", show(path));
            assert_eq!(entry.mtime, Timestamp { seconds: 12345, nanoseconds: 678 });
            assert_eq!(entry.xattrs[&b"user.note"[..]], b"kept");
        }
    }
}

#[test]
fn directories_replace_symlinks_of_lower_layers() {
    if !inside("layer_unpack::directories_replace_symlinks_of_lower_layers") {
        return;
    }
    let got = both(&[&["d usr", "d usr/lib", "f usr/lib/a a", "s lib usr/lib"], &["f lib/foo x"]]);
    assert_eq!(got, ["d lib", "f lib/foo", "d usr", "d usr/lib", "f usr/lib/a"]);
    let got = both(&[&["d usr", "d usr/lib", "s lib usr/lib", "f lib/foo x"]]);
    assert_eq!(got, ["s lib", "d usr", "d usr/lib", "f usr/lib/foo"]);
}

#[test]
fn hard_links_reach_into_lower_layers() {
    if !inside("layer_unpack::hard_links_reach_into_lower_layers") {
        return;
    }
    let base: &[&str] = &["d d", "f d/file content", "s d/link x", "p d/fifo"];
    let layer: &[&str] = &["l a d/file", "l b d/link", "l c d/fifo", "l e a"];
    let got = both(&[base, layer]);
    assert_eq!(got, ["f a", "s b", "p c", "d d", "p d/fifo", "f d/file", "s d/link", "f e"]);
    let mut lab = Lab::new();
    lab.add(&sketch(base)).unwrap();
    lab.add(&sketch(layer)).unwrap();
    let merged = lab.mount(None);
    let tree = snapshot::take(open(&merged.0).as_fd()).unwrap();
    let inode = |path: &str| tree[path.as_bytes()].inode;
    assert_eq!((inode("a"), inode("b")), (inode("d/file"), inode("d/link")));
    assert_eq!(inode("e"), inode("a"));
    assert_eq!(tree[&b"a"[..]].entry.mtime.seconds, 1_000_001);
    assert!(lab.add(&sketch(&["f d/.wh.file ", "l f d/file"])).is_err());
}

#[test]
fn uncreatable_attributes_are_recorded_or_listed() {
    if !inside("layer_unpack::uncreatable_attributes_are_recorded_or_listed") {
        return;
    }
    let mut device = Entry::new("null", EntryKind::CharDevice, 0o666);
    (device.major, device.minor) = (1, 3);
    let mut far = Entry::new("far", EntryKind::File, 0o6755);
    (far.uid, far.gid) = (5_000_000, 0);
    let mut link = Entry::new("link", EntryKind::Symlink, 0o777);
    (link.uid, link.gid) = (5_000_000, 1);
    link.link = b"x".to_vec();
    let tar = tar(&[(device, b""), (far, b""), (link, b"")]);
    let mut lab = Lab::new();
    let report = lab.add(&tar).unwrap();
    assert_eq!((report.unmade.len(), report.unrepresented.len()), (0, 1));
    assert_eq!((report.unrepresented[0].uid, report.unrepresented[0].gid), (5_000_000, 1));
    let merged = lab.mount(None);
    let tree = snapshot::take(open(&merged.0).as_fd()).unwrap();
    let null = &tree[&b"null"[..]].entry;
    assert_eq!((null.kind, null.major, null.minor), (EntryKind::CharDevice, 1, 3));
    assert_eq!(tree[&b"far"[..]].entry.uid, 5_000_000);
    assert_eq!(tree[&b"far"[..]].entry.mode, 0o6755);
    // On the disk the file belongs to root, so it must not be setuid.
    let mode = rustix::fs::stat(merged.0.join("far")).unwrap().st_mode;
    assert_eq!(mode & 0o7777, 0o755);
    let plain = lab.make_dir();
    let report = unpack_plain(&tar, &plain).unwrap();
    let losses: Vec<_> = report.unmade.iter().map(|unmade| unmade.loss.clone()).collect();
    let owner = |uid, gid| Loss::Owner { uid, gid };
    let (device, set_id) = (Loss::Device { major: 1, minor: 3 }, Loss::SetId { mode: 0o6755 });
    let expected = [device, set_id, owner(5_000_000, 0), owner(5_000_000, 1)];
    assert_eq!(losses, expected);
    assert_eq!(view(&plain), ["f far", "s link"]);
    assert_eq!(rustix::fs::stat(plain.join("far")).unwrap().st_mode & 0o7777, 0o755);
}

#[test]
fn attributes_cannot_be_forged() {
    if !inside("layer_unpack::attributes_cannot_be_forged") {
        return;
    }
    let mut dir = Entry::new("d", EntryKind::Directory, 0o755);
    let mut file = Entry::new("f", EntryKind::File, 0o755);
    for name in ["user.overlay.opaque", "user.overlay.redirect", "user.svp.node", "user.svp.owner"]
    {
        dir.xattrs.insert(name.into(), b"y".to_vec());
    }
    file.xattrs.insert(b"user.svp.node".to_vec(), b"c:1:1".to_vec());
    file.xattrs.insert(b"user.overlay.metacopy".to_vec(), b"".to_vec());
    file.xattrs.insert(b"user.fine".to_vec(), b"a\n\0b".to_vec());
    let mut lab = Lab::new();
    lab.add(&sketch(&["d d", "f d/below x"])).unwrap();
    let report = lab.add(&tar(&[(dir, b""), (file, b"")])).unwrap();
    assert_eq!(report.unmade, []);
    let raw = read_xattrs(open(&lab.layers.last().unwrap().join("d")).as_fd()).unwrap();
    let names: Vec<_> = raw.keys().map(|name| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["user.overlay.overlay.opaque", "user.overlay.overlay.redirect"]);
    let merged = lab.mount(None);
    assert_eq!(view(&merged.0), ["d d", "f d/below", "f f"]);
    let tree = snapshot::take(open(&merged.0).as_fd()).unwrap();
    assert_eq!(tree[&b"f"[..]].entry.kind, EntryKind::File);
    assert_eq!(tree[&b"f"[..]].entry.xattrs[&b"user.fine"[..]], b"a\n\0b");
}

#[test]
fn unpacked_files_inherit_no_acl() {
    if !inside("layer_unpack::unpacked_files_inherit_no_acl") {
        return;
    }
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, id) in
        [(1u16, u32::MAX), (2, 1000), (4, u32::MAX), (0x10, u32::MAX), (0x20, u32::MAX)]
    {
        acl.extend([&tag.to_le_bytes()[..], &7u16.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    let mut dir = Entry::new("d", EntryKind::Directory, 0o755);
    dir.xattrs.insert(b"system.posix_acl_default".to_vec(), acl);
    let below = ["d/f", "d/other"].map(|path| (Entry::new(path, EntryKind::File, 0o600), &b""[..]));
    let sub = Entry::new("d/sub", EntryKind::Directory, 0o700);
    let first = tar(&[(dir, b""), below[0].clone(), (sub, b"")]);
    let second = tar(&[below[1].clone()]);
    let mut lab = Lab::new();
    let plain = lab.make_dir();
    for tar in [&first, &second] {
        lab.add(tar).unwrap();
        unpack_plain(tar, &plain).unwrap();
    }
    let merged = lab.mount(None);
    for tree in [&merged.0, &plain] {
        let tree = snapshot::take(open(tree).as_fd()).unwrap();
        assert_eq!(tree[&b"d"[..]].entry.xattrs.len(), 1);
        for path in [&b"d/f"[..], b"d/other", b"d/sub"] {
            assert_eq!(tree[path].entry.xattrs.len(), 0, "{}", show(path));
        }
    }
}

#[test]
fn a_directory_emptied_by_a_whiteout_keeps_its_time() {
    if !inside("layer_unpack::a_directory_emptied_by_a_whiteout_keeps_its_time") {
        return;
    }
    let mut lab = Lab::new();
    let plain = lab.make_dir();
    let lower = sketch(&["d d", "f d/lower x", "f d/other x"]);
    let upper = sketch(&["f d/own y", "f .wh.d"]);
    for tar in [&lower, &upper] {
        lab.add(tar).unwrap();
        unpack_plain(tar, &plain).unwrap();
    }
    let merged = lab.mount(None);
    for tree in [&merged.0, &plain] {
        let tree = snapshot::take(open(tree).as_fd()).unwrap();
        let seconds = tree[&b"d"[..]].entry.mtime.seconds;
        assert_eq!((seconds, tree.contains_key(&b"d/lower"[..])), (1_000_000, false));
    }
}

#[test]
fn zeros_become_holes() {
    if !inside("layer_unpack::zeros_become_holes") {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let mut lab = Lab::new();
    let root = lab.make_dir();
    let mut content = vec![0; 8 << 20];
    content[3_000_000] = 1;
    let mut file = Entry::new("sparse", EntryKind::File, 0o644);
    file.size = content.len() as u64;
    let mut zeros = Entry::new("zeros", EntryKind::File, 0o644);
    zeros.size = 1 << 20;
    unpack_overlay(&tar(&[(file, &content), (zeros, &content[..1 << 20])]), &root, None).unwrap();
    assert_eq!(std::fs::read(root.join("sparse")).unwrap(), content);
    assert!(root.join("sparse").metadata().unwrap().blocks() * 512 <= 128 * 1024);
    assert_eq!(root.join("zeros").metadata().unwrap().len(), 1 << 20);
    assert_eq!(root.join("zeros").metadata().unwrap().blocks(), 0);
}

#[test]
fn a_damaged_layer_is_bad_input() {
    if !inside("layer_unpack::a_damaged_layer_is_bad_input") {
        return;
    }
    let mut lab = Lab::new();
    let root = lab.make_dir();
    let whole = sketch(&["f a content"]);
    // Inside the content; only the padding of the last entry may be missing.
    let error = unpack_overlay(&whole[..515], &root, None).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput, "{error}");
    let error = unpack_overlay(b"<html>", &root, None).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput, "{error}");
}
