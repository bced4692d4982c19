//! The real services: built and set up from their packs on Debian, run by podman with runc, logged into from outside.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::podman::Podman;
use crate::support::registry::free_port;
use crate::support::{TestEnv, debian_base, output, pack, success, transcript};

/// Builds and sets up the pack `name`; returns the instance's archive and its environment.
#[track_caller]
pub fn instance(env: &TestEnv, name: &str) -> (PathBuf, Vec<(String, String)>) {
    env.ok(["import", debian_base().to_str().unwrap(), "-t", "debian:12"]);
    let pack = pack(name);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", name, "--base", "debian:12"]);
    let archive = env.path("instance.tar");
    let target = format!("oci-archive:{}", archive.display());
    let printed = env.ok(["setup", "-b", pack, "-i", name, "-t", "instance", "-o", &target]);
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').expect("NAME=VALUE");
        (name.to_string(), value.to_string())
    };
    (archive, printed.lines().map(pair).collect())
}

fn value<'a>(environment: &'a [(String, String)], end: &str) -> &'a str {
    let found = environment.iter().find(|(name, _)| name.ends_with(end));
    &found.unwrap_or_else(|| panic!("no {end} in {environment:?}")).1
}

/// Logs in with `client` until it works, then once with a wrong password, which must be refused.
#[track_caller]
fn logs_in(client: impl Fn(&str) -> Command, password: &str, log: impl Fn() -> String) {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let mut command = client(password);
        let result = output(&mut command);
        if result.status.success() && String::from_utf8_lossy(&result.stdout).contains("42") {
            break;
        }
        assert!(Instant::now() < until, "{}log:\n{}", transcript(&command, &result), log());
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut command = client("another");
    let result = output(&mut command);
    let text = transcript(&command, &result);
    assert!(!String::from_utf8_lossy(&result.stdout).contains("42"), "let in: {text}");
    let refused = ["Access denied", "authentication failed", "WRONGPASS", "NOAUTH"];
    assert!(refused.iter().any(|word| text.contains(word)), "{text}");
}

/// Runs the instance image with its port published on loopback, and logs in.
#[track_caller]
fn runs_and_logs_in(
    env: &TestEnv,
    name: &str,
    archive: &std::path::Path,
    port: &str,
    password: &str,
    data: &Data,
    client: impl Fn(&str, u16, &str) -> Command,
) {
    let podman = Podman::new(env);
    let image = podman.load(archive);
    let here = free_port();
    let publish = format!("--publish=127.0.0.1:{here}:{port}");
    let container = podman.start(&[&publish, &image]);
    logs_in(|password| client("127.0.0.1", here, password), password, || container.log());
    drop(container);
    svp_runs_two(env, name, port, password, data, &client);
}

/// Runs the instance and a second one with svp, each on its standard port, and logs in to both; then again to the first
/// after a restart.
#[track_caller]
fn svp_runs_two(
    env: &TestEnv,
    name: &str,
    port: &str,
    password: &str,
    data: &Data,
    client: &impl Fn(&str, u16, &str) -> Command,
) {
    let port = port.parse().unwrap();
    env.ok(["setup", "-i", name, "-t", "other"]);
    for name in ["instance", "other"] {
        env.ok(["run", "-d", "--wait=90", name]);
    }
    let variables = |name: &str, end: &str| {
        let variables = env.ok(["env", name]);
        let line = variables.lines().find(|line| line.split('=').next().unwrap().ends_with(end));
        line.unwrap().split_once('=').unwrap().1.to_owned()
    };
    let log = |name: &str| env.ok(["logs", name]);
    let [host, other] = ["instance", "other"].map(|name| variables(name, "_HOST"));
    assert_ne!(host, other);
    assert_eq!(variables("instance", "_PASSWORD"), password);
    logs_in(|password| client(&host, port, password), password, || log("instance"));
    let others = variables("other", "_PASSWORD");
    logs_in(|password| client(&other, port, password), &others, || log("other"));
    env.ok(["stop", "instance"]);
    env.ok(["start", "--wait=90", "instance"]);
    logs_in(|password| client(&host, port, password), password, || log("instance"));
    restores_its_data(env, data);
    logs_in(|password| client(&host, port, password), password, || log("instance"));
    env.ok(["rm", "--force", "--volumes", "instance", "other"]);
    env.assert_nothing_left();
}

/// Client arguments that write, read and destroy a service's data.
struct Data {
    put: &'static [&'static str],
    look: &'static [&'static str],
    lose: &'static [&'static str],
    /// The output of `look`.
    seen: &'static str,
}

const REDIS: Data = Data {
    put: &["eval", "for i = 1, 20000 do redis.call('set', i, string.rep(i, 20)) end", "0"],
    look: &["eval", "return #redis.call('keys', '*') .. ' ' .. #redis.call('get', '20000')", "0"],
    lose: &["flushall"],
    seen: "20000 100\n",
};

const MARIADB: Data = Data {
    put: &[
        "-e",
        "create table t (n int primary key, x text);
        insert into t select seq, repeat(seq, 20) from seq_1_to_20000;
        create procedure p() select 1; create view v as select n from t",
    ],
    look: &[
        "-N",
        "-r",
        "-e",
        "select concat(count(*), ' ', sum(n) div 20) from t join v using (n)",
    ],
    lose: &["-e", "drop view v; drop procedure p; drop table t"],
    seen: "20000 10000500\n",
};

const POSTGRESQL: Data = Data {
    put: &[
        "-c",
        "create table t as select n, repeat(n::text, 20) as x from generate_series(1, 20000) n",
        "-c",
        "create view v as select n from t",
    ],
    look: &["-At", "-c", "select count(*) || ' ' || sum(n) / 20 from t join v using (n)"],
    lose: &["-c", "drop table t cascade"],
    seen: "20000 10000500\n",
};

/// Backs `instance` up, destroys its data, and restores it: twice, since a script may fail on its own leftovers.
#[track_caller]
fn restores_its_data(env: &TestEnv, data: &Data) {
    let client = |arguments: &[&str]| {
        env.svp(["client", "instance"]).args(arguments).output().expect("svp starts")
    };
    let done = |arguments: &[&str]| {
        let result = client(arguments);
        assert!(result.status.success(), "{arguments:?}: {result:?}");
        String::from_utf8_lossy(&result.stdout).into_owned()
    };
    done(data.put);
    assert_eq!(done(data.look), data.seen);
    let ports = env.ok(["ports", "instance"]);
    env.ok(["backup", "instance", "-o", "instance.zst", "--verify", "--wait", "90"]);
    for _ in 0..2 {
        done(data.lose);
        let result = client(data.look);
        assert_ne!(String::from_utf8_lossy(&result.stdout), data.seen);
        env.ok(["restore", "instance", "-i", "instance.zst", "--wait", "90"]);
        assert_eq!(done(data.look), data.seen);
        assert_eq!(env.ok(["ports", "instance"]), ports);
    }
    // It survives a restart, and a truncated backup changes nothing.
    let backup = std::fs::read(env.path("instance.zst")).unwrap();
    std::fs::write(env.path("part.zst"), &backup[..backup.len() * 2 / 3]).unwrap();
    env.fails(125, ["restore", "instance", "-i", "part.zst", "--wait", "90"]);
    env.ok(["restart", "instance"]);
    env.ok(["health", "instance", "--wait=90"]);
    assert_eq!(done(data.look), data.seen);
    let left = env.ok(["ps", "-a", "-q"]);
    assert_eq!(
        left.lines().collect::<std::collections::BTreeSet<_>>(),
        ["instance", "other"].into()
    );
}

#[test]
fn redis_requires_the_printed_password() {
    let env = TestEnv::new();
    let (archive, environment) = instance(&env, "redis");
    let password = value(&environment, "_PASSWORD").to_string();
    runs_and_logs_in(
        &env,
        "redis",
        &archive,
        value(&environment, "_PORT"),
        &password,
        &REDIS,
        |host, port, password| {
            let mut client = env.command("redis-cli");
            client.args(["-h", host, "-p", &port.to_string(), "--no-auth-warning", "-a", password]);
            client.args(["eval", "return 42", "0"]);
            client
        },
    );
}

#[test]
fn mariadb_requires_the_printed_password() {
    let env = TestEnv::new();
    let (archive, environment) = instance(&env, "mariadb");
    let password = value(&environment, "_PASSWORD").to_string();
    let user = value(&environment, "_USER").to_string();
    let database = value(&environment, "_DATABASE").to_string();
    runs_and_logs_in(
        &env,
        "mariadb",
        &archive,
        value(&environment, "_PORT"),
        &password,
        &MARIADB,
        |host, port, password| {
            let mut client = env.command("mariadb");
            client.args(["--protocol=tcp", "--host", host, "--port", &port.to_string()]);
            client.args(["--user", &user, "--execute=select 42", &database]);
            client.env("MYSQL_PWD", password);
            client
        },
    );
}

#[test]
fn postgresql_requires_the_printed_password() {
    let env = TestEnv::new();
    let (archive, environment) = instance(&env, "postgresql");
    let password = value(&environment, "_PASSWORD").to_string();
    let user = value(&environment, "_USER").to_string();
    let database = value(&environment, "_DATABASE").to_string();
    runs_and_logs_in(
        &env,
        "postgresql",
        &archive,
        value(&environment, "_PORT"),
        &password,
        &POSTGRESQL,
        |host, port, password| {
            let mut client = env.command("psql");
            client.args(["--no-password", "-h", host, "-p", &port.to_string(), "-U", &user]);
            client.args(["-c", "select 42", &database]).env("PGPASSWORD", password);
            client
        },
    );
}

#[test]
fn hipache_has_two_components() {
    let env = TestEnv::new();
    let pack = pack("hipache");
    let printed = env.ok(["query", "-b", pack.to_str().unwrap(), "components"]);
    assert_eq!(printed, "hipache\nredis\n");
    let (_, environment) = instance(&env, "hipache");
    assert!(!environment.is_empty());
    success(&mut env.svp(["inspect", "instance"]));
}
