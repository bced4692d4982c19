//! `svp upgrade`: to what the tag says now, rolled back, refused, killed.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::drift::{build, drifted, set_up_again};
use super::run::info;
use crate::support::{TestEnv, output, wait_until};

fn version(env: &TestEnv) -> String {
    env.ok(["exec", "shop", "cat", "/etc/version"])
}

fn names(env: &TestEnv, place: &str) -> Vec<String> {
    let mut names = Vec::new();
    for area in std::fs::read_dir(env.store().join("trees")).unwrap().flatten() {
        let entries = std::fs::read_dir(area.path().join(place));
        names.extend(entries.into_iter().flatten().flatten().map(|e| e.file_name()));
    }
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// Checks that nothing exists but the service, its one directory and its volume.
#[track_caller]
fn assert_alone(env: &TestEnv) {
    let services = std::fs::read_dir(env.store().join("services")).unwrap().count();
    assert_eq!(services, 1);
    assert!(!env.store().join("services/shop/swap.json").exists());
    assert_eq!(names(env, "services").len(), 1);
    assert_eq!(names(env, "volumes"), ["shop.data"]);
}

#[test]
fn an_upgrade_takes_the_tags_image_and_keeps_all_else() {
    let env = drifted();
    env.ok(["exec", "shop", "sh", "-c", "echo mine >/data/x; chown 7:8 /data/x"]);
    let before = info(&env, "shop");
    let variables = env.ok(["env", "shop"]);
    assert_eq!(env.ok(["upgrade", "shop"]), "shop\n");
    assert_eq!(version(&env), "2");
    assert_eq!(env.ok(["exec", "shop", "stat", "-c", "%u:%g", "/data/x"]), "7:8\n");
    assert_eq!(env.ok(["exec", "shop", "cat", "/data/x"]), "mine\n");
    let after = info(&env, "shop");
    assert_eq!(after["outdated"], false);
    assert_eq!(after["digest"], after["tagDigest"]);
    for same in ["name", "image", "address", "ports", "network", "volumes", "restart", "created"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(env.ok(["env", "shop"]), variables);
    assert_alone(&env);
    // Again: nothing to do.
    let mut again = env.svp(["upgrade", "shop", "--format", "json"]);
    let done = output(&mut again);
    assert!(done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("nothing to do"));
    let shown: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(shown["monitor"], after["monitor"], "it was restarted");
}

#[test]
fn a_stopped_service_is_upgraded_and_stays_stopped() {
    let env = drifted();
    env.ok(["exec", "shop", "sh", "-c", "echo mine >/data/x"]);
    env.ok(["stop", "shop"]);
    env.ok(["upgrade", "shop"]);
    assert_eq!(info(&env, "shop")["status"], "exited");
    assert_alone(&env);
    env.ok(["start", "shop"]);
    assert_eq!(version(&env), "2");
    assert_eq!(env.ok(["exec", "shop", "cat", "/data/x"]), "mine\n");
}

#[test]
fn an_unhealthy_upgrade_leaves_the_old_service_and_its_data() {
    let env = drifted();
    let files = [
        (
            "bin/query",
            "#!/bin/sh\ncase $1 in os) echo busybox/1;; volumes) echo /data; echo /more;;\n\
             secrets) echo APP_PASSWORD;; health) echo false;; esac\n",
        ),
        ("bin/build", "#!/bin/sh\nmkdir -p /data /more\n"),
        // It changes the data in place, as a new database does.
        ("bin/run", "#!/bin/sh\necho upgraded >/data/x\nexec sleep 100000\n"),
    ];
    let pack = env.write_pack("sick", &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "app", "--base", "busybox", "--network", "none"]);
    set_up_again(&env);
    env.ok(["exec", "shop", "sh", "-c", "echo mine >/data/x"]);
    let digest = info(&env, "shop")["digest"].clone();
    for state in ["running", "exited"] {
        if state == "exited" {
            env.ok(["stop", "shop"]);
        }
        let text = env.fails(1, ["upgrade", "shop", "--wait", "2"]);
        assert!(text.contains("not upgraded, everything is as it was"), "{text}");
        assert!(!text.contains("it keeps running"), "{text}");
        assert_eq!(text.contains("`svp logs shop`"), state == "running", "{text}");
        let shown = info(&env, "shop");
        assert_eq!((&shown["status"], &shown["digest"]), (&Value::from(state), &digest));
        assert_alone(&env);
    }
    env.ok(["start", "shop"]);
    assert_eq!(env.ok(["exec", "shop", "cat", "/data/x"]), "mine\n");
    assert_eq!(version(&env), "1");
}

#[test]
fn another_instance_is_refused_and_the_same_one_is_taken_by_any_name() {
    let env = drifted();
    let digest = info(&env, "shop")["digest"].as_str().unwrap().to_owned();
    env.ok(["setup", "-i", "app", "-t", "other", "--network", "none"]);
    let text = env.fails(2, ["upgrade", "shop", "--image", "other"]);
    assert!(text.contains("other secrets") && text.contains("--keep-secrets"), "{text}");
    env.fails(2, ["upgrade", "shop", "--image", "app"]);
    env.fails(65, ["upgrade", "shop", "--image", "nothing"]);
    env.fails(2, ["upgrade", "nobody"]);
    assert_eq!(info(&env, "shop")["digest"], digest);
    env.ok(["tag", "shop", "next"]);
    env.ok(["upgrade", "shop", "--image", "next"]);
    assert_eq!(info(&env, "shop")["image"], "next:latest");
    // The old image had no tag: nothing keeps it now.
    env.fails(65, ["inspect", &digest]);
    build(&env, "3");
    set_up_again(&env);
    let third = env.ok(["inspect", "shop", "--field", "digest"]);
    env.ok(["upgrade", "shop", "--image", &third.trim()[7..19]]);
    assert_eq!(
        (version(&env), info(&env, "shop")["image"].clone()),
        ("3".into(), "shop:latest".into())
    );
}

#[test]
fn a_killed_upgrade_leaves_the_old_or_the_new_service() {
    let env = drifted();
    env.ok(["exec", "shop", "sh", "-c", "echo mine >/data/x"]);
    let mut had = "1".to_owned();
    let mut next = "2".to_owned();
    for round in 0..12 {
        let signal = if round % 3 == 2 { Signal::INT } else { Signal::KILL };
        let mut child = env
            .svp(["upgrade", "shop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + 90 * round));
        // It may have ended.
        let _ = kill_process(Pid::from_child(&child), signal);
        child.wait().unwrap();
        if info(&env, "shop")["status"] != "running" {
            wait_until("the service starts", || {
                output(&mut env.svp(["start", "shop"])).status.success()
                    || info(&env, "shop")["status"] == "running"
            });
        }
        if info(&env, "shop")["outdated"] == false {
            had = next;
            next = format!("round {round}");
            build(&env, &next);
            set_up_again(&env);
        }
        assert_eq!(version(&env), had);
        assert_eq!(env.ok(["exec", "shop", "cat", "/data/x"]), "mine\n");
    }
    env.ok(["upgrade", "shop"]);
    env.ok(["prune", "--wait", "20"]);
    assert_eq!(version(&env), next);
    assert_alone(&env);
}
