//! Services: started, reached, used, killed, restarted, removed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{TestEnv, pack, processes_of, wait_until};

/// A service of one process: a web server on PORT, whose page is in its volume.
const WEB_QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo WEB_PASSWORD;;\n\
    env) echo WEB_HOST=%IP; echo WEB_PORT=3306;; esac\n";
const WEB_BUILD: &str = "#!/bin/sh\nset -eu\ncase $1 in base) mkdir -p /data; echo page >/data/index.html;;\n\
    setup) echo \"$WEB_PASSWORD\" >/data/password;; esac\n";
const WEB_RUN: &str =
    "#!/bin/sh\necho starts with $WEB_PASSWORD\nexec httpd -f -p $WEB_PORT -h /data\n";

/// Two components: each prints increasing numbers, and leaves a daemon behind.
pub const TWO_QUERY: &str =
    "#!/bin/sh\ncase $1 in os) echo busybox/1;; components) echo one; echo two;; esac\n";
pub const TWO_RUN: &str = "#!/bin/sh\n(setsid sleep 1000 >/dev/null 2>&1 &)\n\
    echo $1 began\nn=0\nwhile :; do n=$((n+1)); echo \"$1 $n\"; sleep 0.05; done\n";

/// Sets up the instance `name` of a pack made of these scripts.
pub fn instance(env: &TestEnv, name: &str, query: &str, build: &str, run: &str) {
    if env.ok(["images"]).lines().count() < 2 {
        env.import_busybox();
    }
    let files = [("bin/query", query), ("bin/build", build), ("bin/run", run)];
    let pack = env.write_pack(&format!("pack-{name}"), &files);
    let pack = pack.to_str().unwrap();
    let base = format!("{name}-base");
    env.ok(["build", "-b", pack, "-t", &base, "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", &base, "-t", name, "--network", "none"]);
}

pub fn info(env: &TestEnv, name: &str) -> Value {
    serde_json::from_str(&env.ok(["info", name, "--format", "json"])).unwrap()
}

/// Returns the service's address and port on the host, from `svp env`.
fn address(env: &TestEnv, name: &str, prefix: &str) -> SocketAddr {
    let variables: Value =
        serde_json::from_str(&env.ok(["env", name, "--format", "json"])).unwrap();
    let part = |part: &str| variables[format!("{prefix}_{part}")].as_str().unwrap().to_owned();
    format!("{}:{}", part("HOST"), part("PORT")).parse().unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns the exit code of svp with these arguments.
pub fn code(env: &TestEnv, arguments: &[&str]) -> i32 {
    env.svp(arguments).stdin(Stdio::null()).output().unwrap().status.code().unwrap()
}

#[test]
fn the_life_of_a_service_from_run_to_rm() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    env.ok(["run", "-d", "--wait", "web"]);
    let at = address(&env, "web", "WEB");
    assert!(at.ip().to_string().starts_with("127.83."), "{at}");
    assert_eq!(at.port(), 3306);
    assert!(get(at, "/").ends_with("page\n"));
    // A second service of the same name is refused and changes nothing.
    assert_eq!(code(&env, &["run", "-d", "web"]), 125);
    env.ok(["exec", "web", "--", "sh", "-c", "echo new >/data/index.html; echo w >/etc/w"]);
    env.ok(["stop", "web"]);
    assert!(TcpStream::connect(at).is_err());
    let printed = info(&env, "web");
    assert_eq!(
        (printed["status"].as_str(), printed["exitCode"].as_i64()),
        (Some("exited"), Some(143))
    );
    assert_eq!(env.ok(["wait", "web"]), "143\n");
    assert!(!env.ok(["ps"]).contains("web"));
    assert!(env.ok(["ps", "--all"]).contains("exited (143)"));
    env.assert_nothing_left();
    // Its files and its address persist.
    env.ok(["start", "web", "--wait"]);
    assert_eq!(address(&env, "web", "WEB"), at);
    assert!(get(at, "/").ends_with("new\n"));
    assert_eq!(env.ok(["exec", "web", "cat", "/etc/w"]), "w\n");
    env.ok(["restart", "web"]);
    assert_eq!(code(&env, &["rm", "web"]), 2);
    env.ok(["rm", "--force", "web"]);
    assert_eq!(code(&env, &["info", "web"]), 2);
    env.assert_nothing_left();
}

#[test]
fn two_instances_and_a_privileged_port() {
    let env = TestEnv::new();
    instance(&env, "a", WEB_QUERY, WEB_BUILD, WEB_RUN);
    env.ok(["setup", "-i", "a-base", "-t", "b", "--network", "none"]);
    let low = WEB_QUERY.replace("3306", "80");
    instance(&env, "low", &low, WEB_BUILD, WEB_RUN);
    for name in ["a", "b"] {
        env.ok(["run", "-d", "--wait", name]);
    }
    let [a, b] = ["a", "b"].map(|name| address(&env, name, "WEB"));
    assert!(a.port() == 3306 && b.port() == 3306 && a.ip() != b.ip(), "{a} {b}");
    let [a_secret, b_secret] = [a, b].map(|at| get(at, "/password"));
    assert_ne!(a_secret.lines().last(), b_secret.lines().last());
    let run = env.svp(["run", "-d", "--wait", "low"]).output().unwrap();
    assert!(run.status.success());
    let ports = env.ok(["ports", "low"]);
    let (host, inside) = ports.trim().split_once("->").unwrap();
    assert_eq!(inside, "80/tcp");
    let host: SocketAddr = host.parse().unwrap();
    if host.port() != 80 {
        assert!(String::from_utf8_lossy(&run.stderr).contains(&host.to_string()));
    }
    assert!(get(host, "/").ends_with("page\n"));
    // The ports are not open on other addresses.
    for port in [3306, host.port()] {
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err() || !reached_from_elsewhere(port));
    }
    env.ok(["rm", "--force", "a", "b", "low"]);
    env.assert_nothing_left();
}

#[test]
fn the_specifications_pack_is_reached_as_env_prints() {
    let env = TestEnv::new();
    env.import_busybox();
    // The pack has no phases, no ports key and no network: MYSQL_PORT=3306 and MYSQL_HOST=%IP are its only answers. The
    // test adds a process that listens.
    let files = ["query", "build"].map(|name| {
        let text = std::fs::read_to_string(pack("spec-mysql").join("bin").join(name)).unwrap();
        (format!("bin/{name}"), text)
    });
    let run = "#!/bin/sh\nexec httpd -f -p \"$MYSQL_PORT\" -h /etc/mysql\n";
    let [query, build] = &files;
    let files = [(&*query.0, &*query.1), (&*build.0, &*build.1), ("bin/run", run)];
    let pack = env.write_pack("mysql", &files);
    let pack = pack.to_str().unwrap();
    let mut addresses = Vec::new();
    for name in ["mysql1", "mysql2"] {
        let build = ["build", "-b", pack, "-t", name, "--base", "busybox", "--network", "none"];
        let printed = env.ok([&build[..], &["--phase", "all"]].concat());
        assert!(printed.contains("MYSQL_HOST=%IP"), "{printed}");
        env.ok(["run", "-d", "--wait", name]);
        let variables = env.ok(["env", name]);
        let password = printed.lines().find(|line| line.starts_with("MYSQL_PASSWORD=")).unwrap();
        assert!(variables.contains(password) && !variables.contains("%IP"), "{variables}");
        let at = address(&env, name, "MYSQL");
        assert_eq!(at.port(), 3306);
        addresses.push((at, password.replace("MYSQL_PASSWORD", "password")));
    }
    assert_ne!(addresses[0].0, addresses[1].0);
    for (at, password) in addresses {
        let config = format!("user=user {password} port=3306\n");
        assert!(get(at, "/my.cnf").ends_with(&config));
    }
    env.ok(["rm", "--force", "mysql1", "mysql2"]);
    env.assert_nothing_left();
}

/// Returns whether a port is open on 127.0.0.1, which is no service's address.
fn reached_from_elsewhere(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_service_cannot_reach_the_hosts_loopback() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    env.ok(["run", "-d", "--wait", "web"]);
    let probe = ["exec", "web", "nc", "-w", "2", "127.0.0.1", &port];
    assert_ne!(code(&env, &probe), 0);
    // The service reaches itself at its own address.
    let get = "exec wget -q -O - http://$WEB_HOST:$WEB_PORT/";
    assert_eq!(env.ok(["exec", "web", "sh", "-c", get]), "page\n");
    env.ok(["rm", "--force", "web"]);
}

#[test]
fn a_dead_component_restarts_without_affecting_the_other() {
    let env = TestEnv::new();
    instance(&env, "two", TWO_QUERY, "#!/bin/sh\n", TWO_RUN);
    env.ok(["run", "-d", "--restart", "always", "two"]);
    let first = |process: &str| {
        let list = env.ok(["exec", "two", "ps", "-o", "pid,args"]);
        let of = |line: &&str| line.contains(&format!("/service/bin/run {process}"));
        let line = list.lines().find(of)?;
        line.split_whitespace().next().map(str::to_owned)
    };
    wait_until("both run", || first("one").is_some() && first("two").is_some());
    let two = first("two");
    for n in 1..=3 {
        let one = first("one").unwrap();
        env.ok(["exec", "two", "kill", "-9", &one]);
        wait_until("the component runs again", || {
            info(&env, "two")["components"][0]["restarts"] == n
                && first("one").is_some_and(|now| now != one)
        });
    }
    assert_eq!(first("two"), two);
    assert_eq!(info(&env, "two")["components"][1]["restarts"], 0);
    // The processes that a component left behind ended with it: one daemon of each component is left.
    let sleepers = env.ok(["exec", "two", "sh", "-c", "ps -o args | grep -c '[s]leep 1000'"]);
    assert_eq!(sleepers, "2\n");
    // After an explicit restart, the component runs again when svp returns.
    let one = first("one");
    env.ok(["restart", "-t", "1", "two", "one"]);
    assert!(first("one").is_some() && first("one") != one);
    assert_eq!(first("two"), two);
    env.ok(["stop", "-t", "5", "two"]);
    // Each component's log is complete and in order: 1, 2, 3, …, from 1 again after each start.
    let log = env.ok(["logs", "two", "one"]);
    assert_eq!(log.matches("one began").count(), 5);
    let mut expected = 1;
    for line in log.lines() {
        match line.strip_prefix("one ").unwrap() {
            "began" => expected = 1,
            number => {
                assert_eq!(number.parse::<u32>().unwrap(), expected, "{log}");
                expected += 1;
            }
        }
    }
    let both = env.ok(["logs", "two"]);
    assert!(both.lines().any(|line| line.starts_with("two | two 1")), "{both}");
    env.ok(["rm", "two"]);
    env.assert_nothing_left();
}

#[test]
fn after_any_kill_the_status_is_correct_and_start_recovers() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    env.ok(["run", "-d", "--wait", "web"]);
    let at = address(&env, "web", "WEB");
    let kill = |pid: &Value| {
        let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
        let killed = nix_kill(pid);
        assert!(killed, "kill {pid}");
    };
    kill(&info(&env, "web")["monitor"]);
    wait_until("the service is dead", || info(&env, "web")["status"] == "dead");
    env.assert_nothing_left();
    wait_until("nothing listens", || TcpStream::connect(at).is_err());
    assert_eq!(code(&env, &["exec", "web", "true"]), 125);
    env.ok(["start", "web", "--wait"]);
    assert!(get(at, "/").ends_with("page\n"));
    // The container's process 1, from outside.
    kill(&info(&env, "web")["pid"]);
    wait_until("the service has ended", || info(&env, "web")["status"] == "exited");
    env.assert_nothing_left();
    env.ok(["start", "web", "--wait"]);
    // Every process of svp.
    for printed in processes_of(env.dir()) {
        let pid = printed.split([' ', ':']).nth(1).unwrap().parse().unwrap();
        nix_kill(pid);
    }
    wait_until("the service is dead", || info(&env, "web")["status"] == "dead");
    wait_until("nothing listens", || TcpStream::connect(at).is_err());
    env.ok(["start", "web", "--wait"]);
    assert!(get(at, "/").ends_with("page\n"));
    env.ok(["rm", "--force", "web"]);
    env.assert_nothing_left();
}

fn nix_kill(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .is_ok()
}

#[test]
fn hard_services() {
    let env = TestEnv::new();
    env.import_busybox();
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    let make = |name: &str, run: &str| {
        instance(&env, name, query, "#!/bin/sh\n", &format!("#!/bin/sh\n{run}\n"));
    };
    make("deaf", "trap '' TERM INT; echo up; while :; do sleep 0.1; done");
    make(
        "zombies",
        "i=0; while [ $i -lt 50 ]; do (setsid sh -c true &) ; i=$((i+1)); done; echo up; exec sleep 1000",
    );
    make("brief", "echo again; exit 3");
    make("daemon", "(setsid httpd -f -p 7000 -h / &); echo up; sleep 0.3; exit 1");
    for name in ["deaf", "zombies"] {
        env.ok(["run", "-d", name]);
        wait_until("the service is up", || env.ok(["logs", name]) == "up\n");
    }
    let since = Instant::now();
    env.ok(["stop", "--time", "1", "deaf"]);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert_eq!(info(&env, "deaf")["exitCode"], 137);
    wait_until("the zombies are reaped", || {
        env.ok(["exec", "zombies", "sh", "-c", "ps -o stat | grep -c Z || true"]) == "0\n"
    });
    env.ok(["run", "-d", "--restart", "always", "brief"]);
    wait_until("the component has restarted", || {
        info(&env, "brief")["components"][0]["restarts"].as_u64() > Some(2)
    });
    // There is a back-off between two starts.
    assert!(env.ok(["logs", "brief"]).lines().count() < 50);
    wait_until("the component is down between two starts", || {
        info(&env, "brief")["components"][0]["running"] == false
    });
    env.ok(["stop", "brief"]);
    assert_eq!(info(&env, "brief")["exitCode"], 3);
    env.ok(["run", "-d", "--restart", "on-failure:2", "--name", "twice", "brief"]);
    wait_until("the monitor gave up", || info(&env, "twice")["status"] == "exited");
    assert_eq!(info(&env, "twice")["exitCode"], 3);
    assert_eq!(env.ok(["logs", "twice"]), "again\nagain\nagain\n");
    // When the component restarts, its daemon no longer holds the port.
    env.ok(["run", "-d", "--restart", "always", "daemon"]);
    wait_until("the component has restarted", || {
        info(&env, "daemon")["components"][0]["restarts"].as_u64() > Some(1)
    });
    assert!(!env.ok(["logs", "daemon"]).contains("in use"));
    env.ok(["rm", "--force", "deaf", "zombies", "brief", "twice", "daemon"]);
    env.assert_nothing_left();
}

#[test]
fn commands_in_a_service_have_their_own_codes_and_pipes() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    env.ok(["run", "-d", "web"]);
    assert_eq!(code(&env, &["exec", "web", "sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&env, &["exec", "web", "sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(code(&env, &["exec", "web", "no-such-program"]), 127);
    assert_eq!(code(&env, &["exec", "web", "/etc"]), 126);
    assert_eq!(code(&env, &["exec", "nowhere", "true"]), 125);
    assert_eq!(code(&env, &["client", "web"]), 127);
    let mut cat = env.svp(["exec", "web", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut stdin = cat.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let mut back = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap().unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(back == bytes, "{} bytes of {}", back.len(), bytes.len());
    // Standard error is separate; the confinement is the service's.
    let both = env.svp(["exec", "web", "sh", "-c", "echo out; echo err >&2"]).output().unwrap();
    assert_eq!((&both.stdout[..], &both.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let caps = "grep -E '^(CapEff|Seccomp)' /proc/self/status";
    let inside = env.ok(["exec", "web", "sh", "-c", caps]);
    let service =
        env.ok(["exec", "web", "sh", "-c", "grep -E '^(CapEff|Seccomp)' /proc/4/status || true"]);
    assert!(
        inside.contains("Seccomp:\t2") && inside.contains("CapEff:\t00000000a80405fb"),
        "{inside}{service}"
    );
    assert_eq!(
        env.ok(["exec", "-e", "A=b", "-w", "/tmp", "web", "sh", "-c", "echo $A $PWD $WEB_PORT"]),
        "b /tmp 3306\n"
    );
    env.ok(["rm", "--force", "web"]);
}

#[test]
fn in_the_foreground_svp_prints_the_output_and_a_signal_stops() {
    let env = TestEnv::new();
    instance(&env, "two", TWO_QUERY, "#!/bin/sh\n", TWO_RUN);
    let mut run = env.svp(["run", "--rm", "two", "one"]);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = run.stdout.take().unwrap();
    let mut head = [0; 9];
    out.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"one began");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143));
    assert_eq!(env.ok(["ps", "--all", "--quiet"]), "");
    env.assert_nothing_left();
    assert_eq!(code(&env, &["run", "two", "three"]), 125);
    assert_eq!(code(&env, &["run", "two-base"]), 125);
    assert_eq!(env.ok(["ps", "--all", "--quiet"]), "");
}

#[test]
fn a_linked_service_is_reached_by_its_address_whenever_it_runs() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    instance(&env, "user", query, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    assert_eq!(code(&env, &["run", "-d", "--link", "web", "user"]), 125);
    env.ok(["run", "-d", "--wait", "web"]);
    env.ok(["run", "-d", "--link", "web", "user"]);
    let get = || {
        env.svp(["exec", "user", "sh", "-c", "wget -q -O - http://$WEB_HOST:$WEB_PORT/"])
            .output()
            .unwrap()
    };
    assert_eq!(get().stdout, b"page\n");
    let secret = env.ok(["exec", "user", "sh", "-c", "echo $WEB_PASSWORD"]);
    assert!(env.ok(["env", "web"]).contains(secret.trim()) && secret.len() > 20);
    env.ok(["stop", "web"]);
    assert!(!get().status.success());
    env.ok(["start", "--wait", "web"]);
    assert_eq!(get().stdout, b"page\n");
    env.ok(["rm", "--force", "user", "web"]);
    env.assert_nothing_left();
}

#[test]
fn a_service_runs_on_after_its_linked_service_is_removed() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    instance(&env, "user", query, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "--wait", "web"]);
    env.ok(["run", "-d", "--link", "web", "user"]);
    let mut remove = env.svp(["rm", "--force", "web"]);
    let result = remove.output().unwrap();
    let text = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success() && text.contains("linked to web"), "{text}");
    assert!(text.contains("user"), "{text}");
    assert_eq!(env.ok(["exec", "user", "echo", "well"]), "well\n");
    assert_eq!(env.ok(["health", "user"]), "healthy\n");
    // A service that couldn't start again is not stopped.
    assert_eq!(code(&env, &["restart", "user"]), 2);
    assert_eq!(code(&env, &["backup", "user", "-o", "b"]), 125);
    assert_eq!(info(&env, "user")["status"], "running");
    env.ok(["rm", "--force", "user"]);
    // Nor is a service that would be removed when it stops.
    env.ok(["run", "-d", "--rm", "user", "--name", "brief"]);
    assert_eq!(code(&env, &["restart", "brief"]), 2);
    assert_eq!(info(&env, "brief")["status"], "running");
    env.ok(["stop", "-t", "0", "brief"]);
    env.assert_nothing_left();
}

#[test]
fn the_output_of_a_pack_does_not_decide_the_exit_code() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; ports) [ -e /built ] && echo \"can't run: no such file\";; esac\n";
    let build = "#!/bin/sh\n[ $1 = base ] || touch /built\n";
    instance(&env, "liar", query, build, "#!/bin/sh\nexec sleep 1000\n");
    let printed = env.svp(["run", "-d", "liar"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&printed.stderr);
    assert!(text.contains("no such file"), "{text}");
    assert_eq!(printed.status.code(), Some(125), "{text}");
    assert_eq!(env.ok(["ps", "--all", "--quiet"]), "");
}

#[test]
fn a_volume_may_have_any_name_and_is_pruned_when_no_service_has_it() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    instance(&env, "user", query, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    let volumes = ["data.restore-1", "data.before-restore-1"];
    env.ok(["run", "-d", "-v", "data.restore-1:/a", "-v", "data.before-restore-1:/b", "user"]);
    let list = || env.ok(["prune", "--volumes", "--dry-run"]);
    assert!(volumes.iter().all(|name| !list().contains(name)), "{}", list());
    env.ok(["rm", "--force", "user"]);
    assert!(volumes.iter().all(|name| list().contains(name)), "{}", list());
    env.ok(["prune", "--volumes"]);
    assert!(volumes.iter().all(|name| !list().contains(name)), "{}", list());
}

#[test]
fn a_failed_start_is_explained_and_leaves_nothing() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    instance(&env, "bad", query, "#!/bin/sh\n", "#!/no/such/interpreter\n");
    for more in [&["-d"][..], &[]] {
        let arguments = [&["run"], more, &["bad"]].concat();
        let printed = env.svp(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(printed.status.code(), Some(126), "{printed:?}");
        let text = String::from_utf8_lossy(&printed.stderr);
        assert!(text.contains("/no/such/interpreter") && text.contains("hint"), "{text}");
        assert_eq!(env.ok(["ps", "--all", "--quiet"]), "");
        env.assert_nothing_left();
    }
}

#[test]
fn an_image_is_kept_while_a_service_needs_it() {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, WEB_BUILD, WEB_RUN);
    env.ok(["run", "-d", "--wait", "web"]);
    env.ok(["rmi", "web", "web-base", "busybox"]);
    env.ok(["prune", "--wait", "10"]);
    env.ok(["check", "--store"]);
    env.ok(["restart", "web"]);
    assert!(get_when_up(&env).ends_with("page\n"));
    env.ok(["rm", "--force", "--volumes", "web"]);
    env.ok(["prune", "--wait", "10"]);
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 0);
}

fn get_when_up(env: &TestEnv) -> String {
    env.ok(["health", "web", "--wait"]);
    get(address(env, "web", "WEB"), "/")
}

#[test]
fn logs_are_complete_for_any_output() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    let run = "#!/bin/sh\necho first\necho wrong >&2\nhead -c 3000000 /dev/zero | tr '\\0' x; echo\n\
        seq 1 20000\nprintf 'no end'\n";
    instance(&env, "talker", query, "#!/bin/sh\n", run);
    assert_eq!(code(&env, &["run", "-d", "talker"]), 0);
    env.ok(["wait", "talker"]);
    let log = env.svp(["logs", "talker"]).output().unwrap();
    assert_eq!(log.stderr, b"wrong\n");
    let text = String::from_utf8(log.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1].len(), lines.len()), ("first", 3_000_000, 20_003));
    assert_eq!(lines[20_001..], ["20000", "no end"]);
    assert_eq!(env.ok(["logs", "-n", "2", "talker"]), "20000\nno end\n");
    // A line that was kept in pieces counts as one, and is printed in full.
    let long = env.svp(["logs", "-n", "20002", "talker"]).output().unwrap();
    assert!(long.stdout.split(|byte| *byte == b'\n').next().unwrap().len() == 3_000_000);
    assert_eq!(env.ok(["logs", "--until", "1h", "talker"]), "");
    assert_eq!(env.ok(["logs", "-n", "1", "--since", "1h", "talker"]), "no end\n");
    let json: Value =
        serde_json::from_str(env.ok(["logs", "-n1", "--format", "json", "talker"]).trim()).unwrap();
    assert_eq!(
        (json["text"].as_str(), json["component"].as_str()),
        (Some("no end"), Some("talker"))
    );
    env.ok(["rm", "talker"]);
}

#[test]
fn the_hello_pack_answers_its_client() {
    let env = TestEnv::new();
    env.import_busybox();
    let hello = pack("hello");
    env.ok([
        "build",
        "-b",
        hello.to_str().unwrap(),
        "-t",
        "hello",
        "--base",
        "busybox",
        "--network",
        "none",
    ]);
    env.ok(["setup", "-i", "hello", "-t", "h", "--network", "none"]);
    env.ok(["run", "-d", "--wait", "h"]);
    assert!(env.ok(["client", "h"]).contains("hello from the instance"));
    assert!(env.ok(["client", "-c", "h"]).contains("hello from the instance"));
    assert!(!env.ok(["extra", "h", "help"]).is_empty());
    assert_eq!(env.ok(["health", "h"]), "healthy\n");
    env.ok(["rm", "--force", "h"]);
}
