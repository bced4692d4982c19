//! The standard streams opened by name: `/dev/stdin`, `/dev/stdout`, `/dev/stderr`, in every kind of script, as root of
//! the container and as another of its users.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::e2e::common::{build, pack_with};
use crate::e2e::run::{code, instance};
use crate::support::{TestEnv, output, transcript, wait_until};

/// Writes to both outputs by each of their names, and reads standard input by its names.
const STREAMS: &str = "set -eu
    echo one >/dev/stdout
    echo two >>/dev/stderr
    echo three >/proc/self/fd/1
    ln -sf /dev/stderr /tmp/error.log
    echo four >>/tmp/error.log
    cat /dev/stdin </dev/null
    su -s /bin/sh nobody -c 'echo five >/dev/stdout; echo six >>/dev/stderr'";
const LINES: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;;\n\
    health) echo 'echo sick >/dev/stderr; test -e /tmp/well';; esac\n";

#[track_caller]
fn assert_lines(text: &str) {
    for line in LINES {
        assert!(text.lines().any(|found| found.ends_with(line)), "no {line} in:\n{text}");
    }
}

fn script(rest: &str) -> String {
    format!("#!/bin/sh\n{STREAMS}\n{rest}\n")
}

#[test]
fn a_build_opens_its_streams_by_name() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "pack", STREAMS);
    let mut arguments = vec!["--progress", "plain"];
    arguments.extend(build(&pack, "it"));
    let mut svp = env.svp(arguments);
    let output = output(&mut svp);
    assert!(output.status.success(), "{}", transcript(&svp, &output));
    assert_lines(&String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_service_and_its_scripts_open_their_streams_by_name() {
    let env = TestEnv::new();
    env.import_busybox();
    let (build, run) = (script("rm /tmp/error.log"), script("exec sleep 1000"));
    let (echo, backup) = (script("cat /dev/stdin"), script("cat /etc/state >/dev/stdout"));
    let restore = script("cat /dev/stdin | grep -v '^[a-z]*$' >/etc/state");
    let files = [
        ("bin/query", QUERY),
        ("bin/build", &build),
        ("bin/run", &run),
        ("bin/client", &echo),
        ("bin/extra", &echo),
        ("bin/backup", &backup),
        ("bin/restore", &restore),
    ];
    let pack = env.write_pack("pack", &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "base", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "base", "-t", "s", "--network", "none"]);
    env.ok(["run", "-d", "s", "--network", "none"]);
    wait_until("all lines are in the log", || {
        let logs = output(&mut env.svp(["logs", "s"]));
        let all = [&logs.stdout[..], &logs.stderr[..]].concat();
        LINES.iter().all(|line| String::from_utf8_lossy(&all).lines().any(|found| found == *line))
    });
    for command in ["client", "extra"] {
        let mut svp = env.svp([command, "s"]);
        svp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = svp.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", transcript(&svp, &output));
        let all = [&output.stdout[..], &output.stderr[..]].concat();
        assert_lines(&String::from_utf8_lossy(&all));
        assert!(output.stdout.ends_with(b"typed\n"), "{}", transcript(&svp, &output));
    }
    // The words of the health command arrive, too.
    let mut svp = env.svp(["health", "s"]);
    let sick = output(&mut svp);
    assert!(!sick.status.success(), "{}", transcript(&svp, &sick));
    let all = [&sick.stdout[..], &sick.stderr[..]].concat();
    assert!(String::from_utf8_lossy(&all).contains("sick"), "{}", transcript(&svp, &sick));

    env.ok(["exec", "s", "--", "sh", "-c", "echo 'state 1' >/etc/state; touch /tmp/well"]);
    let file = env.path("s.backup");
    let file = file.to_str().unwrap();
    env.ok(["backup", "s", "-o", file, "--compression", "none"]);
    let backup = std::fs::read(file).unwrap();
    assert!(String::from_utf8_lossy(&backup).contains("one\nthree\nfive\nstate 1\n"));
}

#[test]
fn a_user_of_the_container_opens_the_streams_of_exec_by_name() {
    let env = TestEnv::new();
    instance(&env, "s", QUERY, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "s", "--network", "none"]);
    let script = "id -u; cat /dev/stdin; echo out >/dev/stdout; exec 3<>/dev/stderr; echo err >&3";
    let mut svp = env.svp(["exec", "--user", "33:33", "s", "--", "sh", "-ec", script]);
    svp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = svp.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = transcript(&svp, &output);
    assert!(output.status.success(), "{text}");
    assert_eq!(output.stdout, b"33\ntyped\nout\n", "{text}");
    assert_eq!(output.stderr, b"err\n", "{text}");
}

#[test]
fn the_callers_own_files_keep_their_owner_and_mode() {
    use std::os::unix::fs::MetadataExt;
    let env = TestEnv::new();
    instance(&env, "s", QUERY, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "s", "--network", "none"]);
    let (input, result) = (env.path("input"), env.path("result"));
    std::fs::write(&input, "typed\n").unwrap();
    let fifo = env.path("fifo");
    crate::support::run("mkfifo", ["-m", "600", fifo.to_str().unwrap()]);
    let facts = |path: &std::path::Path| {
        let meta = path.metadata().unwrap();
        (meta.uid(), meta.gid(), meta.mode())
    };
    let null = facts("/dev/null".as_ref());
    let before = (facts(&input), facts(&fifo));
    let mut svp = env.svp(["exec", "--user", "33", "s", "--", "cat", "/dev/stdin"]);
    svp.stdin(std::fs::File::open(&input).unwrap());
    svp.stdout(std::fs::File::create(&result).unwrap());
    // Open for both, so that neither end waits for the other.
    let errors = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    svp.stderr(errors);
    assert!(svp.status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&result).unwrap(), "typed\n");
    assert_eq!((facts(&input), facts(&fifo)), before);
    assert_eq!(facts(&result).0, before.0.0);
    env.ok(["exec", "s", "--", "true"]);
    assert_eq!(facts("/dev/null".as_ref()), null);
}

/// A container that opens svp's end of its output by name and reads it must not keep svp waiting.
#[test]
fn a_command_that_reads_its_own_output_does_not_block_svp() {
    let env = TestEnv::new();
    let thief = "#!/bin/sh\n(cat /proc/self/fd/1 >/dev/null 2>&1 &)\n\
        for n in $(seq 200); do echo $n; done\n";
    instance(&env, "s", QUERY, thief, "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "s", "--network", "none"]);
    let began = Instant::now();
    for _ in 0..10 {
        let script =
            "(cat /proc/self/fd/1 >/dev/null 2>&1 &) ; for n in $(seq 200); do echo $n; done";
        assert_eq!(code(&env, &["exec", "s", "--", "sh", "-c", script]), 0);
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
