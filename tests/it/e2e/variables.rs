//! Variables that the user sets: `-e`, `--env-file`, and the names and values that get through.

use std::process::Stdio;

use serde_json::json;

use super::common::{QUERY, build, pack_with};
use super::exact::base_with;
use super::run::{info, instance};
use crate::support::TestEnv;

// Read from the kernel: busybox's and dash's shells drop variables that they can't name.
const RUN: &str = "#!/bin/sh\ntr '\\0' '\\n' </proc/$$/environ\n";

/// Runs the service in the foreground with a file of variables; returns the exit code and both outputs.
fn run_with_file(env: &TestEnv, text: &[u8]) -> (i32, String, String) {
    let file = env.path("variables");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut command = env.svp(["run", "--rm", "--network", "none", "--env-file", file, "printer"]);
    let output = command.env("FROM_CALLER", "taken").stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_env_file_reaches_the_service_whole_or_not_at_all() {
    let env = TestEnv::new();
    instance(&env, "printer", QUERY, "#!/bin/sh\n", RUN);
    let file = "\u{feff}# made on Windows\r\nPLAIN=a b # c\r\nexport QUOTED='x y'\r\n\
        KEY=\"one\r\ntwo\\tthree\"\r\nFROM_CALLER\r\nNOT_SET_ANYWHERE\r\ndiscovery.type=single-node\r\n";
    let (code, out, err) = run_with_file(&env, file.as_bytes());
    assert_eq!(code, 0, "{err}");
    for line in [
        "PLAIN=a b # c",
        "QUOTED=x y",
        "KEY=one\ntwo\tthree",
        "FROM_CALLER=taken",
        "discovery.type=single-node",
    ] {
        assert!(out.contains(&format!("{line}\n")), "{line}: {out}");
    }
    assert!(!out.contains("NOT_SET_ANYWHERE"), "{out}");

    for (text, line) in [
        (&b"A=1\nB=x\0y\n"[..], "line 2: a NUL byte"),
        (b"A=1\n\nB='open\n", "line 3: the quote ' is not closed"),
        (b"A=\xff\n", "line 1: the text is not UTF-8"),
        (b"A B=1\n", "line 1: invalid variable name: \"A B\""),
    ] {
        let (code, out, err) = run_with_file(&env, text);
        assert_eq!((code, out.as_str()), (125, ""), "{err}");
        assert!(err.contains(line), "{err}");
    }
    assert_eq!(env.ok(["ps", "-a", "-q"]), "", "a refused file must leave no service");
}

#[test]
fn names_with_dots_and_dashes_reach_builds_and_commands() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "dotted", "tr '\\0' '\\n' </proc/$$/environ | grep -x a.b-c=1");
    let mut arguments = build(&pack, "dotted");
    arguments.extend(["-e", "a.b-c=1"]);
    env.ok(arguments);
    instance(&env, "sleeper", QUERY, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "--network", "none", "-e", "discovery.type=x", "sleeper"]);
    let seen = env.ok(["exec", "-e", "x-y=2", "sleeper", "--", "env"]);
    for line in ["discovery.type=x\n", "x-y=2\n"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    env.ok(["rm", "-f", "sleeper"]);
}

/// Builds on the layout `base` of [`base_with`] as the image `x-base`; returns the exit code and standard error.
fn build_on_base(env: &TestEnv, layout: &std::path::Path) -> (i32, String) {
    let run = "#!/bin/sh\nexec sleep 1000\n";
    let files = [("bin/query", QUERY), ("bin/build", "#!/bin/sh\n"), ("bin/run", run)];
    let pack = env.write_pack("on-base", &files);
    let source = format!("oci:{}:base", layout.display());
    let mut arguments = build(&pack, "x-base");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = &source;
    let output = env.svp(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_variable_of_an_image_that_no_program_can_get_is_an_error() {
    let env = TestEnv::new();
    let layout = base_with(&env, json!({"Env": ["PATH=/bin", "A=x\0y"]}));
    let (code, text) = build_on_base(&env, &layout);
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("Env \"A=x\\0y\"") && text.contains("has a NUL byte"), "{text}");
    env.assert_nothing_left();
}

#[test]
fn an_images_volume_that_would_hide_the_pack_is_refused_and_one_of_systemd_left_out() {
    for hides in ["/service/.", "/srv/../service"] {
        let env = TestEnv::new();
        let layout = base_with(&env, json!({"Env": ["PATH=/bin"], "Volumes": {(hides): {}}}));
        let (code, text) = build_on_base(&env, &layout);
        assert_eq!(code, 65, "{text}");
        assert!(text.contains(&format!("Volumes \"{hides}\"")), "{text}");
    }
    let env = TestEnv::new();
    let volumes = json!({"/sys/fs/cgroup": {}, "/data/": {}});
    let layout = base_with(&env, json!({"Env": ["PATH=/bin"], "Volumes": volumes}));
    let (code, text) = build_on_base(&env, &layout);
    assert_eq!(code, 0, "{text}");
    env.ok(["setup", "-i", "x-base", "-t", "x", "--network", "none"]);
    let output = env.svp(["run", "-d", "--network", "none", "x"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("the image's volume at /sys/fs/cgroup is left out"), "{text}");
    let volumes = &info(&env, "x")["volumes"];
    assert_eq!((volumes.as_array().unwrap().len(), &volumes[0]["at"]), (1, &json!("/data")));
    env.ok(["rm", "--force", "--volumes", "x"]);
}
