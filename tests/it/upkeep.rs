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

fn import(place: &TestEnv, name: &str) -> String {
    let file = busybox_base();
    place.ok(["import", file.to_str().unwrap(), "-t", name]).trim().to_owned()
}

#[test]
fn an_image_is_inspected_whole_in_parts_and_by_a_field() {
    let place = TestEnv::new();
    let digest = import(&place, "a");
    let printed = json(&place.ok(["inspect", "a", "--format", "json"]));
    let manifest = place.ok(["inspect", "a", "--raw"]);
    let config = place.ok(["inspect", "a", "--config", "--raw"]);
    for (name, raw) in [(&digest, &manifest), (&field(&place, "configDigest"), &config)] {
        let blob = place.store().join("blobs/sha256").join(name.trim().replace("sha256:", ""));
        assert_eq!(raw.as_bytes(), std::fs::read(blob).unwrap());
    }
    assert_eq!(json(&place.ok(["inspect", "a", "--manifest"])), json(&manifest));
    assert_eq!(json(&place.ok(["inspect", "a", "--config"])), json(&config));
    assert_eq!(json(&config), printed["config"]);
    assert_eq!(field(&place, "digest"), format!("{digest}\n"));
    assert_eq!(field(&place, "layers.0.digest").trim(), printed["layers"][0]["digest"]);
    assert_eq!(place.ok(["inspect", "a", "--config", "--field", "os"]), "linux\n");
    assert!(place.fails(65, ["inspect", "a", "--field", "nope"]).contains("configDigest"));
    place.fails(2, ["inspect", "a", "--manifest", "--config"]);
    place.fails(2, ["inspect", "a", "--raw", "--field", "digest"]);

    let history = json(&place.ok(["history", "a", "--format", "json"]));
    assert_eq!(history[0]["layer"], printed["layers"][0]["digest"]);
    assert_eq!(history[0]["size"], printed["size"]);
    assert_eq!(history[0]["number"], 1);
    assert!(place.ok(["history", "a"]).lines().nth(1).unwrap().starts_with("1  "), "{history}");
    assert_eq!(place.ok(["inspect", "a", "--field", r#""config"."os""#]), "linux\n");
    assert!(place.ok(["history", "a"]).contains("import"), "{history}");
    assert!(place.fails(65, ["history", "nothing"]).contains("nothing:latest"));
}

fn field(place: &TestEnv, name: &str) -> String {
    place.ok(["inspect", "a", "--field", name])
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

fn build(place: &TestEnv, base: &str, name: &str) {
    let pack = place.path("pack");
    if !pack.exists() {
        place.write_pack("pack", PACK);
    }
    place.ok(["build", "-b", "pack", "--base", base, "--network", "none", "-t", name]);
}

/// The sections in the output of `svp prune`.
fn sorts(list: &Value) -> Vec<&str> {
    let mut sorts: Vec<&str> =
        list.as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    sorts.dedup();
    sorts
}

fn files(place: &TestEnv, dir: &str) -> usize {
    std::fs::read_dir(place.store().join(dir)).unwrap().count()
}

#[test]
fn prune_takes_what_no_tag_needs_and_df_says_how_much() {
    let place = TestEnv::new();
    import(&place, "base");
    build(&place, "base", "kept");
    let setup = ["setup", "-b", "pack", "-i", "kept", "-t", "one", "--network", "none"];
    place.ok(setup);
    place.ok([
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
    place.ok(["rmi", "x"]);
    // A base from a layout is in the store without a tag.
    let other = TestEnv::new();
    other.write_pack("pack", PACK);
    let source = format!("oci:{}:x:latest", place.path("out").display());
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
    let mut busy = place
        .svp(["import", "-", "-t", "z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tar = std::fs::read(busybox_base()).unwrap();
    busy.stdin.as_mut().unwrap().write_all(&tar[..1 << 18]).unwrap();
    for _ in 0..500 {
        if files(&place, "tmp") > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(files(&place, "tmp") > 0, "nothing in staging");
    place.ok(["rmi", "one"]);
    assert_eq!(files(&place, "instances"), 1);
    assert!(place.fails(74, ["prune", "--wait", "0"]).contains("uses the store"));
    let printed = json(&place.ok(["prune", "--dry-run", "--format", "json"]));
    assert!(sorts(&printed).contains(&"instance"));
    assert!(!sorts(&printed).contains(&"staging"), "another's staging is needed");
    busy.kill().unwrap();
    busy.wait().unwrap();
    let pruned = json(&place.ok(["prune", "--format", "json"]));
    assert_eq!(sorts(&pruned), sorts(&printed));
    assert_eq!(files(&place, "instances"), 0);
    place.ok(["inspect", "kept"]);
    place.ok(setup);

    let df = json(&place.ok(["df", "-v", "--format", "json"]));
    assert_eq!(df["images"].as_array().unwrap().len(), 3);
    let blobs: u64 = (std::fs::read_dir(place.store().join("blobs/sha256")).unwrap())
        .map(|entry| {
            std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512
        })
        .sum();
    assert_eq!(df["kinds"][0]["bytes"], blobs);
    assert!(place.ok(["df", "--verbose"]).contains("one:latest"));
    place.assert_nothing_left();
}

#[test]
fn prune_removes_nothing_while_an_image_is_damaged_and_df_says_so() {
    let place = TestEnv::new();
    let digest = import(&place, "a");
    std::fs::write(place.store().join("logs/x.log"), "x").unwrap();
    std::fs::remove_file(place.store().join("blobs/sha256").join(&digest[7..])).unwrap();
    let said = place.fails(65, ["prune"]);
    assert!(said.contains("a:latest") && said.contains("svp rmi a:latest"), "{said}");
    assert_eq!(files(&place, "logs"), 1);
    place.ok(["df"]);
    place.ok(["rmi", "a"]);
    place.ok(["prune"]);
    assert_eq!(files(&place, "blobs/sha256"), 0);
}

#[test]
fn check_store_finds_each_fault_and_nothing_in_a_sound_store() {
    let place = TestEnv::new();
    import(&place, "base");
    build(&place, "base", "b");
    place.ok(["setup", "-b", "pack", "-i", "b", "-t", "one", "--network", "none"]);
    assert_eq!(place.ok(["check", "--store"]), "");
    let root = place.store();
    let layer = place.ok(["inspect", "base", "--field", "layers.0.digest"]);
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
        (root.join("tags/base%3Alatest"), Some("{"), "can't be understood"),
        (root.join("homes/x"), Some("x"), "is not named after a digest"),
        (root.join("diff-ids").join(&hex), Some(&other), "is not the diff ID"),
        (state, Some("{"), "is damaged"),
        (unpacked.join("report"), None, "unpacked layer"),
    ];
    for (path, content, said) in cases {
        let before = std::fs::read(&path).ok();
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut command = place.svp(["check", "--store"]);
        let output = support::output(&mut command);
        let printed = support::transcript(&command, &output);
        assert_eq!(output.status.code(), Some(65), "{}: {printed}", path.display());
        assert!(String::from_utf8_lossy(&output.stdout).contains(said), "{said}: {printed}");
        match before {
            Some(before) => std::fs::write(&path, before).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert_eq!(place.ok(["check", "--store"]), "", "{}", path.display());
    }
}

/// Changes a file of an unpacked layer, which belongs to the containers' root.
fn in_tree(place: &TestEnv, layer: &std::path::Path, script: &str) {
    let shell = ["sh", "-euc", script];
    let mut command = if support::as_root() {
        let mut command = place.command("sh");
        command.args(&shell[1..]);
        command
    } else {
        let mut command = place.command("unshare");
        command.args(["--user", "--map-root-user", "--map-auto"]).args(shell);
        command
    };
    // The directory of the layer can't be entered from outside.
    command.arg("sh").arg(layer.join("fs"));
    support::success(&mut command);
}

#[test]
fn check_store_looks_into_unpacked_layers() {
    let place = TestEnv::new();
    let base = busybox_base();
    place.ok(["import", base.to_str().unwrap(), "-t", "base"]);
    build(&place, "base", "b");
    place.ok(["setup", "-b", "pack", "-i", "b", "-t", "one", "--network", "none"]);
    assert_eq!(place.ok(["check", "--store"]), "");
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
    for (script, said) in cases {
        let areas = place.store().join("trees");
        let area = std::fs::read_dir(areas).unwrap().next().unwrap().unwrap().path();
        let chain = place.ok(["inspect", "base", "--field", "layers.0.diffId"]);
        let layer = area.join("layers").join(&chain.trim()["sha256:".len()..][..40]);
        in_tree(&place, &layer, &script.replace("$1", "\"$1\""));
        let mut command = place.svp(["check", "--store"]);
        let output = support::output(&mut command);
        let printed = support::transcript(&command, &output);
        assert_eq!(output.status.code(), Some(65), "{script}: {printed}");
        for said in said.iter().chain(&["/layers/", "svp prune --unpacked"]) {
            assert!(printed.contains(said), "{said}: {printed}");
        }
        assert_eq!(place.ok(["check", "--store", "--quick"]), "");
        place.ok(["prune", "--unpacked"]);
        assert_eq!(std::fs::read_dir(area.join("layers")).unwrap().count(), 0);
        place.ok(["build", "-b", "pack", "--base", "base", "--network", "none", "-t", "again"]);
        assert_eq!(place.ok(["check", "--store"]), "", "{script}");
    }
    place.fails(2, ["check", "--quick"]);
    place.assert_nothing_left();
}

#[test]
fn a_digest_that_a_command_printed_names_the_image() {
    let place = TestEnv::new();
    let digest = import(&place, "a");
    for arguments in [&["inspect", "--field", "digest"][..], &["history"], &["diff"]] {
        let with = |image: &str| place.ok([arguments, &[image]].concat());
        assert_eq!(with(&digest), with("a"));
    }
    place.ok(["save", &digest, "-o", "oci-archive:a.tar"]);
    assert_eq!(place.ok(["load", "-i", "a.tar"]), "a:latest\n");
    assert!(place.fails(2, ["tag", "a", &digest]).contains("can't be a tag"));
    let base = busybox_base();
    let said = place.fails(2, ["import", base.to_str().unwrap(), "-t", &digest]);
    assert!(said.contains("can't be a tag"), "{said}");
    place.ok(["tag", &digest, "b"]);
    let said = place.fails(2, ["rmi", &digest]);
    assert!(said.contains("a:latest, b:latest"), "{said}");
    place.ok(["rmi", &format!("b@{digest}")]);
    assert_eq!(place.ok(["rmi", &digest]), "a:latest\n");
    assert!(place.fails(65, ["inspect", &digest]).contains(&digest));
    // No directory is created for a layout whose name would not lead to it again.
    assert!(place.fails(2, ["save", "a", "-o", "oci:lay:b"]).contains("svp copy"));
    assert!(!place.path("lay:b").exists());
}

/// Returns the output of `svp check --store` on a store with faults.
#[track_caller]
fn faults(place: &TestEnv) -> String {
    let mut command = place.svp(["check", "--store"]);
    let output = support::output(&mut command);
    let printed = support::transcript(&command, &output);
    assert_eq!(output.status.code(), Some(65), "{printed}");
    printed
}

#[test]
fn what_is_no_file_is_told_and_never_waited_for() {
    let place = TestEnv::new();
    import(&place, "a");
    let root = place.store();
    let blob = |field: &str| {
        let digest = place.ok(["inspect", "a", "--field", field]);
        root.join("blobs/sha256").join(&digest.trim()["sha256:".len()..])
    };
    let paths = [blob("digest"), blob("configDigest"), blob("layers.0.digest")];
    let tag = root.join("tags/a%3Alatest");
    for path in paths.iter().chain([&tag]) {
        let kept = std::fs::read(path).unwrap();
        for make in ["mkdir -p $1/x", "mkfifo $1", "ln -s nowhere $1"] {
            std::fs::remove_file(path).unwrap();
            let mut command = place.command("sh");
            command.args(["-euc", &make.replace("$1", "\"$1\""), "sh"]).arg(path);
            support::success(&mut command);
            let said = faults(&place);
            assert!(said.contains("not a file") && said.contains("remove it"), "{make}: {said}");
            let said = place.fails(65, ["save", "a", "-o", "oci-archive:a.tar"]);
            let named = path.file_name().unwrap().to_str().unwrap();
            assert!(said.contains(named), "{make}: {said}");
            support::success(place.command("rm").arg("-r").arg(path));
            std::fs::write(path, &kept).unwrap();
            assert_eq!(place.ok(["check", "--store"]), "");
        }
    }
    for path in &paths {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir_all(path.join("x")).unwrap();
    }
    place.ok(["rmi", "a"]);
    assert!(!paths[0].exists());
    // The blobs that the manifest would have named are unknown.
    place.ok(["prune"]);
    assert_eq!(place.ok(["check", "--store"]), "");
    std::fs::create_dir(root.join("trees")).unwrap();
    std::fs::write(root.join("trees/stray"), "").unwrap();
    assert!(faults(&place).contains("trees/stray: does not belong in a store"));
    place.ok(["df"]);
    place.ok(["prune"]);
}

#[test]
fn what_services_run_on_stays_and_what_they_keep_is_counted() {
    let place = TestEnv::new();
    import(&place, "base");
    build(&place, "base", "b");
    place.ok(["setup", "-b", "pack", "-i", "b", "-t", "one", "--network", "none"]);
    place.ok(["run", "-d", "--network", "none", "--name", "s", "-v", "v:/data", "one"]);
    let write =
        "dd if=/dev/zero of=/data/x bs=1024 count=300; dd if=/dev/zero of=/y bs=1024 count=200";
    place.ok(["exec", "s", "--", "sh", "-c", write]);
    let bytes = || {
        let df = json(&place.ok(["df", "--format", "json"]));
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
    place.ok(["rmi", "one", "b", "base"]);
    for more in [&["--dry-run"][..], &[]] {
        let said = place.fails(74, [&["prune", "--unpacked"], more].concat());
        assert!(said.contains("a service or command is using"), "{said}");
    }
    place.ok(["prune"]);
    assert_eq!(place.ok(["exec", "s", "--", "cat", "/made-setup"]), "setup\n");
    assert_eq!(place.ok(["check", "--store"]), "");
    place.ok(["stop", "s"]);
    place.ok(["prune", "--unpacked"]);
    place.ok(["start", "s"]);
    assert_eq!(place.ok(["exec", "s", "--", "cat", "/made-setup"]), "setup\n");
    place.ok(["stop", "s"]);

    let record = place.store().join("services/s/service.json");
    let kept = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    assert!(faults(&place).contains("services/s: "));
    std::fs::write(&record, kept).unwrap();
    let layer = std::fs::read_dir(place.store().join("blobs/sha256")).unwrap();
    let largest = layer.map(|entry| entry.unwrap()).max_by_key(|e| e.metadata().unwrap().len());
    std::fs::remove_file(largest.unwrap().path()).unwrap();
    assert!(faults(&place).contains("services/s: lacks its layer"));
    place.ok(["rm", "--volumes", "s"]);
    assert_eq!(bytes(), [0, 0, 0]);
    place.ok(["prune"]);
    place.assert_nothing_left();
}

#[test]
fn check_store_looks_at_each_platform_and_at_misnamed_files() {
    let place = TestEnv::new();
    import(&place, "amd");
    let base = busybox_base();
    place.ok(["import", base.to_str().unwrap(), "-t", "arm", "--platform", "linux/arm64"]);
    place.ok(["index", "-t", "multi", "amd", "arm"]);
    let manifest = place.ok(["inspect", "arm", "--field", "digest"]);
    let config = place.ok(["inspect", "arm", "--field", "configDigest"]);
    place.ok(["rmi", "amd", "arm"]);
    assert_eq!(place.ok(["check", "--store"]), "");
    let blob = |digest: &str| place.store().join("blobs/sha256").join(&digest.trim()[7..]);
    let tags = place.store().join("tags");
    let tag = std::fs::read_to_string(tags.join("multi%3Alatest")).unwrap();
    let cases: [(std::path::PathBuf, Option<&str>, &str); 6] = [
        (blob(&manifest), None, "multi:latest (linux/arm64): lacks its manifest"),
        (blob(&config), None, "multi:latest (linux/arm64): "),
        (blob(&config), Some("{}"), "is damaged"),
        (tags.join("other%3Alatest"), Some(&tag), "under another name"),
        (tags.join("stray"), Some("x"), "tags/stray"),
        (place.store().join("tmp/stray"), Some("x"), "does not belong in a store"),
    ];
    for (path, content, said) in cases {
        let before = std::fs::read(&path).ok();
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut command = place.svp(["check", "--store", "--format", "json"]);
        let output = support::output(&mut command);
        let printed = support::transcript(&command, &output);
        assert_eq!(output.status.code(), Some(65), "{printed}");
        let faults = json(&String::from_utf8_lossy(&output.stdout));
        let found = faults.as_array().unwrap().iter().any(|fault| {
            let text = |name: &str| fault[name].as_str().unwrap().to_owned();
            !text("remedy").is_empty()
                && format!("{}: {}", text("what"), text("problem")).contains(said)
        });
        assert!(found, "{said}: {printed}");
        match before {
            Some(before) => std::fs::write(&path, before).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert_eq!(place.ok(["check", "--store"]), "", "{}", path.display());
    }
}
