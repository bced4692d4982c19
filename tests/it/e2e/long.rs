//! Long runs of services, for `make soak`: a component killed a hundred times, a gigabyte of log, databases killed
//! under load. Shorter versions run always.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::e2e::run::{TWO_QUERY, TWO_RUN, info, instance};
use crate::support::{TestEnv, debian_base, output, pack, processes_of, transcript, wait_until};

const QUERY: &str = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";

fn kill_9(pid: &Value) {
    let pid = Pid::from_raw(i32::try_from(pid.as_i64().expect("a process")).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
}

/// Kills one of two components `rounds` times. It runs for ten seconds each time, so that it counts as healthy and
/// restarts without a long back-off.
fn kill_a_component(rounds: u64) {
    let env = TestEnv::new();
    // The daemons that the components leave behind outlive the test.
    let run = TWO_RUN.replace("sleep 1000", "sleep 100000");
    instance(&env, "two", TWO_QUERY, "#!/bin/sh\n", &run);
    env.ok(["run", "-d", "--restart", "always", "two"]);
    let first = |component: &str| {
        let list = env.ok(["exec", "two", "ps", "-o", "pid,args"]);
        let of = |line: &&str| line.contains(&format!("/service/bin/run {component}"));
        Some(list.lines().find(of)?.split_whitespace().next()?.to_owned())
    };
    wait_until("both run", || first("one").is_some() && first("two").is_some());
    let two = first("two");
    for round in 1..=rounds {
        std::thread::sleep(Duration::from_millis(10_050));
        let one = first("one").unwrap();
        env.ok(["exec", "two", "kill", "-9", &one]);
        let since = Instant::now();
        wait_until("the component runs again", || {
            let printed = info(&env, "two");
            let one = &printed["components"][0];
            one["restarts"] == round && one["running"] == true
        });
        assert!(since.elapsed() < Duration::from_secs(5), "{round}: {:?}", since.elapsed());
        assert_eq!(first("two"), two, "round {round}");
        assert_eq!(info(&env, "two")["components"][1]["restarts"], 0);
    }
    let sleepers = env.ok(["exec", "two", "sh", "-c", "ps -o args | grep -c '[s]leep 100000'"]);
    assert_eq!(sleepers, "2\n");
    env.ok(["stop", "two"]);
    // Each log is complete and in order: from 1 on, and from 1 again after each start.
    for (component, starts) in [("one", rounds + 1), ("two", 1)] {
        let log = env.ok(["logs", "two", component]);
        let (mut began, mut expected, mut lines) = (0, 1, 0);
        for line in log.lines() {
            match line.strip_prefix(component).and_then(|rest| rest.strip_prefix(' ')).unwrap() {
                "began" => (began, expected) = (began + 1, 1),
                number => {
                    assert_eq!(number.parse::<u64>().unwrap(), expected, "{component}");
                    expected += 1;
                    lines += 1;
                }
            }
        }
        assert_eq!(began, starts, "{component}");
        println!("{component}: {began} starts, {lines} lines");
    }
    env.ok(["rm", "two"]);
    env.assert_nothing_left();
}

#[test]
#[ignore = "long: make soak"]
fn one_component_killed_a_hundred_times_does_not_affect_the_other() {
    let rounds =
        std::env::var("SVP_SOAK_ROUNDS").map_or(100, |text| text.parse().expect("a number"));
    kill_a_component(rounds);
}

/// Runs a service that prints this much, and checks the retained log and the resources used.
fn print_much(megabytes: u64, log_size: u64) {
    let env = TestEnv::new();
    let line = "x".repeat(99);
    let run = format!(
        "#!/bin/sh\nyes {line} | head -n {}\nseq 1 1000\nexec sleep 1000\n",
        megabytes * 10_000
    );
    instance(&env, "talker", QUERY, "#!/bin/sh\n", &run);
    let since = Instant::now();
    env.ok(["run", "-d", "--log-size", &log_size.to_string(), "talker"]);
    let over = || env.ok(["logs", "-n", "1", "talker"]) == "1000\n";
    while !over() {
        assert!(since.elapsed() < Duration::from_secs(600), "the service is still printing");
        std::thread::sleep(Duration::from_millis(500));
    }
    let took = since.elapsed();
    let monitor = info(&env, "talker")["monitor"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{monitor}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "{peak} kB");
    let logs = env.store().join("services/talker/logs");
    let files: Vec<u64> = std::fs::read_dir(&logs)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    // A file may exceed the limit by one read.
    assert!(
        files.len() <= 3 && files.iter().sum::<u64>() <= 3 * (log_size * 1_000_000 + (1 << 20))
    );
    let last = env.ok(["logs", "-n", "1001", "talker"]);
    let numbers: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(last, format!("{line}\n{numbers}"));
    let all = env.ok(["logs", "talker"]);
    assert!(all.lines().all(|text| text == line || text.parse::<u32>().is_ok()));
    let megabytes_kept = files.iter().sum::<u64>() / 1_000_000;
    println!("{megabytes} MB in {took:.1?}, {megabytes_kept} MB kept, the monitor took {peak} kB");
    env.ok(["rm", "--force", "talker"]);
    env.assert_nothing_left();
}

#[test]
fn heavy_output_costs_only_the_retained_log() {
    print_much(20, 1);
}

#[test]
#[ignore = "long: make soak"]
fn a_gigabyte_of_output_costs_only_the_retained_log() {
    print_much(1000, 16);
}

/// A database service under load.
struct Database {
    name: &'static str,
    is_maria: bool,
    host: String,
    user: String,
    database: String,
    password: String,
    /// The transactions that its clients know to be committed.
    committed: Mutex<BTreeSet<(usize, u32)>>,
}

impl Database {
    fn new(env: &TestEnv, name: &'static str) -> Database {
        let variables = env.ok(["env", name, "--format", "json"]);
        let variables: Value = serde_json::from_str(&variables).unwrap();
        let value = |end: &str| {
            let (_, value) = variables
                .as_object()
                .unwrap()
                .iter()
                .find(|(name, _)| name.ends_with(end))
                .unwrap();
            value.as_str().unwrap().to_owned()
        };
        Database {
            name,
            is_maria: name.starts_with('m'),
            host: value("_HOST"),
            user: value("_USER"),
            database: value("_DATABASE"),
            password: value("_PASSWORD"),
            committed: Mutex::default(),
        }
    }

    /// A client on the host, at the service's own address and the standard port.
    fn client(&self, env: &TestEnv, sql: &str) -> Command {
        let mut client = env.command("timeout");
        if self.is_maria {
            client.args(["30", "mariadb", "--protocol=tcp", "--connect-timeout=5", "--batch"]);
            client.args(["--skip-column-names", "--host", &self.host, "--user", &self.user]);
            client.args(["--execute", sql, &self.database]).env("MYSQL_PWD", &self.password);
        } else {
            client.args(["30", "psql", "--no-password", "-qtA", "-v", "ON_ERROR_STOP=1"]);
            client.args(["-h", &self.host, "-U", &self.user, "-c", sql, &self.database]);
            client.env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "5");
        }
        client.stdin(Stdio::null());
        client
    }

    #[track_caller]
    fn ask(&self, env: &TestEnv, sql: &str) -> String {
        let mut client = self.client(env, sql);
        let output = output(&mut client);
        assert!(output.status.success(), "{}: {}", self.name, transcript(&client, &output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits one transaction after another until it is `over`, retrying each until it succeeds.
    fn load(&self, env: &TestEnv, number: usize, over: &AtomicBool) {
        for row in 0..5000 {
            let sql = format!(
                "BEGIN; INSERT INTO made VALUES ({number}, {row}); \
                 UPDATE counted SET n = n + 1; COMMIT;"
            );
            loop {
                let result = output(&mut self.client(env, &sql));
                let stderr = String::from_utf8_lossy(&result.stderr);
                // The reply was lost: the transaction had been committed.
                if result.status.success() || stderr.to_lowercase().contains("duplicate") {
                    self.committed.lock().unwrap().insert((number, row));
                    break;
                }
                if over.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            if over.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Checks that every committed transaction is present exactly once; returns their number.
    fn check(&self, env: &TestEnv) -> usize {
        let committed = self.committed.lock().unwrap();
        let sql = if self.is_maria {
            "SELECT concat(c, ' ', r) FROM made"
        } else {
            "SELECT c || ' ' || r FROM made"
        };
        let rows = self.ask(env, sql);
        let rows: BTreeSet<(usize, u32)> = rows
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(client, row)| (client.parse().unwrap(), row.parse().unwrap()))
            .collect();
        let lost: Vec<_> = committed.difference(&rows).collect();
        assert!(lost.is_empty(), "{} has lost {lost:?}", self.name);
        let counted = self.ask(env, "SELECT n FROM counted");
        assert_eq!(counted, rows.len().to_string(), "{}: half a transaction", self.name);
        committed.len()
    }
}

const CLIENTS: usize = 3;

#[test]
#[ignore = "long: make soak"]
fn databases_killed_under_load_keep_committed_transactions() {
    let env = TestEnv::new();
    env.ok(["import", debian_base().to_str().unwrap(), "-t", "debian:12"]);
    for (name, instances) in [("mariadb", ["m1", "m2"]), ("postgresql", ["p1", "p2"])] {
        let pack = pack(name);
        env.ok(["build", "-b", pack.to_str().unwrap(), "-t", name, "--base", "debian:12"]);
        for instance in instances {
            env.ok(["setup", "-i", name, "-t", instance]);
            env.ok(["run", "-d", "--restart", "on-failure", "--wait=120", instance]);
        }
    }
    let names = ["m1", "m2", "p1", "p2"];
    let databases = names.map(|name| Database::new(&env, name));
    let hosts: BTreeSet<_> = databases.iter().map(|database| &database.host).collect();
    assert_eq!(hosts.len(), names.len());
    for database in &databases {
        let table = "CREATE TABLE made (c INTEGER, r INTEGER, PRIMARY KEY (c, r))";
        database.ask(&env, table);
        database.ask(&env, "CREATE TABLE counted (n INTEGER)");
        database.ask(&env, "INSERT INTO counted VALUES (0)");
    }
    let over = AtomicBool::new(false);
    let (env, over) = (&env, &over);
    let since = Instant::now();
    std::thread::scope(|scope| {
        for database in &databases {
            for number in 0..CLIENTS {
                scope.spawn(move || database.load(env, number, over));
            }
        }
        // A failure in here must end the clients.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kill_all_ways(env)));
        std::thread::sleep(Duration::from_secs(3));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let took = since.elapsed();
    for database in &databases {
        let committed = database.check(env);
        assert!(committed > 20, "{} committed {committed}", database.name);
        println!("{}: {committed} transactions of {CLIENTS} clients in {took:.0?}", database.name);
    }
    for name in names {
        env.ok(["rm", "--force", "--volumes", name]);
    }
    env.assert_nothing_left();
}

/// Kills monitors, first processes of components and all processes of svp, twice each.
fn kill_all_ways(env: &TestEnv) {
    let pause = || std::thread::sleep(Duration::from_secs(4));
    for round in 0..2 {
        pause();
        for name in ["m1", "p1"] {
            kill_9(&info(env, name)["monitor"]);
            wait_until("the service is dead", || info(env, name)["status"] == "dead");
            env.ok(["start", "--wait=120", name]);
        }
        pause();
        // The first process of the component: it is restarted, and the database recovers.
        for name in ["m2", "p2"] {
            let before = info(env, name)["components"][0]["restarts"].as_i64().unwrap();
            // The only child of the component's init.
            let first = "for p in /proc/[0-9]*; do read -r _ _ _ q _ <$p/stat; \
                 [ \"$q\" = 2 ] && kill -9 ${p#/proc/}; done; true";
            env.ok(["exec", name, "--", "bash", "-c", first]);
            wait_until("the component runs again", || {
                let printed = info(env, name);
                let component = &printed["components"][0];
                component["restarts"].as_i64() > Some(before) && component["running"] == true
            });
            env.ok(["health", "--wait=120", name]);
        }
        pause();
        for process in processes_of(env.dir()) {
            let pid: i32 = process.split([' ', ':']).nth(1).unwrap().parse().unwrap();
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            if command.is_ok_and(|command| command.contains("svp")) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        for name in ["m1", "m2", "p1", "p2"] {
            wait_until("the service is dead", || info(env, name)["status"] == "dead");
        }
        for name in ["m1", "m2", "p1", "p2"] {
            env.ok(["start", "--wait=120", name]);
        }
        println!("round {round} of kills is over");
    }
    pause();
}
