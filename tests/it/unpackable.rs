//! What gets a tag can be unpacked: import, pull and load refuse other layers, and take those that other tools take.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use svp::layer::entry::{Entry, EntryKind};
use svp::layer::write::TarWriter;
use svp::oci::media_type::LAYER;
use svp::oci::{Descriptor, Digest, History, Image, Platform};
use svp::store::{ArchiveFormat, Store};
use tar::Header;

use crate::support::{TestEnv, as_root, run};

/// Returns a header and its content, padded.
fn raw(flag: u8, name: &[u8], content: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkflag = [flag];
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    change(&mut header);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    raw(b'0', name.as_bytes(), b"data\n", |_| ())
}

fn dir(name: &str) -> Vec<u8> {
    raw(b'5', name.as_bytes(), b"", |_| ())
}

fn link(flag: u8, name: &str, target: &str) -> Vec<u8> {
    raw(flag, name.as_bytes(), b"", |header| header.set_link_name_literal(target).unwrap())
}

fn pax(records: &[&str]) -> Vec<u8> {
    let record = |text: &&str| {
        let length = (1..).find(|n| n.to_string().len() + text.len() + 2 == *n).unwrap();
        format!("{length} {text}\n")
    };
    raw(b'x', b"PaxHeaders/x", records.iter().map(record).collect::<String>().as_bytes(), |_| ())
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

fn tar(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), file("zz-after"), end()].concat()
}

/// Writes an image of these layers to `env`, unverified: returns an OCI layout's source, and a docker archive.
fn image(env: &TestEnv, layers: &[Vec<u8>]) -> (String, PathBuf) {
    let store = Store::open(&env.path("maker")).unwrap();
    let mut image = Image::new(&Platform::host());
    for tar in layers {
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(tar).unwrap();
        let (digest, size) = writer.finish().unwrap();
        let descriptor = Descriptor::new(LAYER, digest, size);
        image.append_layer(descriptor, Digest::of(tar), &History::default()).unwrap();
    }
    let name = "it:1".parse().unwrap();
    let descriptor = store.insert_image(&image, &name).unwrap();
    let (layout, archive) = (env.path("layout"), env.path("docker.tar"));
    let _ = fs::remove_dir_all(&layout);
    store.save_to_layout(&descriptor, &layout, &name).unwrap();
    store.save_as(ArchiveFormat::Docker, &descriptor, &archive, &name).unwrap();
    (format!("oci:{}:it:1", layout.display()), archive)
}

/// Checks that pull and load refuse the image, with `word` in the message, and leave no tag.
#[track_caller]
fn image_refused(env: &TestEnv, name: &str, layers: &[Vec<u8>], word: &str) {
    let (source, archive) = image(env, layers);
    for arguments in [["pull", &source], ["load", &format!("--input={}", archive.display())]] {
        let printed = env.fails(65, arguments);
        assert!(printed.contains(word), "{name}: {printed}");
    }
    assert!(!env.ok(["images"]).contains("it"), "{name}");
}

#[track_caller]
fn refused(env: &TestEnv, name: &str, tar: &[u8], word: &str) {
    let path = env.path("refused.tar");
    fs::write(&path, tar).unwrap();
    let printed = env.fails(65, ["import", path.to_str().unwrap(), "-t", "it"]);
    assert!(printed.contains(word), "{name}: {printed}");
    image_refused(env, name, &[tar.to_vec()], word);
}

#[test]
fn layers_that_cannot_be_unpacked_get_no_tag() {
    let env = TestEnv::new();
    let long = "x".repeat(50);
    let cases: &[(&str, &[Vec<u8>], &str)] = &[
        ("hard link to nothing", &[link(b'1', "b", "nothere")], "nothere"),
        ("hard link before its target", &[link(b'1', "b", "zz-after")], "zz-after"),
        ("hard link to a directory", &[dir("d/"), link(b'1', "b", "d")], "is a directory"),
        ("hard link to itself", &[link(b'1', "b", "b")], "itself"),
        ("hard link to the root", &[link(b'1', "b", "/")], "root"),
        (
            "hard link to a file that a directory replaced",
            &[file("a"), dir("a/"), link(b'1', "b", "a")],
            "is a directory",
        ),
        (
            "hard link below what it replaces",
            &[dir("d/"), file("d/f"), link(b'1', "d", "d/f")],
            "it replaces",
        ),
        ("hard link to a whiteout", &[file(".wh.a"), link(b'1', "b", ".wh.a")], "whiteout"),
        ("hard link to a hidden file", &[file(".wh.a"), link(b'1', "b", "a")], "hides"),
        ("hard link into a file", &[file("a"), link(b'1', "b", "a/x")], "not a directory"),
        ("file as parent", &[file("a"), file("a/b")], "not a directory"),
        ("device as parent", &[raw(b'3', b"null", b"", |_| ()), file("null/b")], "not a directory"),
        ("fifo as parent", &[raw(b'6', b"p", b"", |_| ()), dir("p/d")], "not a directory"),
        (
            "file with a slash as parent",
            &[raw(b'0', b"d/", b"", |_| ()), file("d/f")],
            "not a directory",
        ),
        (
            "link loop as parent",
            &[link(b'2', "l", "m"), link(b'2', "m", "l"), file("l/f")],
            "too many",
        ),
        ("empty link", &[link(b'2', "l", "")], "target"),
        ("leaves its directory", &[file("a/../../b")], ".."),
        ("a file as the root", &[raw(b'0', b"./", b"", |_| ())], "root"),
        ("whiteout of nothing", &[file("d/.wh.")], "whiteout"),
        ("below a whiteout", &[file(".wh.a/b")], "whiteout"),
        ("a name of 300 bytes", &[pax(&[&format!("path={}", long.repeat(6))]), file("f")], "255"),
        (
            "a path of 5000 bytes",
            &[pax(&[&format!("path={}", "a/".repeat(2500))]), file("f")],
            "4095",
        ),
        ("volume label", &[raw(b'V', b"odd", b"data\n", |_| ())], "--label"),
        ("incremental", &[raw(b'D', b"d/", b"Yf\0\0", |_| ())], "--incremental"),
        ("old sparse", &[raw(b'S', b"sp", b"data\n", |_| ())], "sparse"),
        ("bad atime", &[pax(&["atime=x"]), file("f")], "invalid number"),
        ("entries after zeros", &[file("a"), vec![0; 512], file("b")], "zeros"),
        (
            "directory with content",
            &[raw(0, b"d/", &[b'x'; 512], |header| header.as_old_mut().linkflag = [0])],
            "content",
        ),
        (
            "sparse map beyond the file",
            &[pax(&["GNU.sparse.map=9,5", "GNU.sparse.size=5"]), file("f")],
            "sparse",
        ),
    ];
    for (name, parts, word) in cases {
        refused(&env, name, &tar(parts), word);
    }
    assert_eq!(env.ok(["check", "--store"]), "");
    env.assert_nothing_left();
}

/// Imports, pulls and loads a tar, and unpacks it; returns the tree.
#[track_caller]
fn taken(env: &TestEnv, name: &str, tar: &[u8]) -> PathBuf {
    let path = env.path(&format!("{name}.tar"));
    fs::write(&path, tar).unwrap();
    env.ok(["import", path.to_str().unwrap(), "-t", name]);
    let (source, archive) = image(env, &[tar.to_vec()]);
    env.ok(["pull", &source, "-t", &format!("{name}-pulled")]);
    env.ok(["load", "--input", archive.to_str().unwrap(), "-t", &format!("{name}-loaded")]);
    let root = env.path(&format!("root-{name}"));
    env.ok(["unpack", name, root.to_str().unwrap()]);
    root
}

#[test]
fn odd_archives_are_read_as_other_tools_read_them() {
    let env = TestEnv::new();
    let data = |path: PathBuf| fs::read_to_string(path).unwrap();
    let root = taken(&env, "up", &tar(&[file("a"), link(b'1', "d/b", "../a")]));
    assert_eq!(
        root.join("a").metadata().unwrap().ino(),
        root.join("d/b").metadata().unwrap().ino()
    );

    let mut cut = raw(b'0', b"a", b"data\n", |_| ());
    cut.truncate(512 + 5);
    assert_eq!(data(taken(&env, "no-padding", &cut).join("a")), "data\n");

    let name = |name: &[u8]| raw(b'L', b"././@LongLink", name, |_| ());
    let lone = [file("a"), name(b"b\0"), end()].concat();
    assert_eq!(data(taken(&env, "l-at-end", &lone).join("a")), "data\n");
    let two = tar(&[name(b"first\0"), name(b"second\0"), file("f")]);
    let root = taken(&env, "two-l", &two);
    assert_eq!(data(root.join("second")), "data\n");
    assert!(!root.join("first").exists() && !root.join("f").exists());
    let two = tar(&[pax(&["path=first", "mtime=5"]), pax(&["path=second"]), file("f")]);
    let root = taken(&env, "two-x", &two);
    assert_eq!(
        (data(root.join("second")), root.join("second").metadata().unwrap().mtime()),
        ("data\n".into(), 0)
    );
    let both = tar(&[name(b"gnu\0"), pax(&["path=pax"]), file("f")]);
    assert_eq!(data(taken(&env, "both", &both).join("gnu")), "data\n");

    let owner = taken(&env, "uid", &tar(&[pax(&["uid=-1", "gid=-1"]), file("f")]));
    let metadata = owner.join("f").metadata().unwrap();
    assert!(!as_root() || (metadata.uid(), metadata.gid()) == (0, 0));

    let prefixed = |magic: &[u8; 8], prefix: &[u8], trailer: &[u8]| {
        raw(b'0', b"name", b"data\n", |header| {
            let bytes = header.as_mut_bytes();
            bytes[257..265].copy_from_slice(magic);
            bytes[345..345 + prefix.len()].copy_from_slice(prefix);
            bytes[512 - trailer.len()..].copy_from_slice(trailer);
        })
    };
    let root = taken(&env, "gnu-prefix", &tar(&[prefixed(b"ustar  \0", b"pre/fix", b"")]));
    assert_eq!(data(root.join("pre/fix/name")), "data\n");
    let root = taken(
        &env,
        "gnu-times",
        &tar(&[prefixed(b"ustar  \0", b"00000000000\x0000000000000\0", b"")]),
    );
    assert_eq!(data(root.join("name")), "data\n");
    let long = [&[b'p'; 65][..], b"/", &[b'q'; 65]].concat();
    let star = [&long[..], b"00000000000 00000000000 "].concat();
    let root = taken(&env, "star", &tar(&[prefixed(b"ustar\x0000", &star, b"tar\0")]));
    assert_eq!(data(root.join(String::from_utf8(long).unwrap()).join("name")), "data\n");
    assert_eq!(env.ok(["check", "--store"]), "");
}

#[test]
fn sparse_files_of_pax_archives_are_expanded() {
    let env = TestEnv::new();
    let mut expected = vec![0; 10_000];
    expected[5000..5005].copy_from_slice(b"data\n");
    let mut map = b"2\n5000\n5\n10000\n0\n".to_vec();
    map.resize(512, 0);
    let newest = [
        "GNU.sparse.major=1",
        "GNU.sparse.minor=0",
        "GNU.sparse.name=real/name",
        "GNU.sparse.realsize=10000",
    ];
    let content = [&map[..], b"data\n"].concat();
    let newest = [pax(&newest), raw(b'0', b"GNUSparseFile.0/name", &content, |_| ())].concat();
    let newer = [
        pax(&["GNU.sparse.size=10000", "GNU.sparse.numblocks=1", "GNU.sparse.map=5000,5"]),
        file("real/name"),
    ];
    let old = ["GNU.sparse.size=10000", "GNU.sparse.offset=5000", "GNU.sparse.numbytes=5"];
    for (name, tar) in [
        ("newest", tar(&[newest])),
        ("newer", tar(&newer)),
        ("old", tar(&[pax(&old), file("real/name")])),
    ] {
        let root = taken(&env, name, &tar);
        assert_eq!(fs::read(root.join("real/name")).unwrap(), expected, "{name}");
        assert_eq!(fs::read(root.join("zz-after")).unwrap(), b"data\n", "{name}");
    }
    // GNU tar's own, in all its formats.
    let sparse = env.path("s");
    fs::create_dir(&sparse).unwrap();
    run(
        "sh",
        [
            "-c",
            &format!(
                "truncate -s 3M {0}/f && printf x | dd of={0}/f bs=1 seek=1000000 conv=notrunc 2>/dev/null",
                sparse.display()
            ),
        ],
    );
    for version in ["0.0", "0.1", "1.0"] {
        let tar = env.path("gnu.tar");
        let format = format!("--sparse-version={version}");
        let (tar, from) = (tar.to_str().unwrap(), sparse.to_str().unwrap());
        run("tar", ["--format=posix", "--sparse", &format, "-cf", tar, "-C", from, "f"]);
        env.ok(["import", tar, "-t", "gnu"]);
        let root = env.path(&format!("gnu-{version}"));
        env.ok(["unpack", "gnu", root.to_str().unwrap()]);
        assert_eq!(
            fs::read(root.join("f")).unwrap(),
            fs::read(sparse.join("f")).unwrap(),
            "{version}"
        );
    }
}

#[test]
fn acls_are_applied_and_what_is_ignored_is_told() {
    let env = TestEnv::new();
    let acl = "SCHILY.acl.access=user::rw-,user:0:rwx,group::r--,mask::rwx,other::---\n";
    let root = taken(
        &env,
        "acl",
        &tar(&[pax(&[acl]), raw(b'0', b"f", b"data\n", |header| header.set_mode(0o670))]),
    );
    let mut value = vec![0; 1000];
    let length = rustix::fs::getxattr(root.join("f"), "system.posix_acl_access", &mut value[..]);
    // Five entries of eight bytes after the version.
    assert_eq!(length, Ok(4 + 5 * 8));
    assert_eq!(&value[12..16], [2, 0, 7, 0], "user:0:rwx");
    let mut global = pax(&["uid=77", "comment=from git"]);
    global[156] = b'g';
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&global[..512]);
    header.set_cksum();
    global[..512].copy_from_slice(header.as_bytes());
    let named = pax(&["SCHILY.acl.access=user::rw-,user:joe:rwx,group::r--,mask::rwx,other::---"]);
    for (part, keyword) in [(global, "uid"), (named, "SCHILY.acl.access")] {
        let tar = tar(&[part, file("f")]);
        let path = env.path("ignored.tar");
        fs::write(&path, &tar).unwrap();
        let (source, _) = image(&env, &[tar]);
        for arguments in
            [["import", path.to_str().unwrap(), "-t", "x"], ["pull", &source, "-t", "y"]]
        {
            let output = env.svp(arguments).output().unwrap();
            let printed = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success() && printed.contains("without effect"), "{printed}");
            assert!(printed.contains(keyword) && !printed.contains("comment"), "{printed}");
        }
    }
}

/// Returns a layer with these entries.
fn layer(entries: &[(&str, EntryKind, &str)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (path, kind, target) in entries {
        let mut entry = Entry::new(*path, *kind, 0o755);
        entry.link = target.as_bytes().to_vec();
        writer.append(&entry, &mut &b""[..]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn hard_links_into_lower_layers_are_verified_with_them() {
    use EntryKind::{Directory, File, HardLink, Symlink};
    let env = TestEnv::new();
    let base = layer(&[("d/", Directory, ""), ("d/f", File, ""), ("s", Symlink, "d")]);
    let linked = layer(&[("x", HardLink, "d/f")]);
    let (source, _) = image(&env, &[base.clone(), linked.clone()]);
    for again in 0..2 {
        env.ok(["pull", &source]);
        let root = env.path(&format!("root-{again}"));
        env.ok(["unpack", "it:1", root.to_str().unwrap()]);
        assert_eq!(root.join("x").metadata().unwrap().nlink(), 2);
    }
    assert_eq!(env.ok(["check", "--store"]), "");
    env.ok(["rmi", "it:1"]);
    let hidden = layer(&[("d/.wh..wh..opq", File, "")]);
    let removed = layer(&[("d/.wh.f", File, "")]);
    let replaced = layer(&[("d", File, "")]);
    let restored = layer(&[("d", File, ""), ("d", Directory, "")]);
    let through = layer(&[("x", HardLink, "s/f")]);
    let own_dir = layer(&[("x", HardLink, "d")]);
    let through_own = layer(&[("t", Symlink, "d"), ("x", HardLink, "t/f")]);
    for (name, layers, word) in [
        ("alone", vec![linked.clone()], "neither"),
        ("below its target", vec![linked.clone(), base.clone()], "neither"),
        ("hidden", vec![base.clone(), hidden, linked.clone()], "neither"),
        ("removed", vec![base.clone(), removed, linked.clone()], "neither"),
        ("replaced by a file", vec![base.clone(), replaced, linked.clone()], "neither"),
        ("replaced by an empty directory", vec![base.clone(), restored, linked.clone()], "neither"),
        ("through a lower link", vec![base.clone(), through], "neither"),
        ("to a lower directory", vec![base.clone(), own_dir], "is a directory"),
        ("through a link of its own", vec![base.clone(), through_own], "through a link"),
    ] {
        // The store knows both layers, each verified alone.
        image_refused(&env, name, &layers, word);
    }
    // What an earlier version of svp took is reported.
    let store = Store::open(&env.store()).unwrap();
    let mut old = Image::new(&Platform::host());
    for tar in [&linked, &base] {
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(tar).unwrap();
        let (digest, size) = writer.finish().unwrap();
        old.append_layer(
            Descriptor::new(LAYER, digest, size),
            Digest::of(tar),
            &History::default(),
        )
        .unwrap();
    }
    store.insert_image(&old, &"old".parse().unwrap()).unwrap();
    drop(store);
    let output = env.svp(["check", "--store"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(printed.contains("old") && printed.contains("hard link to \"d/f\""), "{printed}");
}
