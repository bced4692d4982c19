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
fn has_cgroups(place: &TestEnv) -> bool {
    let check: Value = serde_json::from_str(&place.ok(["check", "--format", "json"])).unwrap();
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

fn id(place: &TestEnv, name: &str) -> String {
    let record = place.store().join("services").join(name).join("service.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    record["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_service_is_held_to_what_it_may_use_or_its_user_hears_why_not() {
    let place = TestEnv::new();
    instance(&place, "s", QUERY, "#!/bin/sh\n", RUN);
    let bounded = has_cgroups(&place);
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
    let mut run = place.svp(arguments);
    let said = output(&mut run);
    assert!(said.status.success(), "{}", transcript(&run, &said));
    let stderr = String::from_utf8_lossy(&said.stderr);
    let record = info(&place, "s");
    let wanted = serde_json::json!({"memory": 100 << 20, "milliCpus": 250, "pids": 20});
    assert_eq!(record["resources"], wanted);
    if bounded {
        assert!(!stderr.contains("no effect here"), "{stderr}");
        assert!(!cgroups(&id(&place, "s")).is_empty());
        processes(&place);
        processor_time(&place);
        memory(&place);
    } else {
        let note = "--memory, --cpus, --pids have no effect here: ";
        assert!(stderr.contains(note) && stderr.contains("hint: "), "{stderr}");
        assert!(!as_root() || !std::path::Path::new("/sys/fs/cgroup/memory").is_dir());
    }
    // It runs and stops like any other service.
    assert_eq!(place.ok(["exec", "s", "echo", "well"]), "well\n");
    let id = id(&place, "s");
    place.ok(["stop", "-t", "0", "s"]);
    assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
    // A killed monitor can't clean up: the next start does, and so does the removal.
    for last in [&["start", "s"][..], &["rm", "s"]] {
        place.ok(["start", "s"]);
        let monitor = info(&place, "s")["monitor"].as_i64().unwrap();
        let monitor = nix::unistd::Pid::from_raw(i32::try_from(monitor).unwrap());
        nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_until("it is dead", || info(&place, "s")["status"] == "dead");
        place.ok(last);
        if last[0] == "start" {
            place.ok(["stop", "-t", "0", "s"]);
        }
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new(), "{last:?}");
    }
    place.assert_nothing_left();
}

/// The requested number of processes, plus svp's own.
fn processes(place: &TestEnv) {
    let fork =
        "n=0; while [ $n -lt 60 ] && (sleep 2 & true) 2>/dev/null; do n=$((n+1)); done; echo $n";
    let mut exec = place.svp(["exec", "s", "sh", "-c", fork]);
    let said = output(&mut exec);
    // The shell may exit when it can't fork.
    let count = String::from_utf8_lossy(&said.stdout).trim().parse::<u32>().unwrap_or(10);
    assert!((10..=20).contains(&count), "{}", transcript(&exec, &said));
    wait_until("they have ended", || {
        let mut count = place.svp(["exec", "s", "sh", "-c", "ps | grep -c '[s]leep 2'"]);
        output(&mut count).stdout == b"0\n"
    });
}

/// A quarter of a processor: half a second of work takes two, however idle the machine is.
fn processor_time(place: &TestEnv) {
    let work =
        "end=$(($(date +%s)+4)); while [ $(date +%s) -lt $end ]; do :; done; cat /proc/$$/stat";
    let since = Instant::now();
    let stat = place.ok(["exec", "s", "sh", "-c", work]);
    let took = since.elapsed();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime, stime and those of the children, in hundredths of a second.
    let ticks: u64 = fields[11..15].iter().map(|text| text.parse::<u64>().unwrap()).sum();
    let used = Duration::from_millis(ticks * 10);
    assert!(used < took.mul_f64(0.45), "{used:?} of {took:?}");
}

/// The kernel kills a process over the memory limit, svp reports it, and the service goes on.
fn memory(place: &TestEnv) {
    place.ok(["exec", "s", "sh", "-c", "echo memory >/task"]);
    wait_until("it was killed", || info(place, "s")["memoryKills"].as_u64() > Some(0));
    wait_until("it goes on", || place.ok(["logs", "s"]).contains("memory "));
    let log = std::fs::read_to_string(place.store().join("services/s/monitor.log")).unwrap();
    assert!(log.contains("--memory"), "{log}");
    assert!(place.ok(["info", "s"]).contains("out of memory"));
}

#[test]
fn what_is_no_amount_is_refused() {
    let place = TestEnv::new();
    for (option, bad) in [("--memory", "1m"), ("--memory", "x"), ("--cpus", "0"), ("--pids", "0")] {
        let error = place.fails(2, ["run", option, bad, "s"]);
        assert!(error.contains("hint: ") && error.contains(option), "{error}");
    }
}
