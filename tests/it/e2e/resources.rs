//! `svp run --memory --cpus --pids`: enforced where the host delegates cgroups, otherwise reported.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::e2e::run::{info, instance};
use crate::support::{TestEnv, as_root, output, transcript, wait_until};

const QUERY: &str = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
/// Runs each word that it reads from the pipe as a task.
const RUN: &str = "#!/bin/sh\nmkfifo /task\nwhile :; do read word </task; case $word in\n\
    memory) head -c 300000000 /dev/zero | tail -c 250000000 >/dev/null; echo $word $? ;;\n\
    esac; done\n";

/// Returns whether this host delegates cgroups to this user, as `svp check` reports.
fn has_cgroups(env: &TestEnv) -> bool {
    let check: Value = serde_json::from_str(&env.ok(["check", "--format", "json"])).unwrap();
    let found = check.as_array().unwrap().iter().find(|one| one["what"] == "resources").unwrap();
    if !found["ok"].as_bool().unwrap() {
        assert!(!found["hint"].as_str().unwrap().is_empty(), "{found}");
    }
    found["ok"].as_bool().unwrap()
}

/// Returns the cgroup directories that svp made for services.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(id) {
                    found.push(entry.path());
                }
                pending.push(entry.path());
            }
        }
    }
    found
}

fn id(env: &TestEnv, name: &str) -> String {
    let record = env.store().join("services").join(name).join("service.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    record["id"].as_str().unwrap().to_owned()
}

#[test]
fn limits_are_enforced_or_reported_as_ineffective() {
    let env = TestEnv::new();
    instance(&env, "s", QUERY, "#!/bin/sh\n", RUN);
    let bounded = has_cgroups(&env);
    let arguments = [
        "run",
        "-d",
        "--memory",
        "100m",
        "--cpus",
        "0.25",
        "--pids",
        "20",
        "--restart",
        "always",
        "s",
    ];
    let mut run = env.svp(arguments);
    let result = output(&mut run);
    assert!(result.status.success(), "{}", transcript(&run, &result));
    let stderr = String::from_utf8_lossy(&result.stderr);
    let record = info(&env, "s");
    let wanted = serde_json::json!({"memory": 100 << 20, "milliCpus": 250, "pids": 20});
    assert_eq!(record["resources"], wanted);
    if bounded {
        assert!(!stderr.contains("no effect here"), "{stderr}");
        assert!(!cgroups(&id(&env, "s")).is_empty());
        processes(&env);
        processor_time(&env);
        memory(&env);
    } else {
        let note = "--memory, --cpus, --pids have no effect here: ";
        assert!(stderr.contains(note) && stderr.contains("hint: "), "{stderr}");
        assert!(!as_root() || !std::path::Path::new("/sys/fs/cgroup/memory").is_dir());
    }
    // The service runs and stops like any other.
    assert_eq!(env.ok(["exec", "s", "echo", "well"]), "well\n");
    let id = id(&env, "s");
    env.ok(["stop", "-t", "0", "s"]);
    assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
    // A killed monitor can't clean up: the next start does, and so does the removal.
    for last in [&["start", "s"][..], &["rm", "s"]] {
        env.ok(["start", "s"]);
        let monitor = info(&env, "s")["monitor"].as_i64().unwrap();
        let monitor = nix::unistd::Pid::from_raw(i32::try_from(monitor).unwrap());
        nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_until("the service is dead", || info(&env, "s")["status"] == "dead");
        env.ok(last);
        if last[0] == "start" {
            env.ok(["stop", "-t", "0", "s"]);
        }
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new(), "{last:?}");
    }
    env.assert_nothing_left();
}

/// The requested number of processes, plus svp's own.
fn processes(env: &TestEnv) {
    let fork =
        "n=0; while [ $n -lt 60 ] && (sleep 2 & true) 2>/dev/null; do n=$((n+1)); done; echo $n";
    let mut exec = env.svp(["exec", "s", "sh", "-c", fork]);
    let result = output(&mut exec);
    // The shell may exit when it can't fork.
    let count = String::from_utf8_lossy(&result.stdout).trim().parse::<u32>().unwrap_or(10);
    assert!((10..=20).contains(&count), "{}", transcript(&exec, &result));
    wait_until("the processes have ended", || {
        let mut count = env.svp(["exec", "s", "sh", "-c", "ps | grep -c '[s]leep 2'"]);
        output(&mut count).stdout == b"0\n"
    });
}

/// A quarter of a processor: half a second of work takes two, however idle the machine is.
fn processor_time(env: &TestEnv) {
    let work =
        "end=$(($(date +%s)+4)); while [ $(date +%s) -lt $end ]; do :; done; cat /proc/$$/stat";
    let since = Instant::now();
    let stat = env.ok(["exec", "s", "sh", "-c", work]);
    let took = since.elapsed();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime, stime and those of the children, in hundredths of a second.
    let ticks: u64 = fields[11..15].iter().map(|text| text.parse::<u64>().unwrap()).sum();
    let used = Duration::from_millis(ticks * 10);
    assert!(used < took.mul_f64(0.45), "{used:?} of {took:?}");
}

/// The kernel kills a process over the memory limit, svp reports it, and the service continues.
fn memory(env: &TestEnv) {
    env.ok(["exec", "s", "sh", "-c", "echo memory >/task"]);
    wait_until("the process was killed", || info(env, "s")["memoryKills"].as_u64() > Some(0));
    wait_until("the service continues", || env.ok(["logs", "s"]).contains("memory "));
    let log = std::fs::read_to_string(env.store().join("services/s/monitor.log")).unwrap();
    assert!(log.contains("--memory"), "{log}");
    assert!(env.ok(["info", "s"]).contains("out of memory"));
}

#[test]
fn invalid_amounts_are_refused() {
    let env = TestEnv::new();
    for (option, bad) in [("--memory", "1m"), ("--memory", "x"), ("--cpus", "0"), ("--pids", "0")] {
        let error = env.fails(2, ["run", option, bad, "s"]);
        assert!(error.contains("hint: ") && error.contains(option), "{error}");
    }
}
