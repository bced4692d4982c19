//! `docker save` archives, read and written, compared with skopeo and podman.

use std::fs;

use crate::support;
use crate::support::TestEnv;
use crate::support::podman::Podman;
use serde_json::Value;

/// Returns an environment with busybox as `team/base:1`, and the digest of its manifest.
fn world() -> (TestEnv, String) {
    let env = TestEnv::new();
    let base = support::busybox_base();
    let digest = env.ok(["import", base.to_str().unwrap(), "-t", "team/base:1"]);
    (env, digest.trim().to_owned())
}

fn inspect(env: &TestEnv, name: &str) -> Value {
    serde_json::from_str(&env.ok(["inspect", name, "--format", "json"])).unwrap()
}

#[test]
fn podman_loads_and_runs_saved_images() {
    let (env, _) = world();
    let archive = env.path("image.tar");
    let output = format!("docker-archive:{}", archive.display());
    env.ok(["save", "team/base:1", "-o", &output]);
    let podman = Podman::new(&env);
    assert_eq!(podman.load(&archive), "docker.io/team/base:1");
    let stdout = podman.run(&["docker.io/team/base:1", "/bin/busybox", "echo", "it runs"]);
    assert_eq!(stdout, "it runs\n");
}

#[test]
fn skopeo_and_svp_read_the_archive_and_the_image_keeps_its_id() {
    let (env, _) = world();
    let id = inspect(&env, "team/base:1")["configDigest"].clone();
    let layers = inspect(&env, "team/base:1")["config"]["rootfs"]["diff_ids"].clone();
    let archive = format!("docker-archive:{}", env.path("image.tar").display());
    env.ok(["save", "team/base:1", "-o", &archive]);
    let again = support::success(&mut env.svp(["save", "team/base:1", "-o", "docker-archive:-"]));
    assert_eq!(again, String::from_utf8_lossy(&fs::read(env.path("image.tar")).unwrap()));

    let shown = env.skopeo_ok(&["inspect", "--config", "--raw", &archive]);
    let config: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], layers);
    assert_eq!(svp::oci::Digest::of(shown.trim_end()).to_string(), id);

    for name in [":team/base:1", ":docker.io/team/base:1", ":@0", ""] {
        let source = format!("{archive}{name}");
        env.ok(["pull", &source, "-t", "pulled:1"]);
        assert_eq!(inspect(&env, "pulled:1")["configDigest"], id, "{source}");
        env.ok(["rmi", "pulled:1"]);
    }
    let printed = env.fails(65, ["pull", &format!("{archive}:team/other:1"), "-t", "x"]);
    assert!(printed.contains("docker.io/team/base:1"), "{printed}");
}

#[test]
fn svp_reads_skopeos_archives_from_files_and_streams() {
    let (env, _) = world();
    let rootfs = inspect(&env, "team/base:1")["config"]["rootfs"].clone();
    let (layout, tar) = (env.path("layout"), env.path("skopeo.tar"));
    env.ok(["save", "team/base:1", "-o", &format!("oci:{}", layout.display())]);
    let from = format!("oci:{}:team/base:1", layout.display());
    let to = format!("docker-archive:{}:other/name:2", tar.display());
    env.skopeo_ok(&["copy", &from, &to]);
    support::run("gzip", ["-k", tar.to_str().unwrap()]);
    let packed = format!("{}.gz", tar.display());
    for input in [tar.to_str().unwrap(), "-", &packed] {
        let mut svp = env.svp(["load", "-i", input]);
        let output = svp.stdin(fs::File::open(&tar).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", support::transcript(&svp, &output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "other/name:2\n");
        assert_eq!(inspect(&env, "other/name:2")["config"]["rootfs"], rootfs);
        env.ok(["rmi", "other/name:2"]);
    }
    env.assert_nothing_left();
}

#[test]
fn save_and_load_give_the_same_image_in_either_format() {
    let (env, digest) = world();
    let id = inspect(&env, "team/base:1")["configDigest"].clone();
    for (format, keeps_manifest) in [("oci-archive", true), ("docker-archive", false)] {
        let archive = env.path(&format!("{format}.tar"));
        env.ok(["save", "team/base:1", "-o", &format!("{format}:{}", archive.display())]);
        let other = TestEnv::new();
        let stdout = other.ok(["load", "-i", archive.to_str().unwrap()]);
        assert_eq!(stdout, "team/base:1\n");
        let loaded = inspect(&other, "team/base:1");
        assert_eq!(loaded["configDigest"], id);
        assert_eq!(loaded["digest"] == *digest, keeps_manifest, "{format}");
        other.ok(["unpack", "team/base:1", other.path("root").to_str().unwrap()]);
        assert!(other.path("root/bin/busybox").exists());
    }
}

#[test]
fn other_files_are_refused_with_a_hint() {
    let env = TestEnv::new();
    let tar = env.path("other.tar");
    fs::write(env.path("text"), "hello\n").unwrap();
    fs::write(env.path("empty"), "").unwrap();
    let work = env.path("");
    support::run("tar", ["-cf", tar.to_str().unwrap(), "-C", work.to_str().unwrap(), "text"]);
    support::run("gzip", ["-k", env.path("text").to_str().unwrap()]);
    for file in ["text", "empty", "text.gz", "other.tar"] {
        let printed = env.fails(65, ["load", "-i", file]);
        assert!(printed.contains(&format!("{file} is not an image archive")), "{printed}");
        assert!(printed.contains("OCI layout") && printed.contains("svp import"), "{printed}");
        assert!(!printed.contains("layer"), "{printed}");
    }
    env.assert_nothing_left();
}

#[test]
fn damaged_archives_are_reported_and_leave_nothing() {
    let (env, _) = world();
    let good = env.path("good.tar");
    env.ok(["save", "team/base:1", "-o", &format!("docker-archive:{}", good.display())]);
    env.ok(["rmi", "team/base:1"]);
    let dir = env.path("x");
    fs::create_dir(&dir).unwrap();
    support::run("tar", ["-xf", good.to_str().unwrap(), "-C", dir.to_str().unwrap()]);
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let parsed: Value = serde_json::from_str(&manifest).unwrap();
    let layer = parsed[0]["Layers"][0].as_str().unwrap().to_owned();
    let config = parsed[0]["Config"].as_str().unwrap().to_owned();
    let cases: [(&str, String); 7] = [
        ("manifest.json", "[]".into()),
        ("manifest.json", "{}".into()),
        ("manifest.json", manifest.replace(&layer, "../../etc/passwd")),
        ("manifest.json", manifest.replace(&config, "none.json")),
        ("manifest.json", manifest.replace("\"Layers\":[", "\"Layers\":[\"x\",")),
        (&config, "{}".into()),
        (&layer, "not what its diff ID says".into()),
    ];
    for (name, content) in cases {
        let file = dir.join(name);
        let before = fs::read(&file).unwrap();
        fs::write(&file, &content).unwrap();
        let bad = env.path("bad.tar");
        support::run("tar", ["-cf", bad.to_str().unwrap(), "-C", dir.to_str().unwrap(), "."]);
        let printed = env.fails(65, ["load", "-i", bad.to_str().unwrap()]);
        assert!(printed.contains("bad.tar"), "{name}: {printed}");
        fs::write(&file, before).unwrap();
    }
    let blobs = fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 0);
    env.assert_nothing_left();
}
