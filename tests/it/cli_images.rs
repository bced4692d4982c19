//! The commands for images, through the binary.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support;
use crate::support::tree::{ALL, assert_same};
use crate::support::{TestEnv, busybox_base, debian_base};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn import<'a>(file: &'a Path, name: &'a str) -> [&'a std::ffi::OsStr; 4] {
    ["import".as_ref(), file.as_os_str(), "-t".as_ref(), name.as_ref()]
}

#[test]
fn images_are_imported_listed_inspected_tagged_and_removed() {
    let env = TestEnv::new();
    let digest = env.ok(import(&busybox_base(), "base:1")).trim().to_owned();
    env.ok(["tag", "base:1", "other"]);
    let list = env.ok(["images"]);
    let mut lines = list.lines();
    assert!(lines.next().unwrap().starts_with("REPOSITORY"), "{list}");
    let line = lines.next().unwrap();
    assert!(line.starts_with("base ") && line.contains(&digest[7..19]), "{list}");
    let list = json(&env.ok(["images", "--format", "json"]));
    assert_eq!(list[1]["repository"], "other");
    assert_eq!(list[1]["tag"], "latest");
    assert_eq!(list[1]["digest"], *digest);

    let printed = json(&env.ok(["inspect", "other", "--format", "json"]));
    assert_eq!(printed["tags"], serde_json::json!(["base:1", "other:latest"]));
    assert_eq!(printed["config"]["rootfs"]["diff_ids"][0], printed["layers"][0]["diffId"]);
    assert!(env.ok(["inspect", "base:1"]).contains(&digest));
    assert!(env.ok(["inspect", &format!("base@{digest}")]).contains("base:1"));

    assert!(env.fails(65, ["rmi", "base:1", "nothing"]).contains("nothing:latest"));
    assert_eq!(env.ok(["rmi", "base:1"]), "base:1\n");
    env.ok(["inspect", "other"]);
    env.ok(["rmi", "other"]);
    assert_eq!(env.ok(["images"]).lines().count(), 1);
    assert_eq!(fs::read_dir(env.store().join("blobs/sha256")).unwrap().count(), 0);
    env.assert_nothing_left();
}

#[test]
fn the_same_archive_gives_the_same_digest_from_a_file_and_from_stdin() {
    let env = TestEnv::new();
    let import_stdin = |umask: &str| {
        let command = format!("umask {umask}; exec svp import - -t a <\"$BASE\"");
        let mut shell = env.command("sh");
        let svp = Path::new(env!("CARGO_BIN_EXE_svp")).parent().unwrap();
        let path = format!("{}:{}", svp.display(), std::env::var("PATH").unwrap());
        shell.env("PATH", path).env("BASE", busybox_base()).env("SOURCE_DATE_EPOCH", "1700000000");
        support::success(shell.args(["-c", &command]))
    };
    let mut svp = env.svp(import(&busybox_base(), "b"));
    let digest = support::success(svp.env("SOURCE_DATE_EPOCH", "1700000000"));
    assert_eq!(import_stdin("000"), digest);
    assert_eq!(import_stdin("077"), digest);
    let printed = json(&env.ok(["inspect", "a", "--format", "json"]));
    assert_eq!(printed["created"], "2023-11-14T22:13:20Z");
}

#[test]
fn command_line_errors_have_their_exit_codes() {
    let env = TestEnv::new();
    let file = busybox_base();
    let base = file.to_str().unwrap();
    let cases: [(i32, &[&str], &str); 9] = [
        (2, &["import", base, "-t", "Upper"], "lower case"),
        (2, &["import", base], "--tag"),
        (2, &["import", base, "-t", "a@sha256:00"], "sha256"),
        (65, &["import", "/etc/passwd", "-t", "a"], "tar"),
        (65, &["import", "/does/not/exist", "-t", "a"], "/does/not/exist"),
        (65, &["inspect", "nothing"], "nothing:latest"),
        (65, &["tag", "nothing", "other"], "nothing:latest"),
        (65, &["unpack", "nothing", "dir"], "docker://docker.io/library/nothing"),
        (65, &["unpack", "oci:/does/not/exist", "dir"], "/does/not/exist"),
    ];
    for (code, arguments, expected) in cases {
        let stderr = env.fails(code, arguments);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    assert!(!env.path("dir").exists());
    env.assert_nothing_left();
}

#[test]
fn leftovers_of_a_killed_import_are_swept() {
    let env = TestEnv::new();
    for signal in ["KILL", "INT", "TERM"] {
        let mut child = env
            .svp(["import", "-", "-t", "a"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut tar = fs::File::open(debian_base()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut some = vec![0; 4 << 20];
        std::io::Read::read_exact(&mut tar, &mut some).unwrap();
        stdin.write_all(&some).unwrap();
        let busy = env.store().join("tmp");
        assert!(fs::read_dir(&busy).unwrap().count() > 0, "nothing in staging");
        support::run("kill", [&format!("-{signal}"), &child.id().to_string()]);
        // svp checks for an interrupt at its next read: send it more input.
        std::thread::sleep(Duration::from_millis(100));
        let _ = std::io::copy(&mut tar, &mut stdin);
        drop(stdin);
        let status = child.wait().unwrap();
        let code = if signal == "KILL" { None } else { Some(130) };
        assert_eq!(status.code(), code, "{signal}");
        assert_eq!(env.ok(["images"]).lines().count(), 1, "{signal}");
        assert_eq!(fs::read_dir(env.store().join("blobs/sha256")).unwrap().count(), 0);
        env.assert_nothing_left();
    }
}

#[test]
fn unpack_and_umoci_produce_the_same_tree() {
    let env = TestEnv::new();
    env.ok(import(&debian_base(), "debian"));
    let ours = env.path("ours");
    let result = support::output(&mut env.svp(["unpack", "debian", ours.to_str().unwrap()]));
    assert!(result.status.success());
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert_eq!(stderr.contains("no permission to"), !support::as_root(), "{stderr}");

    let printed = json(&env.ok(["inspect", "debian", "--format", "json"]));
    let layer = printed["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let layout = env.path("layout");
    let image = format!("{}:debian", layout.display());
    let umoci = |arguments: &[&str]| {
        support::success(env.command("umoci").args(arguments));
    };
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    let tar = env.path("layer.tar");
    let blob = fs::File::open(env.store().join("blobs/sha256").join(layer)).unwrap();
    let mut gunzip = env.command("gunzip");
    gunzip.stdin(blob).stdout(fs::File::create(&tar).unwrap());
    assert!(gunzip.status().unwrap().success());
    umoci(&["raw", "add-layer", "--image", &image, tar.to_str().unwrap()]);
    let bundle = env.path("bundle");
    let mut arguments = vec!["unpack", "--image", &image, bundle.to_str().unwrap()];
    if !support::as_root() {
        arguments.insert(1, "--rootless");
    }
    umoci(&arguments);
    if support::as_root() {
        assert_same(&ours, &bundle.join("rootfs"), ALL);
    } else {
        // umoci turns devices into plain files, and adds an attribute for the owners.
        assert!(ours.join("etc/debian_version").exists());
    }
    let stderr = env.fails(2, ["unpack", "debian", ours.to_str().unwrap()]);
    assert!(stderr.contains("not empty"), "{stderr}");
    env.assert_nothing_left();
}

#[test]
fn unpack_accepts_any_source_and_leaves_nothing_after_a_failure() {
    let env = TestEnv::new();
    env.ok(import(&busybox_base(), "base"));
    let printed = json(&env.ok(["inspect", "base", "--format", "json"]));
    let digest = printed["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let blob = env.store().join("blobs/sha256").join(digest);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x10;
    fs::write(&blob, bad).unwrap();
    let (fresh, empty) = (env.path("fresh"), env.path("empty"));
    fs::create_dir(&empty).unwrap();
    for dir in [&fresh, &empty] {
        env.fails(65, ["unpack", "base", dir.to_str().unwrap()]);
    }
    assert!(!fresh.exists());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    fs::write(&blob, good).unwrap();
    env.ok(["unpack", "base", empty.to_str().unwrap()]);
    assert!(empty.join("bin/busybox").exists());
    // The unpacked files belong to the caller, who can remove them.
    fs::remove_dir_all(&empty).unwrap();
    env.assert_nothing_left();
}

#[test]
fn rmi_removes_only_the_images_own_unpacked_layers() {
    let env = TestEnv::new();
    env.ok(import(&busybox_base(), "base"));
    let script = "#!/bin/sh\necho $1 >/made\n";
    let query = "#!/bin/sh\n[ $1 != os ] || echo busybox/1\n";
    let run = "#!/bin/sh\n";
    let pack =
        env.write_pack("p", &[("bin/build", script), ("bin/query", query), ("bin/run", run)]);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "one", "--base", "base"]);
    env.ok(["setup", "-i", "one", "-t", "two"]);
    let unpacked = || {
        let layers = support::run("find", [env.store().join("trees")]);
        layers.lines().filter(|line| line.ends_with("/fs")).count()
    };
    let before = unpacked();
    assert!(before > 1, "{before}");
    env.ok(["rmi", "one"]);
    assert_eq!(unpacked(), before, "the other image needs them too");
    env.ok(["rmi", "two"]);
    assert_eq!(unpacked(), 1, "the base is still there");
    env.ok(["rmi", "base"]);
    assert_eq!(unpacked(), 0);
    assert_eq!(fs::read_dir(env.store().join("blobs/sha256")).unwrap().count(), 0);
    env.assert_nothing_left();
}

/// Runs a shell script as root of a namespace in which it may mount; `svp` is in its path.
fn sh_with_mounts(env: &TestEnv, script: &str) -> (Option<i32>, String, String) {
    let svp = Path::new(env!("CARGO_BIN_EXE_svp")).parent().unwrap();
    let mut unshare = env.command("unshare");
    unshare
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("PATH", format!("{}:{}", svp.display(), std::env::var("PATH").unwrap()))
        .env("BASE", busybox_base());
    let output = support::output(&mut unshare);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_full_disk_is_reported_and_leaves_the_store_unchanged() {
    let env = TestEnv::new();
    let script = "mkdir -p $SVP_ROOT && mount -t tmpfs -o size=900k none $SVP_ROOT || exit 99
        svp images >/dev/null || exit 98
        svp import $BASE -t a; code=$?
        find $SVP_ROOT -type f; svp images; exit $code";
    let (code, stdout, stderr) = sh_with_mounts(&env, script);
    assert_eq!(code, Some(74), "{stderr}");
    assert!(stderr.contains("No space left") && stderr.contains("hint:"), "{stderr}");
    let left: Vec<_> = stdout.lines().filter(|line| !line.ends_with("/lock")).collect();
    assert_eq!(left, ["REPOSITORY  TAG  DIGEST  PLATFORM  CREATED  SIZE"]);
}

#[test]
fn a_full_disk_leaves_layouts_and_archives_unchanged() {
    let env = TestEnv::new();
    let pack = env.write_pack(
        "p",
        &[
            ("bin/build", "#!/bin/sh\necho made >/made\n"),
            ("bin/query", "#!/bin/sh\n[ $1 != os ] || echo busybox/1\n"),
            ("bin/run", "#!/bin/sh\n"),
        ],
    );
    for output in ["--oci-dir full/out", "--oci-dir full", "-o oci-archive:full/out.tar"] {
        let script = format!(
            "mkdir -p full && mount -t tmpfs -o size=900k none full || exit 99
            svp import $BASE -t base >/dev/null || exit 98
            svp build -b {} -t a --base base --network host {output} >/dev/null; code=$?
            find full -mindepth 1; exit $code",
            pack.display()
        );
        let (code, stdout, stderr) = sh_with_mounts(&env, &script);
        assert_eq!(code, Some(74), "{output}: {stderr}");
        assert_eq!(stdout, "", "{output}");
    }
}

#[test]
fn the_destination_sets_an_images_name_in_a_layout() {
    let env = TestEnv::new();
    let digest = env.ok(import(&busybox_base(), "base:1"));
    for name in ["v1", "V1.0-RC1", "team/app", "team/app:2", "localhost:5000/a:1"] {
        for transport in ["oci:layout", "oci-archive:one.tar"] {
            let there = format!("{transport}:{name}");
            assert_eq!(env.ok(["copy", "base:1", &there]), digest);
            let mut skopeo = env.skopeo();
            let raw = support::success(skopeo.args(["inspect", "--raw", &there]));
            assert_eq!(svp::oci::Digest::of(&raw).to_string(), digest.trim(), "{there}");
            assert_eq!(env.ok(["copy", &there, "again:1"]), digest);
        }
    }
    let index = json(&fs::read_to_string(env.path("layout/index.json")).unwrap());
    let names: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let notes = &entry["annotations"];
            let full = notes["io.containerd.image.name"].as_str().unwrap_or("");
            (notes["org.opencontainers.image.ref.name"].as_str().unwrap(), full)
        })
        .collect();
    let expected = [
        ("v1", ""),
        ("V1.0-RC1", ""),
        ("team/app", "docker.io/team/app:latest"),
        ("team/app:2", "docker.io/team/app:2"),
        ("localhost:5000/a:1", "localhost:5000/a:1"),
    ];
    assert_eq!(names, expected);
    // Writing a name again replaces it.
    env.ok(["copy", "base:1", "oci:layout:v1"]);
    let again = json(&fs::read_to_string(env.path("layout/index.json")).unwrap());
    assert_eq!(again["manifests"].as_array().unwrap().len(), expected.len());
    for wrong in ["oci:layout:a b", "oci:layout:.a", "oci:layout:", "docker-archive:x.tar:V1"] {
        env.fails(2, ["copy", "base:1", wrong]);
    }
    env.assert_nothing_left();
}
