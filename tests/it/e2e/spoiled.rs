//! Services that try to spoil the commands that act on them: each command works, or ends soon with its reason.

use std::time::{Duration, Instant};

use super::run::{code, info};
use crate::support::{TestEnv, output, transcript};

const QUERY: &str =
    "#!/bin/sh\ncase $1 in os) echo busybox/1;; health) echo /service/bin/client ping;; esac\n";
const RUN: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 1000 & wait\n";

/// Runs an instance `s` of a pack with a client, on the image `base`.
fn service(env: &TestEnv, base: &str, run: &str) {
    let client = "#!/bin/sh\necho client \"$@\"\n";
    let files = [
        ("bin/query", QUERY),
        ("bin/build", "#!/bin/sh\n"),
        ("bin/run", run),
        ("bin/client", client),
        ("bin/backup", "#!/bin/sh\necho data\n"),
        ("bin/restore", "#!/bin/sh\ncat\n"),
    ];
    let pack = env.write_pack("pack", &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "s-base", "--base", base, "--network", "none"]);
    env.ok(["setup", "-i", "s-base", "-t", "s", "--network", "none"]);
    env.ok(["run", "-d", "--network", "none", "s"]);
}

fn simple(env: &TestEnv) {
    env.import_busybox();
    service(env, "busybox", RUN);
}

/// Runs svp, which must fail with `code` within `seconds`; returns its output.
#[track_caller]
fn fails_within(env: &TestEnv, seconds: u64, code: i32, arguments: &[&str]) -> String {
    let since = Instant::now();
    let mut command = env.command("timeout");
    command.args(["100", env!("CARGO_BIN_EXE_svp")]).args(arguments);
    let done = output(&mut command);
    assert_eq!(done.status.code(), Some(code), "{}", transcript(&command, &done));
    assert!(since.elapsed() < Duration::from_secs(seconds), "{arguments:?}: {:?}", since.elapsed());
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

#[track_caller]
fn ok_within(env: &TestEnv, seconds: u64, arguments: &[&str]) -> String {
    let since = Instant::now();
    let printed = env.ok(arguments);
    assert!(since.elapsed() < Duration::from_secs(seconds), "{arguments:?}: {:?}", since.elapsed());
    printed
}

#[test]
fn limits_of_svps_processes_do_not_reach_exec_and_health() {
    let env = TestEnv::new();
    env.import_debian();
    service(&env, "debian:bookworm", RUN);
    let limits = || env.ok(["exec", "s", "sh", "-c", "ulimit -a"]);
    let before = limits();
    // Process 1, and the component init.
    for (pid, limit) in [
        ("1", "--nofile=0:0"),
        ("1", "--nproc=0:0"),
        ("1", "--fsize=0:0"),
        ("1", "--stack=0:0"),
        ("1", "--core=0:0"),
        ("1", "--cpu=100:100"),
        ("2", "--nofile=0:0"),
        ("2", "--nproc=0:0"),
        ("2", "--fsize=0:0"),
        // Without memory, process 1 can do nothing more; it must only be there.
        ("1", "--as=0:0"),
        ("1", "--data=0:0"),
    ] {
        env.ok(["exec", "s", "prlimit", "--pid", pid, limit]);
        let printed = ok_within(&env, 20, &["exec", "s", "sh", "-c", "echo x >/tmp/f; ls /"]);
        assert!(printed.contains("service"), "{pid} {limit}: {printed}");
        assert_eq!(limits(), before, "{pid} {limit}");
        ok_within(&env, 20, &["health", "s"]);
        assert_eq!(ok_within(&env, 20, &["client", "s", "x"]), "client x\n", "{pid} {limit}");
    }
    assert_eq!(info(&env, "s")["status"], "running");
    ok_within(&env, 30, &["backup", "s", "-o", "b"]);
    ok_within(&env, 30, &["stop", "-t", "2", "s"]);
    ok_within(&env, 30, &["start", "s"]);
    ok_within(&env, 20, &["health", "s"]);
    env.ok(["rm", "--force", "s"]);
    std::fs::remove_file(env.path("b")).unwrap();
    env.assert_nothing_left();
}

#[test]
fn exec_has_the_stand_in_for_devices_and_leads_nowhere_else() {
    let env = TestEnv::new();
    simple(&env);
    let name = format!("svp-probe-{:08x}", rand::random::<u32>());
    let script = format!(
        "set -e
        mkdir -p /t/in /t/root/in; cd /t
        mknod null c 1 3; mknod -m 640 in/sda b 8 0; mknod /t/abs c 1 5
        ln -s /etc host; ln -s ../../../../../../etc up; ln -s /proc/self/root magic; ln -s /t/in here
        mknod host/{name}-1 c 1 3; mknod up/{name}-2 c 1 3; mknod here/through c 1 3
        mknod ../../../../../../../../etc/{name}-3 c 1 3
        mknod /proc/self/root/etc/{name}-4 c 1 3 2>/dev/null || true
        mknod /proc/self/cwd/{name}-5 c 1 3 2>/dev/null || true
        cp /bin/busybox root/; ln -s / root/in/slash
        chroot root /busybox mknod /inside c 1 3
        chroot root /busybox mknod in/../below c 1 3
        chroot root /busybox mknod ../../../../etc/{name}-6 c 1 3 2>/dev/null || true
        refused() {{ ! \"$@\" 2>/dev/null; }}
        refused mknod null c 1 3
        refused mknod whiteout c 0 0
        refused mknod /nowhere/x c 1 3
        refused su nobody -s /bin/sh -c 'mknod /tmp/x c 1 3'
        find /t -type f ! -name busybox | sort; ls /etc | sort"
    );
    let printed = env.ok(["exec", "s", "--", "sh", "-c", &script]);
    for part in [
        "/t/null\n",
        "/t/in/sda\n",
        "/t/abs\n",
        "/t/in/through\n",
        "/t/root/inside\n",
        "/t/root/below\n",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    for n in 1..=3 {
        assert!(printed.contains(&format!("{name}-{n}\n")), "{n}: {printed}");
    }
    // Nothing of it is on the host.
    for dir in ["/etc", "/", "/t", "/tmp", "/proc/self/cwd"] {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in names {
            let found = entry.file_name().to_string_lossy().into_owned();
            assert!(!found.contains(&name), "{dir}/{found}");
        }
    }
    let mode = env.ok(["exec", "s", "stat", "-c", "%a", "/t/in/sda"]);
    assert_eq!(mode, "640\n");
    // A user of the container has no right to devices.
    let refused = code(&env, &["exec", "--user", "1000", "s", "mknod", "/tmp/x", "c", "1", "3"]);
    assert_eq!(refused, 1);
    env.ok(["rm", "--force", "s"]);
    env.assert_nothing_left();
}

#[test]
fn without_the_packs_directory_exec_works_and_the_rest_says_why_not() {
    let env = TestEnv::new();
    simple(&env);
    env.ok(["exec", "s", "sh", "-c", "mv /service /elsewhere; test ! -e /service"]);
    assert_eq!(ok_within(&env, 20, &["exec", "s", "pwd"]), "/\n");
    assert_eq!(ok_within(&env, 20, &["exec", "s", "/elsewhere/bin/client", "x"]), "client x\n");
    let printed = fails_within(&env, 20, 126, &["exec", "-w", "/service", "s", "true"]);
    assert!(printed.contains("the directory /service does not exist"), "{printed}");
    let printed = fails_within(&env, 20, 127, &["client", "s"]);
    assert!(printed.contains("/service/bin/client") && printed.contains("removed it"), "{printed}");
    let printed = fails_within(&env, 30, 1, &["health", "s"]);
    assert!(printed.contains("/service/bin/client"), "{printed}");
    let printed = fails_within(&env, 30, 127, &["backup", "s", "-o", "b"]);
    assert!(printed.contains("/service/bin/backup"), "{printed}");
    assert!(!env.path("b").exists());
    ok_within(&env, 30, &["stop", "-t", "2", "s"]);
    env.ok(["rm", "s"]);
    env.assert_nothing_left();
}

#[test]
fn a_service_without_a_shell_or_with_closed_directories_is_told_apart() {
    let env = TestEnv::new();
    simple(&env);
    env.ok([
        "exec",
        "s",
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/shm/full bs=64k 2>/dev/null || true",
    ]);
    env.ok(["exec", "s", "sh", "-c", "chmod 000 / /service /tmp"]);
    assert_eq!(ok_within(&env, 20, &["exec", "s", "echo", "in"]), "in\n");
    ok_within(&env, 20, &["health", "s"]);
    let printed = fails_within(&env, 20, 126, &["exec", "--user", "1000", "s", "/bin/echo", "in"]);
    assert!(printed.contains("ermission denied"), "{printed}");
    env.ok(["exec", "s", "sh", "-c", "chmod 755 /; rm /bin/sh"]);
    let printed = fails_within(&env, 20, 1, &["health", "s"]);
    assert!(
        printed.contains("its health command can't run") && printed.contains("/bin/sh"),
        "{printed}"
    );
    let printed = fails_within(&env, 20, 127, &["shell", "s"]);
    assert!(printed.contains("svp exec s"), "{printed}");
    assert_eq!(ok_within(&env, 20, &["exec", "s", "echo", "in"]), "in\n");
    ok_within(&env, 30, &["stop", "-t", "2", "s"]);
    env.ok(["rm", "s"]);
    env.assert_nothing_left();
}

#[test]
fn a_service_that_stops_every_process_holds_up_no_command_for_ever() {
    let env = TestEnv::new();
    env.import_busybox();
    service(&env, "busybox", "#!/bin/sh\nsleep 1\nwhile :; do kill -STOP -1; done\n");
    std::thread::sleep(Duration::from_secs(3));
    let bounded = |arguments: &[&str]| {
        let since = Instant::now();
        let mut command = env.command("timeout");
        command.args(["40", env!("CARGO_BIN_EXE_svp")]).args(arguments);
        let done = output(&mut command);
        assert!(since.elapsed() < Duration::from_secs(60), "{arguments:?}: {:?}", since.elapsed());
        (done.status.code(), transcript(&command, &done))
    };
    // The command may run before it is stopped, be stopped after it has started, or not start.
    let mut not_started = false;
    for _ in 0..10 {
        let (code, printed) = bounded(&["exec", "s", "true"]);
        assert!([Some(0), Some(124), Some(125), Some(143)].contains(&code), "{printed}");
        if code == Some(125) {
            assert!(printed.contains("can't start a command in the container"), "{printed}");
            assert!(printed.contains("in time") && printed.contains("svp stop"), "{printed}");
            not_started = true;
            break;
        }
    }
    assert!(not_started);
    let (code, printed) = bounded(&["health", "s"]);
    assert!([Some(0), Some(1), Some(77)].contains(&code), "{printed}");
    // The shell in its loop does not end at the signal.
    ok_within(&env, 40, &["stop", "-t", "1", "s"]);
    env.ok(["rm", "s"]);
    env.assert_nothing_left();
}
