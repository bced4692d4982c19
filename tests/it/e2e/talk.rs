//! Commands in a service: their input and output, the signals that svp gets, and their confinement.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::common::hello_service;
use crate::support::{TestEnv, output, success, transcript, wait_until};

/// Starts a shell script in the service; returns once it has printed "ready".
fn begin(env: &TestEnv, script: &str) -> Child {
    begin_with(env, ":", script)
}

/// Starts `script`; returns when `preparation` is done.
fn begin_with(env: &TestEnv, preparation: &str, script: &str) -> Child {
    let script = format!("{preparation}; echo ready; {script}");
    let mut child = env.svp(["exec", "h", "sh", "-c", &script]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// Waits until `child` ends; returns its exit code as a shell reports it.
#[track_caller]
fn code(child: &mut Child) -> i32 {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        }
        assert!(since.elapsed() < Duration::from_secs(20), "the command does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until no process in the service has `text` in its arguments.
#[track_caller]
fn nothing_runs(env: &TestEnv, text: &str) {
    let since = Instant::now();
    loop {
        let all = env.ok(["exec", "h", "ps", "-o", "args"]);
        if !all.contains(text) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "left behind:\n{all}");
    }
}

#[test]
fn a_service_reaches_no_host_files_through_svps_processes() {
    let env = TestEnv::new();
    hello_service(&env);
    env.ok(["stop", "h"]);
    // In the foreground svp's standard error is the caller's: a terminal, which the service could read.
    let log = env.path("stderr");
    let mut run = env.svp(["run", "h", "--name", "fg"]);
    run.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut run = run.spawn().unwrap();
    env.ok(["start", "--wait", "h"]);
    let joins_fg = || env.svp(["exec", "fg", "true"]).output().unwrap().status.success();
    wait_until("fg runs", joins_fg);
    let attack = "for fd in /proc/[0-9]*/fd/*; do readlink $fd; echo attacked 2>/dev/null >>$fd; \
        done; ls -l /proc/[0-9]*/cwd /proc/[0-9]*/root; true";
    for name in ["h", "fg"] {
        let links = env.ok(["exec", name, "sh", "-c", attack]);
        assert!(!links.contains(env.dir().to_str().unwrap()), "{links}");
    }
    for file in [log, env.store().join("services/h/monitor.log")] {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("attacked"), "{}: {text}", file.display());
    }
    // An inherited descriptor of a host directory is no way out either (CVE-2024-21626).
    for fd in 3..16 {
        let at = format!("/proc/self/fd/{fd}");
        let mut exec = env.svp(["exec", "-w", &at, "h", "sh", "-c", "cat ../../../etc/hostname"]);
        let result = output(&mut exec);
        assert!(!result.status.success(), "{}", transcript(&exec, &result));
    }
    send(&run, Signal::SIGTERM);
    code(&mut run);
    env.ok(["rm", "--force", "h", "fg"]);
    env.assert_nothing_left();
}

#[test]
fn a_signal_to_svp_reaches_the_whole_command() {
    let env = TestEnv::new();
    hello_service(&env);
    let script = "sleep 4711; true";
    for (signal, expected) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)]
    {
        let mut child = begin(&env, script);
        send(&child, signal);
        assert_eq!(code(&mut child), expected);
        nothing_runs(&env, "4711");
    }
    // A handler in the command decides the exit code.
    let mut child = begin_with(&env, "trap 'exit 9' TERM", "while :; do sleep 0.1; done");
    send(&child, Signal::SIGTERM);
    assert_eq!(code(&mut child), 9);
    // Killing svp kills the command and the processes that it has started.
    let mut child = begin(&env, script);
    send(&child, Signal::SIGKILL);
    assert_eq!(code(&mut child), 137);
    nothing_runs(&env, "4711");
    // nohup is respected.
    let mut nohup = env.command("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_svp")).args(["exec", "h", "sh", "-c", "sleep 2; echo alive"]);
    let mut nohup = nohup.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    send(&nohup, Signal::SIGHUP);
    assert_eq!(code(&mut nohup), 0);
    // When the service ends, the command ends too.
    let mut child = begin(&env, script);
    env.ok(["stop", "h"]);
    assert_eq!(code(&mut child), 137);
    env.ok(["rm", "h"]);
    env.assert_nothing_left();
}

#[test]
fn pipes_end_when_either_side_does() {
    let env = TestEnv::new();
    hello_service(&env);
    let big = env.path("big");
    std::fs::write(&big, vec![b'x'; 8 << 20]).unwrap();
    let svp = env!("CARGO_BIN_EXE_svp");
    let shell = |line: &str| {
        let mut shell = env.command("bash");
        shell.args(["-c", &line.replace("svp ", &format!("{svp} "))]);
        let since = Instant::now();
        let result = output(&mut shell);
        assert!(since.elapsed() < Duration::from_secs(20), "{line} took too long");
        String::from_utf8_lossy(&result.stdout).into_owned()
    };
    for (line, expected) in [
        ("svp exec h head -c 1 <big", "x"),
        ("yes | svp exec h head -n 1", "y\n"),
        ("svp exec h yes | head -n 1; echo ${PIPESTATUS[0]}", "y\n141\n"),
        ("svp exec h cat <big | (sleep 1; wc -c)", "8388608\n"),
        ("svp exec h cat <&-; echo $?", "0\n"),
        ("svp exec h cat </dev/null; echo $?", "0\n"),
        ("svp exec h sh -c 'echo lost; exit 3' >&-; echo $?", "3\n"),
        ("svp exec h sh -c 'echo err >&2; echo out' 2>&-", "out\n"),
        // A background process of the command may hold its output, and even print, forever.
        ("svp exec h sh -c 'sleep 60 & exit 5'; echo $?", "5\n"),
        (
            "svp exec h sh -c 'while echo y; do :; done & sleep 0.3; exit 5' | (sleep 1; tail -n 1)",
            "y\n",
        ),
    ] {
        assert_eq!(shell(line), expected, "{line}");
    }
    // No output is lost on a non-blocking pipe, as node.js creates them.
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    let mut cat = env.svp(["exec", "h", "cat"]);
    cat.stdin(File::open(&big).unwrap()).stdout(write);
    let mut child = cat.spawn().unwrap();
    drop(cat);
    std::thread::sleep(Duration::from_secs(1));
    let mut all = Vec::new();
    read.read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), code(&mut child)), (8 << 20, 0));
    // Fifty commands at once.
    let mut many: Vec<_> = (0..50)
        .map(|_| {
            let mut one = env.svp(["exec", "h", "cat"]);
            one.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (n, one) in many.iter_mut().enumerate() {
        write!(one.stdin.take().unwrap(), "{n}").unwrap();
    }
    for (n, one) in many.into_iter().enumerate() {
        let result = one.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&result.stdout), n.to_string());
    }
    env.ok(["rm", "--force", "h"]);
}

#[test]
fn arguments_arrive_unchanged_and_mistakes_have_hints() {
    let env = TestEnv::new();
    hello_service(&env);
    let each = "for a; do echo \"[$a]\"; done";
    let stdout =
        env.ok(["exec", "h", "--", "sh", "-c", each, "sh", "a b", "", "--help", "-e", "*"]);
    assert_eq!(stdout, "[a b]\n[]\n[--help]\n[-e]\n[*]\n");
    let stdout = env.ok(["shell", "h", "-c", each, "sh", "-h", "--", "--version"]);
    assert_eq!(stdout, "[-h]\n[--]\n[--version]\n");
    assert_eq!(env.ok(["shell", "-c", "h", "--", "-c", "echo $HELLO_PORT"]), "8080\n");
    let help = env.ok(["extra", "h", "help"]);
    assert!(help.starts_with("greet TEXT: "), "{help}");
    assert_eq!(env.ok(["extra", "h"]), help);
    let printed = env.fails(2, ["extra", "h", "nothing", "--help"]);
    assert!(printed.contains("no command nothing"), "{printed}");
    // A directory of that name is not a command.
    let printed = env.fails(127, ["exec", "h", "bin"]);
    assert!(printed.contains("can't run bin in the container: no such file"), "{printed}");
    let printed = env.fails(126, ["exec", "-w", "/nowhere", "h", "pwd"]);
    assert!(printed.contains("the directory /nowhere does not exist"), "{printed}");
    // Users, as with podman exec --user.
    env.ok([
        "exec",
        "h",
        "sh",
        "-c",
        "echo web:x:33:34::/home/web:/bin/sh >>/etc/passwd; \
        echo web:x:34: >>/etc/group; echo log:x:35:web >>/etc/group",
    ]);
    let as_user = |user: &str| {
        let script = "echo $(id -u) $(id -g) $(id -G) $HOME; grep CapEff /proc/self/status";
        let stdout = env.ok(["exec", "--user", user, "h", "sh", "-c", script]);
        stdout.replace("CapEff:\t0000000000000000\n", "none")
    };
    if env.ok(["exec", "h", "cat", "/proc/self/uid_map"]).lines().count() > 1
        || env.ok(["exec", "h", "cat", "/proc/self/uid_map"]).trim().ends_with("65536")
    {
        assert_eq!(as_user("web"), "33 34 34 35 /home/web\nnone");
        assert_eq!(as_user("33:0"), "33 0 0 /home/web\nnone");
        assert_eq!(as_user("1000"), "1000 0 0 /\nnone");
    }
    let printed = env.fails(125, ["exec", "-u", "nobody-such", "h", "id"]);
    assert!(printed.contains("the service has no user \"nobody-such\""), "{printed}");
    // Scripts that the pack lacks, or that the service has removed.
    env.ok(["exec", "h", "rm", "/service/bin/client", "/bin/sh"]);
    let printed = env.fails(127, ["client", "h"]);
    assert!(
        printed.contains("/service/bin/client") && printed.contains("`svp shell h`"),
        "{printed}"
    );
    let printed = env.fails(127, ["shell", "h"]);
    assert!(printed.contains("`svp exec h -- COMMAND`"), "{printed}");
    env.ok(["stop", "h"]);
    let printed = env.fails(125, ["shell", "h"]);
    assert!(printed.contains("`svp start h`"), "{printed}");
    env.ok(["rm", "h"]);
}

#[test]
fn the_callers_environment_and_settings_stay_outside() {
    let env = TestEnv::new();
    hello_service(&env);
    let script = "env | sort; umask; cat /proc/self/oom_score_adj; id -G; tty; ls /proc/self/fd";
    let exec = env.svp(["exec", "h", "sh", "-c", script]);
    let mut wrapped = env.command("bash");
    wrapped.args(["-c", "umask 077; exec \"$@\" 7</etc/passwd", "bash"]);
    wrapped.arg(exec.get_program()).args(exec.get_args());
    wrapped.env("CALLERS_SECRET", "x").env("TERM", "vt220");
    let result = output(&mut wrapped);
    let text = transcript(&wrapped, &result);
    let stdout = String::from_utf8_lossy(&result.stdout);
    assert!(!stdout.contains("CALLERS_SECRET"), "{text}");
    assert!(stdout.contains("HELLO_PASSWORD=") && stdout.contains("TERM=vt220"), "{text}");
    assert!(stdout.contains("\n0022\n"), "{text}");
    // The limits are the service's.
    let limits = |before: &str| {
        let mut shell = env.command("bash");
        shell.args(["-c", &format!("{before}; exec \"$0\" exec h sh -c 'cat /proc/self/limits'")]);
        success(shell.arg(env!("CARGO_BIN_EXE_svp")))
    };
    assert_eq!(limits("ulimit -Sn 60 -Sc 7"), limits("true"));
    // Descriptor 3 is the directory that ls reads.
    assert!(stdout.ends_with("not a tty\n0\n1\n2\n3\n"), "{text}");
    env.ok(["rm", "--force", "h"]);
}
