//! The commands that maintain the store, through the binary.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use crate::support;
use crate::support::{TestEnv, busybox_base};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn import(env: &TestEnv, name: &str) -> String {
    let file = busybox_base();
    env.ok(["import", file.to_str().unwrap(), "-t", name]).trim().to_owned()
}

#[test]
fn inspect_shows_an_image_its_parts_and_single_fields() {
    let env = TestEnv::new();
    let digest = import(&env, "a");
    let printed = json(&env.ok(["inspect", "a", "--format", "json"]));
    let manifest = env.ok(["inspect", "a", "--raw"]);
    let config = env.ok(["inspect", "a", "--config", "--raw"]);
    for (name, raw) in [(&digest, &manifest), (&field(&env, "configDigest"), &config)] {
        let blob = env.store().join("blobs/sha256").join(name.trim().replace("sha256:", ""));
        assert_eq!(raw.as_bytes(), std::fs::read(blob).unwrap());
    }
    assert_eq!(json(&env.ok(["inspect", "a", "--manifest"])), json(&manifest));
    assert_eq!(json(&env.ok(["inspect", "a", "--config"])), json(&config));
    assert_eq!(json(&config), printed["config"]);
    assert_eq!(field(&env, "digest"), format!("{digest}\n"));
    assert_eq!(field(&env, "layers.0.digest").trim(), printed["layers"][0]["digest"]);
    assert_eq!(env.ok(["inspect", "a", "--config", "--field", "os"]), "linux\n");
    assert!(env.fails(65, ["inspect", "a", "--field", "nope"]).contains("configDigest"));
    env.fails(2, ["inspect", "a", "--manifest", "--config"]);
    env.fails(2, ["inspect", "a", "--raw", "--field", "digest"]);

    let history = json(&env.ok(["history", "a", "--format", "json"]));
    assert_eq!(history[0]["layer"], printed["layers"][0]["digest"]);
    assert_eq!(history[0]["size"], printed["size"]);
    assert_eq!(history[0]["number"], 1);
    assert!(env.ok(["history", "a"]).lines().nth(1).unwrap().starts_with("1  "), "{history}");
    assert_eq!(env.ok(["inspect", "a", "--field", r#""config"."os""#]), "linux\n");
    assert!(env.ok(["history", "a"]).contains("import"), "{history}");
    assert!(env.fails(65, ["history", "nothing"]).contains("nothing:latest"));
}

fn field(env: &TestEnv, name: &str) -> String {
    env.ok(["inspect", "a", "--field", name])
}

const PACK: &[(&str, &str)] = &[
    (
        "bin/query",
        "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo KEY;; env) echo A=1;; esac\n",
    ),
    // Remove a file of the base, to get a whiteout.
    ("bin/build", "#!/bin/sh\necho \"$1\" >\"/made-$1\"; rm -f /etc/passwd\n"),
    ("bin/run", "#!/bin/sh\nexec sleep 1000\n"),
];

fn build(env: &TestEnv, base: &str, name: &str) {
    let pack = env.path("pack");
    if !pack.exists() {
        env.write_pack("pack", PACK);
    }
    env.ok(["build", "-b", "pack", "--base", base, "--network", "none", "-t", name]);
}

/// The sections in the output of `svp prune`.
fn sorts(list: &Value) -> Vec<&str> {
    let mut sorts: Vec<&str> =
        list.as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    sorts.dedup();
    sorts
}

fn files(env: &TestEnv, dir: &str) -> usize {
    std::fs::read_dir(env.store().join(dir)).unwrap().count()
}

#[test]
fn prune_removes_unreferenced_data_that_df_reports() {
    let env = TestEnv::new();
    import(&env, "base");
    build(&env, "base", "kept");
    let setup = ["setup", "-b", "pack", "-i", "kept", "-t", "one", "--network", "none"];
    env.ok(setup);
    env.ok([
        "build",
        "-b",
        "pack",
        "--base",
        "base",
        "--network",
        "none",
        "-t",
        "x",
        "--oci-dir",
        "out",
    ]);
    env.ok(["rmi", "x"]);
    // A base from a layout is in the store without a tag.
    let other = TestEnv::new();
    other.write_pack("pack", PACK);
    let source = format!("oci:{}:x:latest", env.path("out").display());
    build(&other, &source, "y");
    let before = json(&other.ok(["prune", "--dry-run", "--format", "json"]));
    // The base's manifest and config: its layers are in y.
    assert_eq!(sorts(&before), ["blob", "log"]);
    let df = json(&other.ok(["df", "--format", "json"]));
    let bytes: u64 = before.as_array().unwrap().iter().map(|i| i["bytes"].as_u64().unwrap()).sum();
    assert_eq!(df["total"]["reclaimableBytes"], bytes);
    other.ok(["rmi", "y"]);
    let before = json(&other.ok(["prune", "--dry-run", "--format", "json"]));
    assert_eq!(sorts(&before), ["blob", "log"], "rmi has removed what was unpacked");
    let blobs = files(&other, "blobs/sha256");
    assert!(blobs >= 2 && files(&other, "logs") == 1);
    assert_eq!(json(&other.ok(["prune", "--format", "json"])), before);
    for dir in ["blobs/sha256", "logs", "diff-ids", "homes", "tmp", "instances"] {
        assert_eq!(files(&other, dir), 0, "{dir}");
    }
    assert_eq!(json(&other.ok(["df", "--format", "json"]))["total"]["bytes"], 0);

    // The leftovers of a removal while another svp runs: blobs, unpacked layers and the instance's secrets.
    let mut busy = env
        .svp(["import", "-", "-t", "z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tar = std::fs::read(busybox_base()).unwrap();
    busy.stdin.as_mut().unwrap().write_all(&tar[..1 << 18]).unwrap();
    for _ in 0..500 {
        if files(&env, "tmp") > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(files(&env, "tmp") > 0, "nothing in staging");
    env.ok(["rmi", "one"]);
    assert_eq!(files(&env, "instances"), 1);
    assert!(env.fails(74, ["prune", "--wait", "0"]).contains("uses the store"));
    let printed = json(&env.ok(["prune", "--dry-run", "--format", "json"]));
    assert!(sorts(&printed).contains(&"instance"));
    assert!(!sorts(&printed).contains(&"staging"), "the staging of another svp is kept");
    busy.kill().unwrap();
    busy.wait().unwrap();
    let pruned = json(&env.ok(["prune", "--format", "json"]));
    assert_eq!(sorts(&pruned), sorts(&printed));
    assert_eq!(files(&env, "instances"), 0);
    env.ok(["inspect", "kept"]);
    env.ok(setup);

    let df = json(&env.ok(["df", "-v", "--format", "json"]));
    assert_eq!(df["images"].as_array().unwrap().len(), 3);
    let blobs: u64 = (std::fs::read_dir(env.store().join("blobs/sha256")).unwrap())
        .map(|entry| {
            std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512
        })
        .sum();
    assert_eq!(df["kinds"][0]["bytes"], blobs);
    assert!(env.ok(["df", "--verbose"]).contains("one:latest"));
    env.assert_nothing_left();
}

#[test]
fn prune_removes_nothing_while_an_image_is_damaged_and_df_reports_it() {
    let env = TestEnv::new();
    let digest = import(&env, "a");
    std::fs::write(env.store().join("logs/x.log"), "x").unwrap();
    std::fs::remove_file(env.store().join("blobs/sha256").join(&digest[7..])).unwrap();
    let stderr = env.fails(65, ["prune"]);
    assert!(stderr.contains("a:latest") && stderr.contains("svp rmi a:latest"), "{stderr}");
    assert_eq!(files(&env, "logs"), 1);
    env.ok(["df"]);
    env.ok(["rmi", "a"]);
    env.ok(["prune"]);
    assert_eq!(files(&env, "blobs/sha256"), 0);
}

#[test]
fn check_store_finds_each_fault_and_nothing_in_a_sound_store() {
    let env = TestEnv::new();
    import(&env, "base");
    build(&env, "base", "b");
    env.ok(["setup", "-b", "pack", "-i", "b", "-t", "one", "--network", "none"]);
    assert_eq!(env.ok(["check", "--store"]), "");
    let root = env.store();
    let layer = env.ok(["inspect", "base", "--field", "layers.0.digest"]);
    let hex = layer.trim().strip_prefix("sha256:").unwrap().to_owned();
    let trees = std::fs::read_dir(root.join("trees")).unwrap().next().unwrap().unwrap().path();
    let unpacked = std::fs::read_dir(trees.join("layers")).unwrap().next().unwrap().unwrap().path();
    let state = std::fs::read_dir(root.join("instances")).unwrap().next().unwrap().unwrap().path();
    let zeros = "0".repeat(64);
    let other = format!("sha256:{zeros}");
    // The damage, the command that causes it, and the message.
    let cases: Vec<(std::path::PathBuf, Option<&str>, &str)> = vec![
        (root.join("blobs/sha256").join(&hex), Some("spoilt"), "is damaged"),
        (root.join("blobs/sha256").join(&hex), None, "base:latest"),
        (root.join("blobs/sha256/x"), Some("x"), "not named after a digest"),
        (root.join("blobs/sha256").join(&zeros), Some("x"), "is damaged"),
        (root.join("blobs/md5"), Some("x"), "does not belong in a store"),
        (root.join("stray"), Some("x"), "does not belong in a store"),
        (root.join("tags/base%3Alatest"), Some("{"), "can't parse"),
        (root.join("homes/x"), Some("x"), "is not named after a digest"),
        (root.join("diff-ids").join(&hex), Some(&other), "is not the diff ID"),
        (state, Some("{"), "is damaged"),
        (unpacked.join("report"), None, "unpacked layer"),
    ];
    for (path, content, expected) in cases {
        let before = std::fs::read(&path).ok();
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut command = env.svp(["check", "--store"]);
        let output = support::output(&mut command);
        let printed = support::transcript(&command, &output);
        assert_eq!(output.status.code(), Some(65), "{}: {printed}", path.display());
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(expected),
            "{expected}: {printed}"
        );
        match before {
            Some(before) => std::fs::write(&path, before).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert_eq!(env.ok(["check", "--store"]), "", "{}", path.display());
    }
}

/// Changes a file of an unpacked layer, which belongs to the containers' root.
fn in_tree(env: &TestEnv, layer: &std::path::Path, script: &str) {
    let shell = ["sh", "-euc", script];
    let mut command = if support::as_root() {
        let mut command = env.command("sh");
        command.args(&shell[1..]);
        command
    } else {
        let mut command = env.command("unshare");
        command.args(["--user", "--map-root-user", "--map-auto"]).args(shell);
        command
    };
    // The directory of the layer can't be entered from outside.
    command.arg("sh").arg(layer.join("fs"));
    support::success(&mut command);
}

#[test]
fn check_store_verifies_unpacked_layers() {
    let env = TestEnv::new();
    let base = busybox_base();
    env.ok(["import", base.to_str().unwrap(), "-t", "base"]);
    build(&env, "base", "b");
    env.ok(["setup", "-b", "pack", "-i", "b", "-t", "one", "--network", "none"]);
    assert_eq!(env.ok(["check", "--store"]), "");
    // The damage to the lowest layer, and the messages.
    let cases: [(&str, &[&str]); 4] = [
        (
            "echo x >>$1/bin/busybox; rm $1/bin/sh; echo x >$1/bin/novel",
            &["busybox\" differs in size", "sh\" is missing", "novel\" is not in the layer"],
        ),
        (
            "printf X | dd of=$1/bin/busybox bs=1 seek=99 conv=notrunc; ln -sfn elsewhere $1/bin/sh",
            &["busybox\" differs in content", "sh\" differs in target"],
        ),
        (
            "chown $(($(stat -c %u $1) + 7)) $1/bin; chmod 700 $1/bin/busybox; touch -hd @1 $1/bin/sh",
            &["bin\" differs in owner", "busybox\" differs in mode", "sh\" differs in time"],
        ),
        ("for n in $(seq 50); do echo >$1/$n; done", &["and 40 more"]),
    ];
    for (script, expected) in cases {
        let areas = env.store().join("trees");
        let area = std::fs::read_dir(areas).unwrap().next().unwrap().unwrap().path();
        let chain = env.ok(["inspect", "base", "--field", "layers.0.diffId"]);
        let layer = area.join("layers").join(&chain.trim()["sha256:".len()..][..40]);
        in_tree(&env, &layer, &script.replace("$1", "\"$1\""));
        let mut command = env.svp(["check", "--store"]);
        let output = support::output(&mut command);
        let printed = support::transcript(&command, &output);
        assert_eq!(output.status.code(), Some(65), "{script}: {printed}");
        for expected in expected.iter().chain(&["/layers/", "svp prune --unpacked"]) {
            assert!(printed.contains(expected), "{expected}: {printed}");
        }
        assert_eq!(env.ok(["check", "--store", "--quick"]), "");
        env.ok(["prune", "--unpacked"]);
        assert_eq!(std::fs::read_dir(area.join("layers")).unwrap().count(), 0);
        env.ok(["build", "-b", "pack", "--base", "base", "--network", "none", "-t", "again"]);
        assert_eq!(env.ok(["check", "--store"]), "", "{script}");
    }
    env.fails(2, ["check", "--quick"]);
    env.assert_nothing_left();
}

#[test]
fn a_printed_digest_selects_the_image() {
    let env = TestEnv::new();
    let digest = import(&env, "a");
    for arguments in [&["inspect", "--field", "digest"][..], &["history"], &["diff"]] {
        let with = |image: &str| env.ok([arguments, &[image]].concat());
        assert_eq!(with(&digest), with("a"));
    }
    env.ok(["save", &digest, "-o", "oci-archive:a.tar"]);
    assert_eq!(env.ok(["load", "-i", "a.tar"]), "a:latest\n");
    assert!(env.fails(2, ["tag", "a", &digest]).contains("can't be a tag"));
    let base = busybox_base();
    let stderr = env.fails(2, ["import", base.to_str().unwrap(), "-t", &digest]);
    assert!(stderr.contains("can't be a tag"), "{stderr}");
    env.ok(["tag", &digest, "b"]);
    let stderr = env.fails(2, ["rmi", &digest]);
    assert!(stderr.contains("a:latest, b:latest"), "{stderr}");
    env.ok(["rmi", &format!("b@{digest}")]);
    assert_eq!(env.ok(["rmi", &digest]), "a:latest\n");
    assert!(env.fails(65, ["inspect", &digest]).contains(&digest));
    // No directory is created for a layout whose name could not be used to read it again.
    assert!(env.fails(2, ["save", "a", "-o", "oci:lay:b"]).contains("svp copy"));
    assert!(!env.path("lay:b").exists());
}

/// Returns the output of `svp check --store` on a store with faults.
#[track_caller]
fn faults(env: &TestEnv) -> String {
    let mut command = env.svp(["check", "--store"]);
    let output = support::output(&mut command);
    let printed = support::transcript(&command, &output);
    assert_eq!(output.status.code(), Some(65), "{printed}");
    printed
}

#[test]
fn special_files_are_reported_and_never_block() {
    let env = TestEnv::new();
    import(&env, "a");
    let root = env.store();
    let blob = |field: &str| {
        let digest = env.ok(["inspect", "a", "--field", field]);
        root.join("blobs/sha256").join(&digest.trim()["sha256:".len()..])
    };
    let paths = [blob("digest"), blob("configDigest"), blob("layers.0.digest")];
    let tag = root.join("tags/a%3Alatest");
    for path in paths.iter().chain([&tag]) {
        let kept = std::fs::read(path).unwrap();
        for make in ["mkdir -p $1/x", "mkfifo $1", "ln -s nowhere $1"] {
            std::fs::remove_file(path).unwrap();
            let mut command = env.command("sh");
            command.args(["-euc", &make.replace("$1", "\"$1\""), "sh"]).arg(path);
            support::success(&mut command);
            let message = faults(&env);
            assert!(
                message.contains("not a file") && message.contains("remove it"),
                "{make}: {message}"
            );
            let message = env.fails(65, ["save", "a", "-o", "oci-archive:a.tar"]);
            let named = path.file_name().unwrap().to_str().unwrap();
            assert!(message.contains(named), "{make}: {message}");
            support::success(env.command("rm").arg("-r").arg(path));
            std::fs::write(path, &kept).unwrap();
            assert_eq!(env.ok(["check", "--store"]), "");
        }
    }
    for path in &paths {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir_all(path.join("x")).unwrap();
    }
    env.ok(["rmi", "a"]);
    assert!(!paths[0].exists());
    // The blobs that the manifest would have named are unknown.
    env.ok(["prune"]);
    assert_eq!(env.ok(["check", "--store"]), "");
    std::fs::create_dir(root.join("trees")).unwrap();
    std::fs::write(root.join("trees/stray"), "").unwrap();
    assert!(faults(&env).contains("trees/stray: does not belong in a store"));
    env.ok(["df"]);
    env.ok(["prune"]);
}

#[test]
fn images_of_services_are_kept_and_their_data_is_counted() {
    let env = TestEnv::new();
    import(&env, "base");
    build(&env, "base", "b");
    env.ok(["setup", "-b", "pack", "-i", "b", "-t", "one", "--network", "none"]);
    env.ok(["run", "-d", "--network", "none", "--name", "s", "-v", "v:/data", "one"]);
    let write =
        "dd if=/dev/zero of=/data/x bs=1024 count=300; dd if=/dev/zero of=/y bs=1024 count=200";
    env.ok(["exec", "s", "--", "sh", "-c", write]);
    let bytes = || {
        let df = json(&env.ok(["df", "--format", "json"]));
        let kinds = df["kinds"].as_array().unwrap().clone();
        let of = |name: &str| {
            kinds.iter().find(|kind| kind["name"] == name).unwrap()["bytes"].as_u64().unwrap()
        };
        [of("volumes"), of("written by services"), of("services")]
    };
    let [volumes, written, records] = bytes();
    assert!((300 << 10..400 << 10).contains(&volumes), "{volumes}");
    assert!((200 << 10..400 << 10).contains(&written), "{written}");
    assert!(records > 0);
    env.ok(["rmi", "one", "b", "base"]);
    for more in [&["--dry-run"][..], &[]] {
        let stderr = env.fails(74, [&["prune", "--unpacked"], more].concat());
        assert!(stderr.contains("a service or command is using"), "{stderr}");
    }
    env.ok(["prune"]);
    assert_eq!(env.ok(["exec", "s", "--", "cat", "/made-setup"]), "setup\n");
    assert_eq!(env.ok(["check", "--store"]), "");
    env.ok(["stop", "s"]);
    env.ok(["prune", "--unpacked"]);
    env.ok(["start", "s"]);
    assert_eq!(env.ok(["exec", "s", "--", "cat", "/made-setup"]), "setup\n");
    env.ok(["stop", "s"]);

    let record = env.store().join("services/s/service.json");
    let kept = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    assert!(faults(&env).contains("services/s: "));
    std::fs::write(&record, kept).unwrap();
    let layer = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap();
    let largest = layer.map(|entry| entry.unwrap()).max_by_key(|e| e.metadata().unwrap().len());
    std::fs::remove_file(largest.unwrap().path()).unwrap();
    assert!(faults(&env).contains("services/s: lacks its layer"));
    env.ok(["rm", "--volumes", "s"]);
    assert_eq!(bytes(), [0, 0, 0]);
    env.ok(["prune"]);
    env.assert_nothing_left();
}

#[test]
fn check_store_covers_each_platform_and_misnamed_files() {
    let env = TestEnv::new();
    import(&env, "amd");
    let base = busybox_base();
    env.ok(["import", base.to_str().unwrap(), "-t", "arm", "--platform", "linux/arm64"]);
    env.ok(["index", "-t", "multi", "amd", "arm"]);
    let manifest = env.ok(["inspect", "arm", "--field", "digest"]);
    let config = env.ok(["inspect", "arm", "--field", "configDigest"]);
    env.ok(["rmi", "amd", "arm"]);
    assert_eq!(env.ok(["check", "--store"]), "");
    let blob = |digest: &str| env.store().join("blobs/sha256").join(&digest.trim()[7..]);
    let tags = env.store().join("tags");
    let tag = std::fs::read_to_string(tags.join("multi%3Alatest")).unwrap();
    let cases: [(std::path::PathBuf, Option<&str>, &str); 6] = [
        (blob(&manifest), None, "multi:latest (linux/arm64): lacks its manifest"),
        (blob(&config), None, "multi:latest (linux/arm64): "),
        (blob(&config), Some("{}"), "is damaged"),
        (tags.join("other%3Alatest"), Some(&tag), "under another name"),
        (tags.join("stray"), Some("x"), "tags/stray"),
        (env.store().join("tmp/stray"), Some("x"), "does not belong in a store"),
    ];
    for (path, content, expected) in cases {
        let before = std::fs::read(&path).ok();
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut command = env.svp(["check", "--store", "--format", "json"]);
        let output = support::output(&mut command);
        let printed = support::transcript(&command, &output);
        assert_eq!(output.status.code(), Some(65), "{printed}");
        let faults = json(&String::from_utf8_lossy(&output.stdout));
        let found = faults.as_array().unwrap().iter().any(|fault| {
            let text = |name: &str| fault[name].as_str().unwrap().to_owned();
            !text("remedy").is_empty()
                && format!("{}: {}", text("what"), text("problem")).contains(expected)
        });
        assert!(found, "{expected}: {printed}");
        match before {
            Some(before) => std::fs::write(&path, before).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert_eq!(env.ok(["check", "--store"]), "", "{}", path.display());
    }
}
