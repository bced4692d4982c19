//! The health of a running service: watched at intervals, shown with the failing command's output, and restarted.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::run::{code, info, instance};
use crate::support::{TestEnv, wait_until};

const BUILD: &str = "#!/bin/sh\n";
const RUN: &str =
    "#!/bin/sh\ntrap 'exit 0' TERM\ntouch /ok\necho up\nwhile :; do sleep 0.05; done\n";

fn query(health: &str) -> String {
    format!(
        "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo X_PASSWORD;; health) {health};; esac\n"
    )
}

/// Returns `state` of the service's health.
fn state(env: &TestEnv, name: &str) -> String {
    info(env, name)["healthStatus"]["state"].as_str().unwrap_or("none").to_owned()
}

#[track_caller]
fn wait_for(env: &TestEnv, name: &str, wanted: &str) {
    wait_until(wanted, || state(env, name) == wanted);
}

/// Returns the number of the container's processes whose command line contains `text`.
fn count(env: &TestEnv, name: &str, text: &str) -> usize {
    let listed = env.ok(["exec", name, "ps", "-o", "args"]);
    listed.lines().filter(|line| line.contains(text) && !line.contains("ps -o")).count()
}

#[test]
fn a_watched_service_is_shown_as_unhealthy_with_the_output_and_recovers() {
    let env = TestEnv::new();
    let check = query("echo 'test -e /ok || { echo first; echo no /ok here >&2; exit 3; }'");
    instance(&env, "web", &check, BUILD, RUN);
    let options = ["--health-interval=1", "--health-retries=2"];
    env.ok([&["run", "-d", "web"][..], &options].concat());
    wait_for(&env, "web", "healthy");
    let listed = env.ok(["ps"]);
    let (header, row) = listed.split_once('\n').unwrap();
    let column = header.find("HEALTH").unwrap();
    assert!(row[column..].starts_with("healthy "), "{listed}");
    env.ok(["exec", "web", "rm", "/ok"]);
    wait_for(&env, "web", "unhealthy");
    let listed: Value = serde_json::from_str(&env.ok(["ps", "--format", "json"])).unwrap();
    let health = &listed[0]["healthStatus"];
    assert_eq!(health["state"], "unhealthy");
    assert_eq!(health["reason"], "its health command exited with 3");
    assert_eq!(health["output"], "first\nno /ok here");
    assert!(health["failures"].as_u64().unwrap() >= 2 && health["checked"].as_i64().unwrap() > 0);
    let shown = env.ok(["info", "web"]);
    assert!(shown.contains("exited with 3") && shown.contains("no /ok here"), "{shown}");
    let mut command = env.svp(["health", "web"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "unhealthy: its health command exited with 3\n  first\n  no /ok here\n"
    );
    let log = std::fs::read_to_string(env.store().join("services/web/monitor.log")).unwrap();
    assert_eq!(log.matches("unhealthy: its health command exited with 3: no /ok here").count(), 1);
    // Without --health-on-failure nothing is restarted.
    assert_eq!(info(&env, "web")["components"][0]["restarts"], 0);
    env.ok(["exec", "web", "touch", "/ok"]);
    wait_for(&env, "web", "healthy");
    assert!(info(&env, "web")["healthStatus"]["output"].is_null());
    env.ok(["rm", "-f", "web"]);
    env.assert_nothing_left();
}

#[test]
fn an_unhealthy_service_is_restarted_on_request_but_not_for_ever_with_a_number() {
    let env = TestEnv::new();
    // The pack's own interval.
    let check = query("echo 'test -e /ok'; echo interval=1; echo retries=1");
    instance(&env, "heal", &check, BUILD, RUN);
    env.ok(["run", "-d", "heal", "--health-on-failure=restart"]);
    wait_for(&env, "heal", "healthy");
    env.ok(["exec", "heal", "rm", "/ok"]);
    // The restart creates the file again.
    wait_until("it was restarted and is healthy", || {
        let info = info(&env, "heal");
        let health = &info["healthStatus"];
        health["restarts"] == 1 && health["state"] == "healthy"
    });
    assert_eq!(info(&env, "heal")["components"][0]["restarts"], 1);
    env.ok(["rm", "-f", "heal"]);
    // It never gets healthy: restarted twice, then left alone.
    instance(&env, "sick", &query("echo 'exit 9'"), BUILD, RUN);
    let options = ["--health-interval=1s", "--health-retries=1", "--health-on-failure=restart"];
    env.ok([&["run", "-d", "sick", "--restart=on-failure:2"][..], &options].concat());
    wait_for(&env, "sick", "unhealthy");
    std::thread::sleep(Duration::from_secs(3));
    let info = info(&env, "sick");
    assert_eq!(info["healthStatus"]["restarts"], 2, "{info}");
    assert_eq!(
        (&info["status"], &info["healthStatus"]["state"]),
        (&"running".into(), &"unhealthy".into())
    );
    env.ok(["rm", "-f", "sick"]);
    env.assert_nothing_left();
}

#[test]
fn a_health_command_that_hangs_neither_piles_up_nor_delays_a_stop() {
    let env = TestEnv::new();
    // It leaves a process behind, ignores SIGTERM and never ends.
    let check =
        query("echo 'trap \"\" TERM; sleep 987 & sleep 988'; echo timeout=1; echo retries=1");
    instance(&env, "hang", &check, BUILD, RUN);
    env.ok(["run", "-d", "hang", "--health-interval", "1"]);
    wait_for(&env, "hang", "unhealthy");
    assert_eq!(
        info(&env, "hang")["healthStatus"]["reason"],
        "its health command took longer than 1 s"
    );
    std::thread::sleep(Duration::from_secs(4));
    assert!(count(&env, "hang", "sleep 987") <= 1 && count(&env, "hang", "sleep 988") <= 1);
    let since = Instant::now();
    env.ok(["stop", "hang"]);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    env.ok(["rm", "hang"]);
    // A command that ends and leaves processes in its group, each time.
    instance(&env, "leaves", &query("echo 'sleep 989 & true'"), BUILD, RUN);
    env.ok(["run", "-d", "leaves", "--health-interval", "1"]);
    wait_for(&env, "leaves", "healthy");
    std::thread::sleep(Duration::from_secs(4));
    assert!(count(&env, "leaves", "sleep 989") <= 1);
    env.ok(["rm", "-f", "leaves"]);
    env.assert_nothing_left();
}

#[test]
fn the_output_of_a_health_command_is_bounded_escaped_and_without_secrets() {
    let env = TestEnv::new();
    let run = "#!/bin/sh\necho up\nexec sleep 1000\n";
    let build = "#!/bin/sh\ncat >/check <<'END'\n\
        i=0; while [ $i -lt 3000 ]; do echo \"line $i xxxxxxxxxxxxxxxxxxxx\"; i=$((i+1)); done\n\
        printf '\\033]0;owned\\007 %s\\n' \"$X_PASSWORD\"\nkill -9 $$\nEND\n";
    // The shell that runs the script replaces itself by it.
    let check = query("echo 'exec sh /check'");
    instance(&env, "loud", &check, build, run);
    env.ok(["run", "-d", "loud", "--health-interval=1", "--health-retries=1"]);
    wait_for(&env, "loud", "unhealthy");
    let variables: Value =
        serde_json::from_str(&env.ok(["env", "loud", "--format", "json"])).unwrap();
    let secret = variables["X_PASSWORD"].as_str().unwrap();
    let status = std::fs::read_to_string(env.store().join("services/loud/status.json")).unwrap();
    let log = std::fs::read_to_string(env.store().join("services/loud/monitor.log")).unwrap();
    let live = env.svp(["health", "loud"]).output().unwrap();
    let live = String::from_utf8(live.stdout).unwrap();
    assert_eq!(code(&env, &["health", "loud"]), 1);
    for shown in [&status, &log, &live, &env.ok(["info", "loud"]), &env.ok(["ps", "--format=json"])]
    {
        assert!(!shown.contains('\u{1b}') && !shown.contains("\\u001b"), "{shown}");
        assert!(!shown.contains(secret) && shown.contains("***"), "{shown}");
        assert!(shown.contains("was killed by SIGKILL"), "{shown}");
        assert!(shown.len() < 20_000, "{}", shown.len());
    }
    assert!(live.lines().count() <= 21 && live.contains("line 2999"), "{live}");
    env.ok(["rm", "-f", "loud"]);
    env.assert_nothing_left();
}

#[test]
fn a_service_that_is_not_watched_shows_its_last_check() {
    let env = TestEnv::new();
    instance(&env, "calm", &query("echo true; echo interval=5"), BUILD, RUN);
    // The user's 0 overrides the pack's interval.
    env.ok(["run", "-d", "calm", "--health-interval=0"]);
    assert!(
        info(&env, "calm")["healthStatus"].is_null() && info(&env, "calm")["healthWatch"].is_null()
    );
    assert!(env.ok(["ps"]).contains(" -  "), "{}", env.ok(["ps"]));
    assert_eq!(env.ok(["health", "calm"]), "healthy\n");
    assert_eq!(state(&env, "calm"), "healthy");
    // What was true of an earlier start is not.
    std::thread::sleep(Duration::from_secs(1));
    env.ok(["restart", "calm"]);
    assert_eq!(state(&env, "calm"), "none");
    env.ok(["rm", "-f", "calm"]);
    let bad = ["--health-interval=0", "--health-on-failure=restart"];
    assert_eq!(code(&env, &[&["run", "-d", "calm"][..], &bad].concat()), 125);
    assert_eq!(code(&env, &["run", "-d", "calm", "--health-interval=99999999"]), 125);
    env.assert_nothing_left();
}
