//! A script and a query of a pack have bounds: time, memory, processes, /dev/shm and log.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::{QUERY, build, pack_with};
use crate::support::{TestEnv, as_root, output, processes_with, transcript};

/// Starts processes until that fails, and prints how many there were.
const FILL: &str = "n=0\nwhile [ $n -lt 20000 ]; do sleep 77 & n=$((n+1)); echo $n >/count; done";

/// Returns whether this host can limit memory for this user, as `svp check` reports.
fn has_cgroups(env: &TestEnv) -> bool {
    let check: Value = serde_json::from_str(&env.ok(["check", "--format", "json"])).unwrap();
    let found = check.as_array().unwrap().iter().find(|one| one["what"] == "resources").unwrap();
    found["ok"].as_bool().unwrap()
}

/// Builds with further arguments; returns the exit code, the whole output and the time that it took.
fn try_build(env: &TestEnv, script: &str, more: &[&str]) -> (i32, String, Duration) {
    let name = format!("p{:08x}", rand::random::<u32>());
    let pack = pack_with(env, &name, script);
    let mut command = env.svp(build(&pack, &name).into_iter().chain(more.iter().copied()));
    let since = Instant::now();
    let result = output(&mut command);
    let took = since.elapsed();
    (result.status.code().unwrap(), transcript(&command, &result), took)
}

fn with_busybox() -> TestEnv {
    let env = TestEnv::new();
    env.import_busybox();
    env
}

#[test]
fn a_fork_bomb_in_a_build_has_as_many_processes_as_pids_allows() {
    let env = with_busybox();
    for (more, most) in [(&["--pids", "60"][..], 60), (&[][..], 4096)] {
        let script = format!("trap 'read n </count; echo $n; exit 9' EXIT\n{FILL}");
        let (code, text, _) = try_build(&env, &script, more);
        assert_ne!(code, 0, "{text}");
        let count = text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        let count = count.max().unwrap_or_else(|| panic!("{text}"));
        // The shell is one of them.
        assert!((most - 10..most).contains(&count), "{count} of {most}: {text}");
        assert!(
            text.contains(&format!("all the {most} processes and threads that --pids allows")),
            "{text}"
        );
        env.assert_nothing_left();
    }
    // A true bomb, which waits for its end in the background.
    let bomb = "b() { b | b & }\nb\nsleep 60";
    let (code, text, took) = try_build(&env, bomb, &["--pids", "100", "--timeout", "3s"]);
    assert!(code == 124 || code == 1, "{text}");
    assert!(took < Duration::from_secs(25), "{took:?}");
    env.assert_nothing_left();
}

#[test]
fn many_users_do_not_have_more_processes_together() {
    let env = with_busybox();
    // The kernel allows each user the default number; svp counts them together.
    let script = "mkdir -p /etc\nusers='1 2 3 4 5'\nfor u in $users; do echo u$u:x:$u:$u::/:/bin/sh >>/etc/passwd; done\n\
        for u in $users; do\n\
        su u$u -s /bin/sh -c 'n=0; while [ $n -lt 1000 ]; do sleep 78 & n=$((n+1)); done; sleep 78' &\ndone\n\
        sleep 40";
    let (code, text, took) = try_build(&env, script, &[]);
    assert_eq!(code, 1, "{text}");
    assert!(took < Duration::from_secs(35), "{took:?}: {text}");
    assert!(text.contains("more than 4096 processes and threads"), "{text}");
    env.assert_nothing_left();
    // As many as are allowed are no fault.
    let fewer = script.replace("sleep 40", "sleep 3").replace("-lt 1000", "-lt 500");
    let (code, text, _) = try_build(&env, &fewer, &[]);
    assert_eq!(code, 0, "{text}");
    // With a bound of the user's, in a cgroup if there is one.
    let (_, text, _) =
        try_build(&env, &script.replace("sleep 40", "sleep 3; exit 4"), &["--pids", "600"]);
    assert!(text.contains("600 processes and threads"), "{text}");
    env.assert_nothing_left();
}

#[test]
fn a_fork_bomb_in_setup_and_in_queries_is_bounded() {
    let env = with_busybox();
    let setup = format!("#!/bin/sh\n[ $1 = setup ] || exit 0\n{FILL}\n");
    let pack = env.write_pack("setup", &[("bin/query", QUERY), ("bin/build", &setup)]);
    env.ok(build(&pack, "base"));
    let text =
        env.fails(1, ["setup", "-i", "base", "-t", "one", "--network", "none", "--pids", "50"]);
    assert!(text.contains("that --pids allows") && text.contains("build setup"), "{text}");
    env.assert_nothing_left();
    // In a query on the host: by one user, whom the kernel stops.
    let query = format!("#!/bin/sh\n{}\necho busybox/1\n", FILL.replace("/count", "/tmp/count"));
    let pack = env.write_pack("bomb", &[("bin/query", &query), ("bin/build", "#!/bin/sh\n")]);
    let since = Instant::now();
    for arguments in [&["query", "-b", pack.to_str().unwrap(), "os"][..], &build(&pack, "bomb")] {
        let text = env.fails(65, arguments);
        assert!(text.contains("bin/query"), "{text}");
        assert!(since.elapsed() < Duration::from_secs(60), "{text}");
    }
    env.assert_nothing_left();
    // In a query in the image.
    let both = "#!/bin/sh\nif [ -e /built ]; then b() { b | b & }; b; sleep 60; fi\n[ $1 != os ] || echo busybox/1\n";
    let pack =
        env.write_pack("both", &[("bin/query", both), ("bin/build", "#!/bin/sh\n>/built\n")]);
    env.ok(build(&pack, "both"));
    let text = env.fails(65, ["setup", "-i", "both", "-t", "two", "--network", "none"]);
    assert!(text.contains("bin/query"), "{text}");
    env.assert_nothing_left();
}

#[test]
fn a_query_has_bounded_memory() {
    let env = TestEnv::new();
    let hogs = [
        // Memory of one process.
        "head -c 4000000000 /dev/zero | tail -c 3900000000 | wc -c",
        // Files in memory: where a query may write.
        "for d in /tmp /dev/shm / /dev; do head -c 2000000000 /dev/zero >$d/big && echo FILLED; done",
        // Memory of several processes together.
        "for i in 1 2 3 4 5 6; do (head -c 900000000 /dev/zero | tail -c 400000000; sleep 15) >/dev/null & done; sleep 15",
    ];
    for hog in hogs {
        let query = format!("#!/bin/sh\n{hog}\nexit 3\n");
        let pack = env.write_pack("hog", &[("bin/query", &query), ("bin/build", "#!/bin/sh\n")]);
        let text = env.fails(65, ["query", "-b", pack.to_str().unwrap(), "os"]);
        assert!(!text.contains("FILLED"), "{text}");
        if hog.starts_with("for i") {
            assert!(text.contains("more than 1 GiB of memory"), "{text}");
        }
        env.assert_nothing_left();
    }
}

#[test]
fn the_kernel_ends_a_script_over_its_memory() {
    let env = with_busybox();
    let hog = "head -c 300000000 /dev/zero | tail -c 250000000 >/dev/null; echo after $?";
    let (code, text, _) = try_build(&env, &format!("{hog}; exit 4"), &["--memory", "64m"]);
    if !has_cgroups(&env) {
        assert_eq!(code, 77, "{text}");
        assert!(
            text.contains("--memory can't be enforced here") && text.contains("hint: "),
            "{text}"
        );
        assert!(text.contains("or omit --memory"), "{text}");
        assert!(!as_root() || !std::path::Path::new("/sys/fs/cgroup/memory").is_dir());
        return;
    }
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("killed by the kernel: over --memory 64m"), "{text}");
    // The script itself, and a file in memory.
    let (code, text, _) = try_build(
        &env,
        "head -c 300000000 /dev/zero >/dev/shm/x",
        &["--memory", "64m", "--shm-size", "1g"],
    );
    assert!(code == 1 && text.contains("over --memory 64m"), "{text}");
    // A script that ignores it succeeds, with a warning.
    let (code, text, _) = try_build(&env, hog, &["--memory", "64m", "--progress", "quiet"]);
    assert!(code == 0 && text.contains("files may be incomplete"), "{text}");
    // A script that goes on without the processes that it was refused.
    let script = format!("(\n{FILL}\n) 2>/dev/null\nexit 0");
    let (code, text, _) = try_build(&env, &script, &["--pids", "30"]);
    assert!(code == 0 && text.contains("had all the 30 processes"), "{text}");
    // Enough is no fault.
    let (code, text, _) = try_build(&env, "echo fine", &["--memory", "64m", "--pids", "20"]);
    assert!(code == 0 && !text.contains("--memory ("), "{text}");
    env.assert_nothing_left();
}

#[test]
fn a_script_ends_after_its_timeout_with_all_that_it_started() {
    let env = with_busybox();
    let mark = format!("{}", rand::random_range(100_000..900_000));
    let scripts = [
        format!("sleep {mark}"),
        // Detached: another session, and a grandchild of init.
        format!(
            "setsid sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) & wait; sleep {mark}"
        ),
        format!("trap '' TERM INT HUP; while :; do sleep {mark} & wait $!; done"),
        // Output without an end.
        "while :; do echo more; done".to_owned(),
    ];
    for script in scripts {
        let (code, text, took) = try_build(&env, &script, &["--timeout", "1500ms"]);
        assert_eq!(code, 124, "{text}");
        assert!(text.contains("ran for longer than --timeout 1.5s"), "{text}");
        assert!(text.contains("hint: ") && text.contains(".log"), "{text}");
        assert!((1..12).contains(&took.as_secs()), "{took:?}");
        assert_eq!(processes_with(&mark), Vec::<String>::new());
        env.assert_nothing_left();
    }
    // Nobody reads svp's output: the script ends all the same.
    let pack = pack_with(
        &env,
        "unread",
        "while :; do echo 0123456789012345678901234567890123456789; done",
    );
    let mut unread = env.svp(build(&pack, "unread").into_iter().chain(["--timeout", "1s"]));
    let child = unread.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    // Its own threads alone.
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    for stage in children.split_whitespace() {
        let below =
            std::fs::read_to_string(format!("/proc/{stage}/task/{stage}/children")).unwrap();
        assert_eq!(below, "", "{children}");
    }
    let result = child.wait_with_output();
    assert_eq!(result.unwrap().status.code(), Some(124));
    // In time.
    let (code, text, _) = try_build(&env, "sleep 0.1", &["--timeout", "1h"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(env.ok(["images"]).lines().count(), 3);
}

#[test]
fn a_long_output_leaves_a_short_log() {
    let env = with_busybox();
    let script = "echo first line; i=0\nhead -c 40000000 /dev/zero | tr '\\0' x | fold -w 100; echo; echo last line; exit 3";
    let (code, text, _) = try_build(&env, script, &[]);
    assert_eq!(code, 1);
    // The live output is whole.
    assert!(text.len() > 40_000_000, "{}", text.len());
    let end = &text[text.len() - 3000..];
    assert!(end.contains("the start and the end of its output are in"), "{end}");
    assert_eq!(text.matches("left out of").count(), 1, "{end}");
    let log = end.split_whitespace().find(|word| word.ends_with(".log")).unwrap();
    let kept = std::fs::read_to_string(log).unwrap();
    assert!((12_000_000..17_000_000).contains(&kept.len()), "{}", kept.len());
    assert!(kept.starts_with("first line\n") && kept.ends_with("last line\n"));
    assert_eq!(kept.matches(" bytes are left out here]\n").count(), 1);
    // Other sizes: a plain number is in MB.
    for (size, least, most) in [("2m", 2_090_000, 2_098_200), ("1", 900_000, 1_001_000)] {
        let script = "head -c 3000000 /dev/zero | tr '\\0' x";
        let (code, text, _) = try_build(&env, script, &["--log-size", size, "-q"]);
        assert_eq!(code, 0, "{text}");
        let sizes = std::fs::read_dir(env.store().join("logs")).unwrap();
        let smallest = sizes.map(|log| log.unwrap().metadata().unwrap().len()).min().unwrap();
        assert!((least..most).contains(&smallest), "{smallest}");
    }
}

#[test]
fn dev_shm_has_the_size_that_is_given() {
    let env = with_busybox();
    let script = "df -k /dev/shm | tail -n 1; head -c 90000000 /dev/zero >/dev/shm/x || exit 7";
    let (code, text, _) = try_build(&env, script, &[]);
    assert!(code == 1 && text.contains("exited with 7") && text.contains(" 65536 "), "{text}");
    let (code, text, _) = try_build(&env, script, &["--shm-size", "100m"]);
    assert!(code == 0 && text.contains(" 102400 "), "{text}");
}

#[test]
fn invalid_bounds_are_refused() {
    let env = TestEnv::new();
    let pack = pack_with(&env, "p", "");
    for (option, bad) in [
        ("--timeout", "0"),
        ("--timeout", "soon"),
        ("--memory", "1m"),
        ("--pids", "0"),
        ("--shm-size", "1"),
        ("--log-size", "0"),
        ("--log-size", "16q"),
        ("--log-size", "1k"),
    ] {
        let error = env.fails(2, build(&pack, "p").into_iter().chain([option, bad]));
        assert!(error.contains(option), "{error}");
    }
}
