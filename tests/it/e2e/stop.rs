//! The stop signal and its time: the pack's, the base image's, the user's; and the message when they were too short.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::run::{code, info, instance};
use crate::support::{TestEnv, transcript, wait_until};

const BUILD: &str = "#!/bin/sh\n";
/// Ignores SIGTERM; says which other signal it got, takes a second to end, and exits with its number.
const RUN: &str = "#!/bin/sh\ntrap '' TERM\nfor s in 1 2 3 10 12; do trap \"echo got $s; sleep 1.2; exit $s\" $s; done\n\
    echo up\nwhile :; do sleep 0.05; done\n";

fn query(stop: &str) -> String {
    format!("#!/bin/sh\ncase $1 in os) echo busybox/1;; stop) {stop};; esac\n")
}

/// Runs svp; returns its exit code and what it printed on standard error.
#[track_caller]
fn told(env: &TestEnv, arguments: &[&str]) -> (i32, String) {
    let mut command = env.svp(arguments);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some(), "{}", transcript(&command, &output));
    (output.status.code().unwrap(), text)
}

#[track_caller]
fn up(env: &TestEnv, name: &str) {
    env.ok(["run", "-d", name]);
    wait_until("the service is up", || env.ok(["logs", name]).contains("up"));
}

#[test]
fn a_pack_names_its_stop_signal_and_its_time() {
    let env = TestEnv::new();
    instance(&env, "int", &query("echo INT 30"), BUILD, RUN);
    let pack = env.path("pack-int");
    assert_eq!(env.ok(["query", "-b", pack.to_str().unwrap(), "stop"]), "SIGINT 30\n");
    env.ok(["lint", pack.to_str().unwrap()]);
    let config: Value = serde_json::from_str(&env.ok(["inspect", "--config", "int"])).unwrap();
    assert_eq!(config["config"]["StopSignal"], "SIGINT");
    up(&env, "int");
    let (_, text) = told(&env, &["stop", "int"]);
    assert_eq!(info(&env, "int")["exitCode"], 2);
    assert_eq!(text.matches("SIGKILL follows 30 s after SIGINT").count(), 1, "{text}");
    assert!(!text.contains("was killed"), "{text}");
    // The user's time wins, and the message names the component, the signal and the way out.
    env.ok(["start", "int"]);
    wait_until("it is up again", || env.ok(["logs", "int"]).matches("up").count() == 2);
    let (_, text) = told(&env, &["stop", "-t", "1", "int"]);
    assert_eq!(text.matches("int did not end within 1 s of SIGINT, and was killed").count(), 1);
    assert!(text.contains("--time SECONDS"), "{text}");
    assert_eq!(info(&env, "int")["components"][0]["killed"], true);
    assert_eq!(info(&env, "int")["exitCode"], 137);
    // A kill that was asked for is no news.
    env.ok(["start", "int"]);
    let (_, text) = told(&env, &["stop", "--time=0", "int"]);
    assert!(!text.contains("did not end"), "{text}");
    let quadlet = env.ok(["export", "int", "--format", "quadlet"]);
    assert!(quadlet.contains("--stop-signal=SIGINT --stop-timeout=30\n"), "{quadlet}");
    assert!(quadlet.contains("TimeoutStopSec=50\n"), "{quadlet}");
    let kube = env.ok(["export", "int", "--format", "kube"]);
    assert!(kube.contains("terminationGracePeriodSeconds: 30\n"), "{kube}");
    let unit = env.ok(["export", "int", "--format", "systemd"]);
    assert!(unit.contains("TimeoutStopSec=50\n") && unit.contains("SuccessExitStatus=130\n"));
    env.ok(["rm", "int"]);
    env.assert_nothing_left();
}

#[test]
fn without_an_answer_the_base_images_signal_applies() {
    let env = TestEnv::new();
    instance(&env, "plain", &query("exit 1"), BUILD, RUN);
    let config: Value = serde_json::from_str(&env.ok(["inspect", "--config", "plain"])).unwrap();
    assert!(config["config"]["StopSignal"].is_null(), "{config}");
    // A base with a StopSignal: an instance of a pack that names a real-time signal, by its number.
    let rt = "#!/bin/sh\ntrap 'echo got rt; exit 7' 37\necho up\nwhile :; do sleep 0.05; done\n";
    instance(&env, "first", &query("echo SIGRTMIN+3"), BUILD, rt);
    let files = [("bin/query", &*query("exit 1")), ("bin/build", BUILD), ("bin/run", rt)];
    let pack = env.write_pack("second", &files);
    let pack = pack.to_str().unwrap();
    let base = ["-t", "second-base", "--base", "first-base", "--network", "none"];
    env.ok([&["build", "-b", pack][..], &base].concat());
    env.ok(["setup", "-i", "second-base", "-t", "second", "--network", "none"]);
    for name in ["first", "second"] {
        let config: Value = serde_json::from_str(&env.ok(["inspect", "--config", name])).unwrap();
        assert_eq!(config["config"]["StopSignal"], "SIGRTMIN+3");
        up(&env, name);
        env.ok(["stop", name]);
        assert_eq!(info(&env, name)["exitCode"], 7, "{name}");
        env.ok(["rm", name]);
    }
    env.assert_nothing_left();
}

#[test]
fn a_stop_answer_that_is_no_signal_and_time_is_refused() {
    let env = TestEnv::new();
    env.import_busybox();
    for answer in ["SIGINT 0", "sigint", "INT 60s", "INT  6", "SIGSTOP", "SIGINT 5\\nSIGTERM 6"] {
        let query = query(&format!("printf '{answer}\\n'"));
        let files = [("bin/query", &*query), ("bin/build", BUILD), ("bin/run", RUN)];
        let pack = env.write_pack("bad", &files);
        let pack = pack.to_str().unwrap();
        for arguments in [
            &["query", "-b", pack, "stop"][..],
            &["build", "-b", pack, "-t", "x", "--base", "busybox"],
        ] {
            let (code, text) = told(&env, arguments);
            assert_eq!(code, 65, "{text}");
            assert!(text.contains("`bin/query stop`"), "{text}");
        }
        assert_eq!(code(&env, &["lint", pack]), 65, "{answer}");
    }
    env.assert_nothing_left();
}

#[test]
fn a_kill_at_the_end_of_the_time_is_told_by_every_command() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; stop) echo TERM 1;; \
        components) echo deaf; echo good;; esac\n";
    let run = "#!/bin/sh\n[ $1 = good ] || trap '' TERM\necho up\nwhile :; do sleep 0.05; done\n";
    instance(&env, "pair", query, BUILD, run);
    let both_up = |lines: usize| {
        wait_until("both are up", || env.ok(["logs", "pair"]).matches("up").count() == lines);
    };
    let message = "deaf did not end within 1 s of SIGTERM, and was killed";
    let once = |text: &str| {
        assert_eq!(text.matches(message).count(), 1, "{text}");
        assert!(!text.contains("good"), "{text}");
    };
    env.ok(["run", "-d", "pair"]);
    both_up(2);
    once(&told(&env, &["restart", "pair", "deaf"]).1);
    both_up(3);
    once(&told(&env, &["restart", "pair"]).1);
    both_up(5);
    let (code, text) = told(&env, &["restart", "pair", "good"]);
    assert!(code == 0 && !text.contains("did not end"), "{text}");
    both_up(6);
    let since = Instant::now();
    once(&told(&env, &["rm", "-f", "pair"]).1);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    // A service that is removed when it ends leaves no status to read.
    env.ok(["run", "-d", "--rm", "pair"]);
    wait_until("both are up", || env.ok(["logs", "pair"]).matches("up").count() == 2);
    once(&told(&env, &["stop", "pair"]).1);
    env.assert_nothing_left();
}
