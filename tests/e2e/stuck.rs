//! Services and monitors that don't answer: stopped, out of descriptors, gone while their container is not.

use std::time::{Duration, Instant};

use crate::run::{info, instance, until};
use crate::support::Place;

const QUERY: &str = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
const BUILD: &str = "#!/bin/sh\n";
const SLEEPS: &str = "#!/bin/sh\nexec sleep 1000\n";

/// A place with the image `sleeper` of a service that does nothing.
fn sleeper() -> Place {
    let place = Place::new();
    place.import_busybox();
    instance(&place, "sleeper", QUERY, BUILD, SLEEPS);
    place
}

#[test]
fn one_that_stops_its_keeper_is_stopped_and_started_anew_all_the_same() {
    let place = sleeper();
    place.ok(["run", "-d", "--restart", "always", "sleeper"]);
    let stop_all = || drop(place.svp(["exec", "sleeper", "sh", "-c", "kill -STOP -1"]).output());
    let within = |seconds, arguments: &[&str]| {
        let since = Instant::now();
        let mut command = place.command("timeout");
        command.args(["40", env!("CARGO_BIN_EXE_svp")]).args(arguments);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        assert!(since.elapsed() < Duration::from_secs(seconds), "{:?}", since.elapsed());
    };
    let component = info(&place, "sleeper")["components"][0]["name"].as_str().unwrap().to_owned();
    stop_all();
    within(20, &["restart", "-t", "1", "sleeper", &component]);
    let told = info(&place, "sleeper");
    assert_eq!(
        (&told["status"], &told["components"][0]["running"]),
        (&"running".into(), &true.into())
    );
    stop_all();
    within(20, &["stop", "-t", "1", "sleeper"]);
    let told = info(&place, "sleeper");
    assert_eq!((&told["status"], &told["exitCode"]), (&"exited".into(), &137.into()), "{told}");
    place.ok(["rm", "sleeper"]);
    place.assert_nothing_left();
}

#[test]
fn a_monitor_without_descriptors_is_told_of_and_hears_signals() {
    let place = sleeper();
    place.ok(["run", "-d", "sleeper"]);
    let monitor = info(&place, "sleeper")["monitor"].as_i64().unwrap().to_string();
    let is_free = |number: &u32| !std::fs::exists(format!("/proc/{monitor}/fd/{number}")).unwrap();
    let free = (0..).find(is_free).unwrap();
    let mut prlimit = place.command("prlimit");
    prlimit.args(["--pid", &monitor, &format!("--nofile={free}:{free}")]);
    assert!(prlimit.status().unwrap().success());
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
        let times = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = used();
    let text = place.fails(77, ["stop", "sleeper"]);
    assert!(text.contains(&format!("process {monitor}")) && text.contains("svp start"), "{text}");
    // Ten seconds, in hundredths: it does not spin.
    let spent = used() - before;
    assert!(spent < 100, "{spent}");
    let mut kill = place.command("kill");
    assert!(kill.args(["-TERM", &monitor]).status().unwrap().success());
    until("it has stopped", || place.ok(["ps", "-q"]).is_empty());
    place.ok(["start", "sleeper"]);
    place.ok(["rm", "--force", "sleeper"]);
    place.assert_nothing_left();
}
