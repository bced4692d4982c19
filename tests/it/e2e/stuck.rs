//! Services and monitors that don't respond: stopped, out of descriptors, or dead while their container still runs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::e2e::run::{info, instance};
use crate::support::{TestEnv, processes_of, success, wait_until};

const QUERY: &str = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
const BUILD: &str = "#!/bin/sh\n";
const SLEEPS: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Returns an environment with the image `sleeper` of a service that does nothing.
fn sleeper() -> TestEnv {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "sleeper", QUERY, BUILD, SLEEPS);
    env
}

#[test]
fn a_service_with_a_stopped_init_can_be_stopped_and_restarted() {
    let env = sleeper();
    env.ok(["run", "-d", "--restart", "always", "sleeper"]);
    let stop_all = || drop(env.svp(["exec", "sleeper", "sh", "-c", "kill -STOP -1"]).output());
    let within = |seconds, arguments: &[&str]| {
        let since = Instant::now();
        let mut command = env.command("timeout");
        command.args(["40", env!("CARGO_BIN_EXE_svp")]).args(arguments);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        assert!(since.elapsed() < Duration::from_secs(seconds), "{:?}", since.elapsed());
    };
    let component = info(&env, "sleeper")["components"][0]["name"].as_str().unwrap().to_owned();
    stop_all();
    within(20, &["restart", "-t", "1", "sleeper", &component]);
    let printed = info(&env, "sleeper");
    assert_eq!(
        (&printed["status"], &printed["components"][0]["running"]),
        (&"running".into(), &true.into())
    );
    stop_all();
    within(20, &["stop", "-t", "1", "sleeper"]);
    let printed = info(&env, "sleeper");
    assert_eq!(
        (&printed["status"], &printed["exitCode"]),
        (&"exited".into(), &137.into()),
        "{printed}"
    );
    env.ok(["rm", "sleeper"]);
    env.assert_nothing_left();
}

#[test]
fn a_monitor_without_descriptors_is_reported_and_handles_signals() {
    let env = sleeper();
    env.ok(["run", "-d", "sleeper"]);
    let monitor = info(&env, "sleeper")["monitor"].as_i64().unwrap().to_string();
    let is_free = |number: &u32| !std::fs::exists(format!("/proc/{monitor}/fd/{number}")).unwrap();
    let free = (0..).find(is_free).unwrap();
    let mut prlimit = env.command("prlimit");
    prlimit.args(["--pid", &monitor, &format!("--nofile={free}:{free}")]);
    assert!(prlimit.status().unwrap().success());
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
        let times = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = used();
    let text = env.fails(77, ["stop", "sleeper"]);
    assert!(text.contains(&format!("process {monitor}")) && text.contains("svp start"), "{text}");
    // CPU time in hundredths of a second, over ten seconds: the monitor does not spin.
    let spent = used() - before;
    assert!(spent < 100, "{spent}");
    let mut kill = env.command("kill");
    assert!(kill.args(["-TERM", &monitor]).status().unwrap().success());
    wait_until("the service has stopped", || env.ok(["ps", "-q"]).is_empty());
    env.ok(["start", "sleeper"]);
    env.ok(["rm", "--force", "sleeper"]);
    env.assert_nothing_left();
}

/// Returns the processes with this parent.
fn children_of(number: u32) -> Vec<u32> {
    let file = format!("/proc/{number}/task/{number}/children");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn two_containers_never_share_their_files() {
    let env = sleeper();
    env.ok(["run", "-d", "sleeper"]);
    // The container can't end before this command's parent, which is outside it, has reaped the command.
    let mut inside = env.svp(["exec", "sleeper", "sleep", "1000"]).spawn().unwrap();
    let mut parent = 0;
    wait_until("the command runs", || {
        let of_svp = children_of(inside.id());
        let has_started = |stage: &&u32| !children_of(**stage).is_empty();
        parent = of_svp.iter().find(has_started).copied().unwrap_or_default();
        parent != 0 && env.ok(["exec", "sleeper", "ps"]).contains("sleep 1000")
    });
    let signal = |number: i64, signal| kill(Pid::from_raw(number as i32), signal).unwrap();
    let printed = info(&env, "sleeper");
    let init_pid = printed["pid"].as_i64().unwrap();
    signal(parent.into(), Signal::SIGSTOP);
    signal(printed["monitor"].as_i64().unwrap(), Signal::SIGKILL);
    wait_until("the service is dead", || info(&env, "sleeper")["status"] == "dead");
    for command in [&["start", "sleeper"][..], &["rm", "sleeper"]] {
        assert!(std::fs::exists(format!("/proc/{init_pid}")).unwrap());
        let mut waits = env.svp(command).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert!(waits.try_wait().unwrap().is_none(), "{command:?}");
        if command[0] == "rm" {
            assert!(env.store().join("services/sleeper/service.json").exists());
            signal(parent.into(), Signal::SIGCONT);
            assert!(waits.wait().unwrap().success());
        } else {
            waits.kill().unwrap();
            waits.wait().unwrap();
            for left in processes_of(env.dir()).iter().filter(|left| left.contains("svp-monitor")) {
                signal(left.split([' ', ':']).nth(1).unwrap().parse().unwrap(), Signal::SIGKILL);
            }
        }
    }
    let _ = inside.wait();
    env.assert_nothing_left();
}

#[test]
fn the_monitor_does_not_inherit_a_lock_of_the_caller() {
    let env = sleeper();
    let script = "exec 9>lock; flock -n 9 && exec \"$0\" run -d sleeper";
    let mut run = env.command("sh");
    success(run.args(["-c", script, env!("CARGO_BIN_EXE_svp")]));
    success(env.command("flock").args(["-n", "lock", "true"]));
    env.ok(["rm", "--force", "sleeper"]);
    env.assert_nothing_left();
}
