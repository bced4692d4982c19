//! Messages, and the environment of scripts, from outside: every error has a hint, and no secret leaks.

use crate::support::{TestEnv, output, transcript};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1.36 ;; secrets) echo PW ;; esac\n";
const RUN: &str = "#!/bin/sh\nexec sleep 1000\n";

/// A place with busybox and a pack `p` whose `bin/build` is `build`.
fn place(build: &str) -> TestEnv {
    let place = TestEnv::new();
    place.import_busybox();
    place.write_pack("p", &[("bin/query", QUERY), ("bin/build", build), ("bin/run", RUN)]);
    place
}

const BUILD: [&str; 7] = ["build", "-b", "p", "-t", "p", "--base", "busybox"];

fn build(more: &[&'static str]) -> Vec<&'static str> {
    [&BUILD, more].concat()
}

#[test]
fn signals_end_what_a_script_starts() {
    let script = "#!/bin/sh\nfor s in TERM INT HUP; do sleep 100 & kill -$s $!; wait $!; echo \"$s $?\"; done\n\
                  kill -TERM $$\necho survived\n";
    let place = place(script);
    let said = place.fails(1, BUILD);
    assert!(said.contains("killed by signal 15 (SIGTERM)"), "{said}");
    // A shell without job control starts background jobs with SIGINT ignored.
    assert!(said.contains("TERM 143") && said.contains("HUP 129"), "{said}");
    assert!(!said.contains("survived"), "{said}");
    place.assert_nothing_left();
}

#[test]
fn what_a_script_says_of_a_secret_is_not_kept() {
    let place = place("#!/bin/sh\nset -x\necho \"it is $PW\" >&2\nprintf %s \"$PW\"\nexit 3\n");
    std::fs::write(place.path("pw"), "correct horse\n").unwrap();
    let all = ["--phase", "all", "--secret", "PW=@pw"];
    for progress in ["plain", "json", "quiet"] {
        let said = place.fails(1, build(&[&all[..], &["--progress", progress]].concat()));
        assert!(!said.contains("correct horse"), "{said}");
        assert!(said.contains("it is ***"), "{said}");
    }
    for log in std::fs::read_dir(place.store().join("logs")).unwrap() {
        let text = std::fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(text.contains("it is ***") && !text.contains("correct horse"), "{text}");
    }
    let said = place.fails(2, build(&["--phase", "all", "--secret", "PW=@nowhere"]));
    assert!(said.contains("nowhere") && said.contains("PW=@-"), "{said}");
}

#[test]
fn diagnostics_show_stages_and_no_secret() {
    let place = place("#!/bin/sh\n:\n");
    std::fs::write(place.path("pw"), "correct horse\n").unwrap();
    let mut command =
        place.svp([&["-vv"][..], &build(&["--phase", "all", "--secret", "PW=@pw"])].concat());
    let said = output(&mut command);
    let said = transcript(&command, &said);
    for expected in ["svp::sandbox", "stage run: ", "stage diff: ", "mount proc on "] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // The command prints the secret as data; diagnostics don't.
    let stderr = said.lines().filter(|line| line.contains(" svp::"));
    assert!(stderr.clone().count() > 10, "{said}");
    assert!(stderr.into_iter().all(|line| !line.contains("correct horse")), "{said}");
    place.assert_nothing_left();
}

#[test]
fn what_can_not_be_written_is_refused_before_any_work() {
    let place = place("#!/bin/sh\n:\n");
    std::fs::create_dir(place.path("dir")).unwrap();
    for (option, value) in [
        ("-o", "oci-archive:no/such/file.tar"),
        ("-o", "oci-archive:dir"),
        ("--metadata-file", "no/such/file.json"),
        ("--metadata-file", "dir"),
    ] {
        let said = place.fails(74, build(&[option, value]));
        assert!(!said.contains("running"), "{said}");
        assert!(said.contains(value.trim_start_matches("oci-archive:")), "{said}");
    }
    let said = place.fails(2, build(&["-o", "oci-archive:out.tar:p:latest"]));
    assert!(said.contains("-t gives"), "{said}");
    let mut late = place.svp(BUILD);
    let result = output(late.env("SOURCE_DATE_EPOCH", "999999999999"));
    let printed = transcript(&late, &result);
    assert!(result.status.code() == Some(2) && !printed.contains("running"), "{printed}");
    assert!(!place.ok(["images"]).contains("p  "));
}

#[test]
fn a_script_with_crlf_is_told_so() {
    let place = place("#!/bin/sh\r\n:\r\n");
    let said = place.fails(65, BUILD);
    assert!(said.contains("CRLF"), "{said}");
}

#[test]
fn wrong_arguments_tell_the_way_out() {
    let place = place("#!/bin/sh\n:\n");
    place.ok(BUILD);
    place.ok(["setup", "-i", "p", "-t", "one"]);
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
        let said = place.fails(code, arguments);
        assert!(said.contains("hint: ") && said.contains(hint), "{arguments:?}: {said}");
    }
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let place = place("#!/bin/sh\n:\n");
    let mut build =
        place.svp(["build", "-b", "p", "-t", "p", "--base", "docker://example.invalid/x"]);
    let result = output(build.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", ""));
    let printed = transcript(&build, &result);
    assert_eq!(result.status.code(), Some(69), "{printed}");
    assert!(printed.contains("HTTPS_PROXY") && printed.contains("--base"), "{printed}");
}

#[test]
fn of_several_that_set_up_one_name_one_does() {
    let place = place("#!/bin/sh\n[ $1 = base ] || sleep 1\n");
    place.ok(BUILD);
    let start = |_| {
        let mut setup = place.svp(["setup", "-i", "p", "-t", "one"]);
        setup.stdout(std::process::Stdio::piped()).spawn().expect("svp")
    };
    let ended: Vec<_> = (0..3).map(start).collect();
    let ended: Vec<_> = ended.into_iter().map(|s| s.wait_with_output().unwrap()).collect();
    let mut codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(2), Some(2)]);
    let said: Vec<_> = ended.iter().filter(|output| !output.stdout.is_empty()).collect();
    let secret = String::from_utf8(said[0].stdout.clone()).unwrap();
    let kept = place.ok(["setup", "-i", "p", "-t", "one", "--keep-secrets"]);
    assert_eq!((said.len(), secret), (1, kept));
    place.assert_nothing_left();
}

#[test]
fn both_orders_of_setup_make_the_same_tags() {
    let place = place("#!/bin/sh\n:\n");
    place.ok(BUILD);
    for (i, t) in [("p", "one"), ("two", "p"), ("three:v1", "p:latest")] {
        assert!(place.ok(["setup", "-b", "p", "-i", i, "-t", t]).starts_with("PW="));
    }
    let list = place.ok(["images", "--format", "json"]);
    let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
    let name = |i: &serde_json::Value| format!("{}:{}", i["repository"], i["tag"]).replace('"', "");
    let names: Vec<String> = list.iter().map(name).collect();
    let expected = ["busybox:latest", "one:latest", "p:latest", "three:v1", "two:latest"];
    assert_eq!(names, expected);
}

#[test]
fn the_base_is_named_the_same_from_wherever_it_is_taken() {
    let place = place("#!/bin/sh\n:\n");
    place.ok(build(&["--oci-dir", "layout"]));
    place.ok(["build", "-b", "p", "-t", "other", "--base", "oci:layout:p:latest"]);
    let printed = place.ok(["inspect", "other"]);
    assert!(printed.contains("org.opencontainers.image.base.name=p:latest\n"), "{printed}");
}

#[test]
fn progress_for_programs_is_json_to_the_end() {
    let place = place("#!/bin/sh\necho said; printf half; exit 7\n");
    let said = place.fails(1, build(&["--progress", "json"]));
    let events: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().any(|event| event["event"] == "output" && event["text"] == "half"));
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["exitCode"]), (&"error".into(), &1.into()));
    assert!(last["text"].as_str().unwrap().contains("exited with 7"), "{said}");
    assert!(last["hint"].as_str().unwrap().contains("/logs/"), "{said}");
}
