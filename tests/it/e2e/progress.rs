//! Work that takes its time says so: backups count bytes, other commands say once what they do.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::run::instance;
use crate::support::{TestEnv, output, success, transcript};

const BUILD: &str = "#!/bin/sh\n";
const RUN: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n";

/// A pack whose backup takes four seconds, and its restore as long.
pub fn slow_backup(env: &TestEnv, name: &str) {
    instance(env, name, "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n", BUILD, RUN);
    let backup = "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8; do head -c 250000 /dev/zero; sleep 0.5; done\n\
        echo a warning >&2\n";
    let restore = "#!/bin/sh\ncat >/dev/null\nsleep 2.5\n";
    let files = [
        ("bin/query", "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n"),
        ("bin/build", BUILD),
        ("bin/run", RUN),
        ("bin/backup", backup),
        ("bin/restore", restore),
    ];
    let pack = env.write_pack("slow", &files);
    let base = format!("{name}-slow-base");
    env.ok([
        "build",
        "-b",
        pack.to_str().unwrap(),
        "-t",
        &base,
        "--base",
        "busybox",
        "--network=none",
    ]);
    env.ok(["setup", "-i", &base, "-t", name, "--network", "none", "--force"]);
    env.ok(["run", "-d", name, "--network", "none"]);
}

/// The events of a kind, from standard error.
fn events(text: &str, kind: &str) -> Vec<Value> {
    let parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|event| event["event"] == kind).collect()
}

#[test]
fn a_backup_and_a_restore_count_their_bytes() {
    let env = TestEnv::new();
    slow_backup(&env, "keys");
    let mut command =
        env.svp(["backup", "keys", "-o", "b", "--compression=none", "--progress=json"]);
    let result = output(&mut command);
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{}", transcript(&command, &result));
    let progress = events(&text, "backup-progress");
    let done: Vec<u64> = progress.iter().map(|event| event["done"].as_u64().unwrap()).collect();
    assert!(done.len() > 4 && done.is_sorted() && done.last() == Some(&2_000_000), "{done:?}");
    let last = progress.last().unwrap();
    assert_eq!((&last["finished"], &last["total"]), (&true.into(), &Value::Null));
    assert_eq!((&last["service"], &last["direction"]), (&"keys".into(), &"backup".into()));
    assert!(text.contains("a warning\n"), "{text}");
    // Plain lines: what runs, how far it is, and the end; a streamed backup has them, too.
    let mut command = env.svp(["backup", "keys"]);
    let result = output(&mut command);
    let text = String::from_utf8_lossy(&result.stderr);
    assert_eq!(text.matches("running /service/bin/backup").count(), 1, "{text}");
    assert_eq!(text.matches("so far").count(), 1, "{text}");
    assert!(text.contains("backup of keys: 2.00 MB, done"), "{text}");
    // The restore knows the size.
    let mut command = env.svp(["restore", "keys", "-i", "b", "--progress=json"]);
    let result = output(&mut command);
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{}", transcript(&command, &result));
    let progress = events(&text, "backup-progress");
    let last = progress.last().unwrap();
    assert_eq!((&last["total"], &last["done"]), (&2_000_000.into(), &2_000_000.into()), "{text}");
    assert_eq!(last["direction"], "restore");
    // Quiet is quiet.
    let mut command = env.svp(["backup", "keys", "-o", "c", "-q"]);
    assert_eq!(String::from_utf8_lossy(&output(&mut command).stderr), "a warning\n");
    env.ok(["rm", "-f", "keys"]);
    success(env.command("rm").args(["b", "c"]));
    env.assert_nothing_left();
}

#[test]
fn slow_work_says_once_what_it_is() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; \
        health) echo 'test -e /ready || { sleep 1.4; touch /ready; exit 1; }; sleep 1.4';; esac\n";
    instance(&env, "slow", query, BUILD, RUN);
    let told = |arguments: &[&str], text: &str| {
        let mut command = env.svp(arguments);
        let result = output(&mut command);
        let printed = String::from_utf8_lossy(&result.stderr).into_owned();
        assert!(result.status.success(), "{}", transcript(&command, &result));
        assert_eq!(printed.matches(text).count(), 1, "{arguments:?}: {printed}");
    };
    told(&["run", "-d", "--wait", "slow"], "waiting until slow is healthy");
    told(&["health", "slow"], "running the health command of slow");
    let pack = env.write_pack(
        "query",
        &[
            ("bin/query", "#!/bin/sh\nsleep 1.5\ncase $1 in os) echo busybox/1;; esac\n"),
            ("bin/build", BUILD),
        ],
    );
    told(&["query", "-b", pack.to_str().unwrap(), "os"], "running bin/query os");
    // Another process that has the store for itself.
    let mut holder = env.command("flock");
    holder.arg(env.store().join("lock")).args(["sleep", "2.5"]);
    let mut holder = holder.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    told(&["images"], "waiting for another svp process");
    holder.wait().unwrap();
    // Work that is quick says nothing.
    let printed = output(&mut env.svp(["df"]));
    assert_eq!(String::from_utf8_lossy(&printed.stderr), "");
    env.ok(["rm", "-f", "slow"]);
    env.assert_nothing_left();
}

/// Returns the only layer store of an environment.
fn layer_store(env: &TestEnv) -> PathBuf {
    let mut found = fs::read_dir(env.store().join("trees")).unwrap();
    found.next().unwrap().unwrap().path()
}

#[test]
fn waiting_for_another_process_that_unpacks_the_layer_is_said() {
    let first = TestEnv::new();
    first.import_busybox();
    let pack = first.write_pack(
        "pack",
        &[("bin/query", "#!/bin/sh\ncase $1 in os) echo busybox/1;; esac\n"), ("bin/build", BUILD)],
    );
    let build =
        ["build", "-b", pack.to_str().unwrap(), "-t", "x", "--base", "busybox", "--network=none"];
    let quiet = output(&mut first.svp(build));
    assert!(!String::from_utf8_lossy(&quiet.stderr).contains("waiting"), "{quiet:?}");
    let layers = fs::read_dir(layer_store(&first).join("layers")).unwrap();
    let keys: Vec<_> = layers.map(|layer| layer.unwrap().file_name()).collect();
    // The same layers in a store where another process is about to unpack them.
    let second = TestEnv::new();
    second.import_busybox();
    second.svp(["check"]).output().unwrap();
    let holders = keys.iter().map(|key| {
        let mut holder = second.command("flock");
        holder.arg(layer_store(&second).join("locks").join(key)).args(["sleep", "2.5"]);
        holder.spawn().unwrap()
    });
    let holders: Vec<_> = holders.collect();
    std::thread::sleep(std::time::Duration::from_millis(400));
    let done = output(&mut second.svp(build));
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    let says = "waiting for another svp process that unpacks layer ";
    assert_eq!(text.matches(says).count(), 1, "{text}");
    for mut holder in holders {
        holder.wait().unwrap();
    }
    first.assert_nothing_left();
    second.assert_nothing_left();
}
