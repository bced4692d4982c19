//! Messages, and the environment of scripts, from outside: every error has a hint, and no secret leaks.

use crate::support::{TestEnv, output, transcript};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1.36 ;; secrets) echo PW ;; esac\n";
const RUN: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Returns an environment with busybox and a pack `p` whose `bin/build` is `build`.
fn env_with_pack(build: &str) -> TestEnv {
    let env = TestEnv::new();
    env.import_busybox();
    env.write_pack("p", &[("bin/query", QUERY), ("bin/build", build), ("bin/run", RUN)]);
    env
}

const BUILD: [&str; 7] = ["build", "-b", "p", "-t", "p", "--base", "busybox"];

fn build(more: &[&'static str]) -> Vec<&'static str> {
    [&BUILD, more].concat()
}

#[test]
fn signals_terminate_the_children_of_a_script() {
    let script = "#!/bin/sh\nfor s in TERM INT HUP; do sleep 100 & kill -$s $!; wait $!; echo \"$s $?\"; done\n\
                  kill -TERM $$\necho survived\n";
    let env = env_with_pack(script);
    let stderr = env.fails(1, BUILD);
    assert!(stderr.contains("killed by signal 15 (SIGTERM)"), "{stderr}");
    // A shell without job control starts background jobs with SIGINT ignored.
    assert!(stderr.contains("TERM 143") && stderr.contains("HUP 129"), "{stderr}");
    assert!(!stderr.contains("survived"), "{stderr}");
    env.assert_nothing_left();
}

#[test]
fn secrets_in_the_output_of_a_script_are_masked() {
    let env =
        env_with_pack("#!/bin/sh\nset -x\necho \"it is $PW\" >&2\nprintf %s \"$PW\"\nexit 3\n");
    std::fs::write(env.path("pw"), "correct horse\n").unwrap();
    let all = ["--phase", "all", "--secret", "PW=@pw"];
    for progress in ["plain", "json", "quiet"] {
        let stderr = env.fails(1, build(&[&all[..], &["--progress", progress]].concat()));
        assert!(!stderr.contains("correct horse"), "{stderr}");
        assert!(stderr.contains("it is ***"), "{stderr}");
    }
    for log in std::fs::read_dir(env.store().join("logs")).unwrap() {
        let text = std::fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(text.contains("it is ***") && !text.contains("correct horse"), "{text}");
    }
    let stderr = env.fails(2, build(&["--phase", "all", "--secret", "PW=@nowhere"]));
    assert!(stderr.contains("nowhere") && stderr.contains("PW=@-"), "{stderr}");
}

#[test]
fn diagnostics_show_stages_and_no_secret() {
    let env = env_with_pack("#!/bin/sh\n:\n");
    std::fs::write(env.path("pw"), "correct horse\n").unwrap();
    let mut command =
        env.svp([&["-vv"][..], &build(&["--phase", "all", "--secret", "PW=@pw"])].concat());
    let report = output(&mut command);
    let report = transcript(&command, &report);
    for expected in ["svp::sandbox", "stage run: ", "stage diff: ", "mount proc on "] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    // The command prints the secret as data; diagnostics don't.
    let stderr = report.lines().filter(|line| line.contains(" svp::"));
    assert!(stderr.clone().count() > 10, "{report}");
    assert!(stderr.into_iter().all(|line| !line.contains("correct horse")), "{report}");
    env.assert_nothing_left();
}

#[test]
fn unwritable_outputs_are_refused_before_any_work() {
    let env = env_with_pack("#!/bin/sh\n:\n");
    std::fs::create_dir(env.path("dir")).unwrap();
    for (option, value) in [
        ("-o", "oci-archive:no/such/file.tar"),
        ("-o", "oci-archive:dir"),
        ("--metadata-file", "no/such/file.json"),
        ("--metadata-file", "dir"),
    ] {
        let stderr = env.fails(74, build(&[option, value]));
        assert!(!stderr.contains("running"), "{stderr}");
        assert!(stderr.contains(value.trim_start_matches("oci-archive:")), "{stderr}");
    }
    let stderr = env.fails(2, build(&["-o", "oci-archive:out.tar:p:latest"]));
    assert!(stderr.contains("-t gives"), "{stderr}");
    let mut late = env.svp(BUILD);
    let result = output(late.env("SOURCE_DATE_EPOCH", "999999999999"));
    let printed = transcript(&late, &result);
    assert!(result.status.code() == Some(2) && !printed.contains("running"), "{printed}");
    assert!(!env.ok(["images"]).contains("p  "));
}

#[test]
fn a_script_with_crlf_is_reported() {
    let env = env_with_pack("#!/bin/sh\r\n:\r\n");
    let stderr = env.fails(65, BUILD);
    assert!(stderr.contains("CRLF"), "{stderr}");
}

#[test]
fn wrong_arguments_have_hints() {
    let env = env_with_pack("#!/bin/sh\n:\n");
    env.ok(BUILD);
    env.ok(["setup", "-i", "p", "-t", "one"]);
    for (code, arguments, hint) in [
        (2, &["query", "-b", "p", "bogus"][..], "use one of version, os"),
        (2, &["setup", "-i", "docker://p", "-t", "x"], "`svp build --base`"),
        (2, &["build", "-b", "p", "-t", "P"], "[REGISTRY/]REPOSITORY[:TAG]"),
        (2, &["build", "-b", "p", "-t", "p", "--base", "dir:x"], "oci-archive:FILE"),
        (2, &["copy", "p", "containers-storage:x"], "oci-archive:FILE"),
        (2, &["copy", "p", "docker-daemon:x:1"], "oci-archive:FILE"),
        (74, &["save", "p", "-o", "oci-archive:/dev/full"], "can't write /dev/full"),
        (2, &["setup", "-i", "p", "-t", "p", "--force"], "a name of its own"),
        (65, &["setup", "-i", "nope", "-t", "x"], "`svp build -b PACK -t nope`"),
        (65, &["setup", "-i", "one", "-t", "p"], "-i p -t one"),
        (65, &["setup", "-i", "busybox", "-t", "x"], "--base busybox"),
        (
            65,
            &["build", "-b", "p", "-t", "x", "--base", "one"],
            "the base image that it was set up on",
        ),
    ] {
        let stderr = env.fails(code, arguments);
        assert!(stderr.contains("hint: ") && stderr.contains(hint), "{arguments:?}: {stderr}");
    }
}

#[test]
fn an_unreachable_proxy_is_named() {
    let env = env_with_pack("#!/bin/sh\n:\n");
    let mut build =
        env.svp(["build", "-b", "p", "-t", "p", "--base", "docker://example.invalid/x"]);
    let result = output(build.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", ""));
    let printed = transcript(&build, &result);
    assert_eq!(result.status.code(), Some(69), "{printed}");
    assert!(printed.contains("HTTPS_PROXY") && printed.contains("--base"), "{printed}");
}

#[test]
fn one_of_several_concurrent_setups_of_a_name_succeeds() {
    let env = env_with_pack("#!/bin/sh\n[ $1 = base ] || sleep 1\n");
    env.ok(BUILD);
    let start = |_| {
        let mut setup = env.svp(["setup", "-i", "p", "-t", "one"]);
        setup.stdout(std::process::Stdio::piped()).spawn().expect("svp")
    };
    let ended: Vec<_> = (0..3).map(start).collect();
    let ended: Vec<_> = ended.into_iter().map(|s| s.wait_with_output().unwrap()).collect();
    let mut codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(2), Some(2)]);
    let printing: Vec<_> = ended.iter().filter(|output| !output.stdout.is_empty()).collect();
    let secret = String::from_utf8(printing[0].stdout.clone()).unwrap();
    let kept = env.ok(["setup", "-i", "p", "-t", "one", "--keep-secrets"]);
    assert_eq!((printing.len(), secret), (1, kept));
    env.assert_nothing_left();
}

#[test]
fn both_orders_of_setup_create_the_same_tags() {
    let env = env_with_pack("#!/bin/sh\n:\n");
    env.ok(BUILD);
    for (i, t) in [("p", "one"), ("two", "p"), ("three:v1", "p:latest")] {
        assert!(env.ok(["setup", "-b", "p", "-i", i, "-t", t]).starts_with("PW="));
    }
    let list = env.ok(["images", "--format", "json"]);
    let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
    let name = |i: &serde_json::Value| format!("{}:{}", i["repository"], i["tag"]).replace('"', "");
    let names: Vec<String> = list.iter().map(name).collect();
    let expected = ["busybox:latest", "one:latest", "p:latest", "three:v1", "two:latest"];
    assert_eq!(names, expected);
}

#[test]
fn the_base_name_does_not_depend_on_its_source() {
    let env = env_with_pack("#!/bin/sh\n:\n");
    env.ok(build(&["--oci-dir", "layout"]));
    env.ok(["build", "-b", "p", "-t", "other", "--base", "oci:layout:p:latest"]);
    let printed = env.ok(["inspect", "other"]);
    assert!(printed.contains("org.opencontainers.image.base.name=p:latest\n"), "{printed}");
}

#[test]
fn json_progress_is_json_to_the_end() {
    let env = env_with_pack("#!/bin/sh\necho said; printf half; exit 7\n");
    let stderr = env.fails(1, build(&["--progress", "json"]));
    let events: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().any(|event| event["event"] == "output" && event["text"] == "half"));
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["exitCode"]), (&"error".into(), &1.into()));
    assert!(last["text"].as_str().unwrap().contains("exited with 7"), "{stderr}");
    assert!(last["hint"].as_str().unwrap().contains("/logs/"), "{stderr}");
}
