//! `svp diff`, through the binary: hand-made layers, real trees, errors.

use std::collections::BTreeMap;
use std::io::Write;

use crate::layer_common::{sketch, tar};
use crate::support;
use crate::support::tree::{What, listing};
use crate::support::{TestEnv, output, transcript};
use serde_json::Value;
use svp::layer::compress::Encoder;
use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::oci::media_type::Compression;
use svp::oci::{Descriptor, Digest, History, Image};
use svp::store::Store;

/// Adds an image of the layers to the environment's store.
fn image(env: &TestEnv, name: &str, layers: &[Vec<u8>]) -> Vec<Descriptor> {
    let store = Store::open(&env.store()).unwrap();
    let mut image = Image::new(&"linux/amd64".parse().unwrap());
    let compressions = [Compression::Gzip, Compression::Zstd, Compression::None];
    for (tar, compression) in layers.iter().zip(compressions.into_iter().cycle()) {
        let mut encoder = Encoder::new(Vec::new(), compression.into(), 1).unwrap();
        encoder.write_all(tar).unwrap();
        let blob = encoder.finish().unwrap();
        store.put_blob(&blob).unwrap();
        let descriptor = Descriptor::of(compression.layer_media_type(), &blob);
        image.append_layer(descriptor, Digest::of(tar), &History::default()).unwrap();
    }
    store.insert_image(&image, &name.parse().unwrap()).unwrap();
    image.layers().iter().map(|layer| layer.descriptor.clone()).collect()
}

fn sketched(env: &TestEnv, name: &str, layers: &[&[&str]]) -> Vec<Descriptor> {
    let layers: Vec<_> = layers.iter().map(|lines| sketch(lines)).collect();
    image(env, name, &layers)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const BASE: &[&str] =
    &["d d", "f d/x one", "f d/y two", "d d/sub", "f d/sub/z three", "s l d", "f f four"];

#[test]
fn changes_of_one_layer_are_listed_by_path() {
    let cases: &[(&[&str], &str)] = &[
        (&[], ""),
        (&["f d/x one", "d d", "s l d"], ""),
        (&["f d/x other", "f d/new n"], "A /d/new,C /d/x"),
        (&["f d/.wh.x", "f .wh.l"], "D /d/x,D /l"),
        (&["f .wh.d"], "D /d,D /d/sub,D /d/sub/z,D /d/x,D /d/y"),
        (&["f d/.wh..wh..opq", "f d/y two"], "D /d/sub,D /d/sub/z,D /d/x"),
        (&["f .wh.d", "f d/sub/z three"], "D /d/x,D /d/y"),
        // A directory replaced by a file; a file and a link replaced by a directory.
        (&["f d now a file"], "C /d,D /d/sub,D /d/sub/z,D /d/x,D /d/y"),
        (&["d f", "f f/in i"], "C /f,A /f/in"),
        (&["f l/in i"], "C /l,A /l/in"),
        // Hard links: to a file of a lower layer, to an identical file, through a symbolic link of the same layer.
        (&["l twin d/x"], "A /twin"),
        (&["l d/y d/x"], "C /d/y"),
        (&["f d/y one", "l d/x d/y"], "C /d/y"),
        (&["s new d", "f new/x through"], "C /d/x,A /new"),
        (&["s l d/sub"], "C /l"),
        // The last of several entries of one name wins.
        (&["f d/x 1", "f d/x 2", "f d/x one"], ""),
        (&["p d/x"], "C /d/x"),
        (&["c null"], "A /null"),
        (&["f e/f/g h"], "A /e,A /e/f,A /e/f/g"),
        (&["f d-x -", "f d.x ."], "A /d-x,A /d.x"),
    ];
    let env = TestEnv::new();
    for (number, (layer, expected)) in cases.iter().enumerate() {
        let name = format!("i{number}");
        sketched(&env, &name, &[BASE, layer]);
        let printed = env.ok(["diff", &name]);
        let mut lines: Vec<&str> = expected.split(',').filter(|line| !line.is_empty()).collect();
        lines.sort_by_key(|line| line.as_bytes()[2..].to_vec());
        assert_eq!(printed.lines().collect::<Vec<_>>(), lines, "{layer:?}");
        // Identical images, compared in both directions.
        sketched(&env, "base", &[BASE]);
        assert_eq!(env.ok(["diff", "base", &name]), printed, "{layer:?}");
        let back = env.ok(["diff", &name, "base"]);
        let swapped = |line: &str| match line.split_at(1) {
            ("A", rest) => format!("D{rest}\n"),
            ("D", rest) => format!("A{rest}\n"),
            _ => format!("{line}\n"),
        };
        assert_eq!(back, printed.lines().map(swapped).collect::<String>(), "{layer:?}");
    }
    env.assert_nothing_left();
}

#[test]
fn a_layer_is_selected_by_number_or_digest() {
    let env = TestEnv::new();
    let layers = sketched(&env, "a", &[BASE, &["f one 1"], &["f two 2"], &["f one 1"]]);
    assert_eq!(env.ok(["diff", "a", "--layer", "1"]).lines().count(), BASE.len());
    for (layer, printed) in [("2", "A /one\n"), ("3", "A /two\n"), ("4", "")] {
        assert_eq!(env.ok(["diff", "a", "--layer", layer]), printed);
    }
    let digest = layers[2].digest;
    let diff_id =
        json(&env.ok(["inspect", "a", "--format", "json"]))["layers"][2]["diffId"].clone();
    for name in
        [&digest.to_string(), digest.hex().as_str(), &digest.short(), diff_id.as_str().unwrap()]
    {
        assert_eq!(env.ok(["diff", "a", "--layer", name]), "A /two\n", "{name}");
    }
    let twice = Digest::of(sketch(&["f one 1"])).short();
    for (code, layer, expected) in [
        (65, "5", "it has 4"),
        (65, "deadbeef", "no layer deadbeef"),
        (65, &twice, "several layers match"),
        (2, "0", "svp history"),
        (2, "x", "svp history"),
    ] {
        let stderr = env.fails(code, ["diff", "a", "--layer", layer]);
        assert!(stderr.contains(expected), "{stderr}");
    }
    env.fails(2, ["diff", "a", "a", "--layer", "1"]);
    let stderr = env.fails(65, ["diff", "a", "nothing"]);
    assert!(stderr.contains("nothing:latest"), "{stderr}");
    image(&env, "none", &[]);
    assert!(env.fails(65, ["diff", "none"]).contains("no layer"));
    assert_eq!(env.ok(["diff", "none", "a"]).lines().count(), BASE.len() + 2);
}

#[test]
fn odd_names_are_escaped_in_text_and_exact_in_json() {
    let env = TestEnv::new();
    let mut entries = Vec::new();
    for name in [&b"new\nline"[..], b"\x1b[2J", b"\xff", "é b's".as_bytes()] {
        let mut entry = Entry::new(name, EntryKind::Symlink, 0o777);
        entry.link = b"to\xfe".to_vec();
        entry.xattrs.insert(b"user.x".to_vec(), vec![0, 1]);
        entry.mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
        entries.push((entry, &b""[..]));
    }
    image(&env, "a", &[tar(&entries)]);
    let lines = "A \"/\\u{1b}[2J\"\nA \"/new\\nline\"\nA /é b's\nA \"/\\xff\"\n";
    assert_eq!(env.ok(["diff", "a"]), lines);
    let text = env.ok(["diff", "a", "--format", "json"]);
    assert!(text.is_ascii() || !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let printed = json(&text);
    let changes = printed["changes"].as_array().unwrap();
    assert_eq!(changes[1]["path"], "/new\nline");
    assert_eq!(changes[3]["pathBase64"], "L/8=");
    let after = &changes[2]["after"];
    assert_eq!(after["targetBase64"], "dG/+");
    assert_eq!(after["mtime"], "2023-11-14T22:13:20.000000005Z");
    assert_eq!(after["xattrs"], serde_json::json!([{"name": "user.x", "valueBase64": "AAE="}]));
    assert_eq!(printed["sums"]["added"], 4);
    assert_eq!((&printed["before"]["layers"], &printed["after"]["layers"]), (&0.into(), &1.into()));
}

/// One file with each kind of difference.
#[test]
fn a_changed_time_alone_counts_only_with_times() {
    let env = TestEnv::new();
    let entry = |change: fn(&mut Entry)| {
        let mut entry = Entry::new("f", EntryKind::File, 0o644);
        (entry.size, entry.mtime.seconds) = (1, 1000);
        change(&mut entry);
        tar(&[(entry, b"x")])
    };
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("mode", entry(|entry| entry.mode = 0o4644), "mode"),
        ("owner", entry(|entry| entry.gid = 5_000_000), "owner"),
        ("xattrs", entry(|entry| drop(entry.xattrs.insert(b"user.a".to_vec(), vec![]))), "xattrs"),
        ("time", entry(|entry| entry.mtime.seconds = 1001), "time"),
        ("content", sketch(&["f f y"]), "content,time"),
        ("selinux", entry(|e| drop(e.xattrs.insert(b"security.selinux".to_vec(), vec![1]))), ""),
    ];
    image(&env, "base", &[entry(|_| {})]);
    for (name, layer, aspects) in cases {
        image(&env, name, &[entry(|_| {}), layer]);
        for times in [false, true] {
            let counts = !matches!(aspects, "") && (times || aspects != "time");
            let option = if times { &["--times"][..] } else { &[] };
            let mut svp =
                env.svp([&["diff", name, "--format", "json", "--exit-code"], option].concat());
            let result = output(&mut svp);
            assert_eq!(
                result.status.code(),
                Some(i32::from(counts)),
                "{}",
                transcript(&svp, &result)
            );
            let changes = json(&String::from_utf8(result.stdout).unwrap())["changes"].clone();
            if counts {
                let list: Vec<&str> = aspects.split(',').collect();
                assert_eq!(changes[0]["aspects"], serde_json::json!(list), "{changes}");
            } else {
                assert_eq!(changes, serde_json::json!([]));
            }
        }
    }
    let stat = env.ok(["diff", "base", "mode", "--stat"]);
    assert_eq!(stat, "C       0 B  /f (mode)\n0 added, 1 changed, 0 removed: 0 B\n");
}

/// Returns the expected output of `svp diff` for two unpacked trees.
fn expected(before: &std::path::Path, after: &std::path::Path) -> Vec<String> {
    let what = What { owners: false, times: false, xattrs: true };
    // Hard link topology does not count.
    let plain = |line: String| match line.split_once(", links to ") {
        Some((line, _)) => line.to_owned(),
        None => line,
    };
    let list = |root| -> BTreeMap<Vec<u8>, String> {
        let tree = listing(root, what).into_iter().map(|(path, line)| (path, plain(line)));
        tree.filter(|(path, _)| path != b".").collect()
    };
    let (before, after) = (list(before), list(after));
    let mut paths: Vec<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let line = |path: &Vec<u8>| {
        let letter = match (before.get(path), after.get(path)) {
            (None, _) => 'A',
            (_, None) => 'D',
            (a, b) if a != b => 'C',
            _ => return None,
        };
        Some(format!("{letter} {}", String::from_utf8_lossy(&path[1..])))
    };
    paths.into_iter().filter_map(line).collect()
}

#[test]
fn real_images_differ_as_their_unpacked_trees_do() {
    let env = TestEnv::new();
    env.import_busybox();
    env.import_debian();
    let build = "#!/bin/sh
        set -e
        cd /etc; echo more >>passwd; rm -r apt; mkdir apt; echo 1 >apt/new; chmod 700 default; mv hosts h2 || :
        ln passwd twin; ln -sf nowhere mtab; cp -a issue issue2; mv issue2 issue; touch group
        cd /usr/share; mv doc doc2; rm -r man; echo file >man; rm -f /bin/sh; cp /bin/cat /usr/bin/new-cat
        mkfifo /var/pipe; rm -rf /var/log; ln -s /tmp /var/log\n";
    let query = "#!/bin/sh\n[ $1 != os ] || echo debian/12\n";
    let pack = [("bin/build", build), ("bin/query", query), ("bin/run", "#!/bin/sh\n")];
    let pack = env.write_pack("p", &pack);
    env.ok(["build", "-b", pack.to_str().unwrap(), "-t", "made", "--base", "debian:bookworm"]);
    let tree = |name: &str| {
        let dir = env.path(&name.replace(':', "-"));
        env.ok(["unpack", name, dir.to_str().unwrap()]);
        dir
    };
    let names = ["busybox", "debian:bookworm", "made"];
    let trees = names.map(tree);
    for (before, from) in names.iter().zip(&trees) {
        for (after, to) in names.iter().zip(&trees) {
            let printed = env.ok(["diff", before, after]);
            // An ordinary user's tree lacks the devices.
            let lines =
                printed.lines().filter(|line| support::as_root() || !line.contains(" /dev/"));
            let expected = expected(from, to).into_iter();
            let expected = expected.filter(|line| support::as_root() || !line.contains(" /dev/"));
            assert_eq!(lines.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{before} {after}");
        }
    }
    assert!(env.ok(["diff", "debian:bookworm", "made"]).lines().count() > 100);
    env.assert_nothing_left();
}

#[test]
fn any_source_is_accepted_and_damaged_images_are_refused() {
    let env = TestEnv::new();
    let layers = sketched(&env, "a:1", &[BASE, &["f new n"]]);
    sketched(&env, "b:1", &[BASE, &["f d/.wh.x"]]);
    let (layout, archive) = (env.path("layout"), env.path("b.tar"));
    let layout = format!("oci:{}", layout.display());
    let archive = format!("docker-archive:{}", archive.display());
    env.ok(["save", "a:1", "-o", &layout]);
    env.ok(["save", "b:1", "-o", &archive]);
    let printed = env.ok(["diff", "a:1", "b:1"]);
    assert_eq!(printed, "D /d/x\nD /new\n");
    assert_eq!(env.ok(["diff", &layout, &archive]), printed);
    let digest = env.ok(["inspect", "a:1", "--field", "digest"]);
    assert_eq!(env.ok(["diff", &format!("a@{}", digest.trim()), "b:1"]), printed);

    let blob = env.store().join("blobs/sha256").join(layers[1].digest.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let stderr = env.fails(65, ["diff", "a:1"]);
    assert!(stderr.contains(&layers[1].digest.to_string()), "{stderr}");
    std::fs::remove_file(&blob).unwrap();
    env.fails(65, ["diff", "a:1"]);
    sketched(&env, "bad", &[&["l a nowhere"]]);
    let stderr = env.fails(65, ["diff", "bad"]);
    assert!(stderr.contains("hard link to \"nowhere\""), "{stderr}");
    env.assert_nothing_left();
}
