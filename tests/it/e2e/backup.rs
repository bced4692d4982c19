//! Backups: created, refused, interrupted, restored; a failure changes nothing.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::e2e::services::instance;
use crate::support::{TestEnv, output, pack, run, success, transcript, wait_until};

/// A service with one value in its volume, which controls the behaviour of its scripts.
const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; volumes) echo /data; echo /srv/b;;\n\
    env) echo X_HOST=%IP;; health) echo 'test ! -e /data/sick && { test ! -e /data/away || test $X_HOST = 127.0.0.1; }';;\n\
    esac\n";
const BUILD: &str = "#!/bin/sh\nset -eu\n[ \"$1\" = setup ] || exit 0\nmkdir -p /data /srv/b\n\
    echo built >/data/x\nchown 1000:1000 /data/x\nln -s x /data/link\n";
const RUN: &str = "#!/bin/sh\nexec sleep 100000\n";
const BACKUP: &str = "#!/bin/sh\ncat /data/x\necho the backup of $(cat /data/x) >&2\n\
    case $(cat /data/x) in fail*) exit 3;; hang*) sleep 4711;; killed*) kill -9 $$;;\n\
    left*) sleep 4712 & ;; esac\n";
const RESTORE: &str = "#!/bin/sh\ncat >/data/x\ncase $(cat /data/x) in\n\
    bad*) echo no good >&2; exit 4;; sick*) touch /data/sick;; away*) touch /data/away;;\n\
    stay*) sleep 4714;; esac\n";

struct Service {
    env: TestEnv,
}

impl Service {
    /// Runs a service `one` of a pack with these backup scripts.
    fn new(scripts: &[(&str, &str)]) -> Service {
        let env = TestEnv::new();
        env.import_busybox();
        let files = [("bin/query", QUERY), ("bin/build", BUILD), ("bin/run", RUN)];
        let pack = env.write_pack("pack", &[&files[..], scripts].concat());
        let pack = pack.to_str().unwrap();
        env.ok(["build", "-b", pack, "-t", "base", "--base", "busybox", "--network", "none"]);
        let service = Service { env };
        service.add("one");
        service
    }

    fn with_scripts() -> Service {
        Service::new(&[("bin/backup", BACKUP), ("bin/restore", RESTORE)])
    }

    fn add(&self, name: &str) {
        self.env.ok(["setup", "-i", "base", "-t", name, "--network", "none"]);
        self.env.ok(["run", "-d", "--wait", "--network", "none", name]);
    }

    fn set(&self, value: &str) {
        self.env.ok(["exec", "one", "sh", "-c", &format!("echo '{value}' >/data/x")]);
    }

    fn get(&self) -> String {
        self.env.ok(["exec", "one", "cat", "/data/x"])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.env.path(name)
    }

    fn backup(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.env.ok(["backup", "one", "-o", path.to_str().unwrap()]);
        path
    }

    /// Runs `svp restore` on a file, with further arguments.
    fn restore(&self, file: &Path, more: &[&str]) -> Output {
        let mut command = self.env.svp(["restore", "one", "-i", file.to_str().unwrap()]);
        output(command.args(more))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.env.ok(["info", "one", "--format", "json"])).unwrap()
    }

    fn started(&self) -> Option<i64> {
        self.status()["monitor"].as_i64()
    }

    /// Checks that nothing exists but the service, its one directory and its volumes.
    #[track_caller]
    fn assert_alone(&self) {
        let names = |dir: &Path| {
            let mut names: Vec<String> = std::fs::read_dir(dir)
                .map(|all| all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect())
                .unwrap_or_default();
            names.sort();
            names
        };
        let store = self.env.store();
        assert_eq!(names(&store.join("services")), ["one"]);
        assert!(!store.join("services/one/swap.json").exists());
        assert!(names(&store.join("tmp")).is_empty());
        for area in std::fs::read_dir(store.join("trees")).unwrap() {
            let area = area.unwrap().path();
            if area.join("services").exists() {
                assert_eq!(names(&area.join("services")).len(), 1);
                assert_eq!(names(&area.join("volumes")), ["one.data", "one.srv-b"]);
            }
        }
        let left: Vec<String> =
            names(&self.path("")).into_iter().filter(|n| n.starts_with(".svp")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[track_caller]
fn code(result: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(code), "{text}");
    text
}

#[test]
fn the_data_of_the_hello_pack_is_restored() {
    let env = TestEnv::new();
    env.import_busybox();
    let hello = pack("hello");
    let hello = hello.to_str().unwrap();
    env.ok(["build", "-b", hello, "-t", "hello", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "hello", "-t", "h1", "--network", "none"]);
    env.ok(["run", "-d", "--wait", "h1"]);
    let address = env.ok(["ports", "h1"]);
    env.ok(["extra", "h1", "greet", "the law"]);
    let file = env.path("h1.zst");
    let file = file.to_str().unwrap();
    env.ok(["backup", "h1", "-o", file, "--verify"]);
    // Other tools decompress it to the script's output.
    let listing = run("sh", ["-c", &format!("zstd -dc {file} | tar -tv")]);
    assert!(listing.contains("1000/1000") && listing.contains("index.html"), "{listing}");
    env.ok(["exec", "h1", "--", "sh", "-c", "rm -rf /var/lib/hello/*; echo x >/var/lib/hello/y"]);
    env.fails(1, ["client", "h1"]);
    assert_eq!(env.ok(["restore", "h1", "-i", file]), "h1\n");
    assert_eq!(env.ok(["client", "h1"]), "the law\n");
    assert_eq!(env.ok(["extra", "h1", "pages"]), "index.html\n");
    assert_eq!(env.ok(["ports", "h1"]), address);
    env.ok(["rm", "--force", "--volumes", "h1"]);
    env.assert_nothing_left();
}

#[test]
fn the_keys_of_redis_are_restored() {
    let env = TestEnv::new();
    instance(&env, "redis");
    env.ok(["run", "-d", "--wait", "--name", "keys", "instance"]);
    let fill = "for i = 1, 20000 do redis.call('set', i, string.rep(i, 20)) end return 'full'";
    assert_eq!(env.ok(["client", "keys", "eval", fill, "0"]), "full\n");
    let address = env.ok(["ports", "keys"]);
    env.ok(["backup", "keys", "-o", "keys.zst", "--verify"]);
    env.ok(["extra", "keys", "flush"]);
    assert_eq!(env.ok(["client", "keys", "dbsize"]), "0\n");
    env.ok(["restore", "keys", "-i", "keys.zst"]);
    assert_eq!(env.ok(["client", "keys", "dbsize"]), "20000\n");
    assert_eq!(env.ok(["client", "keys", "get", "12"]).trim(), "12".repeat(20));
    assert_eq!(env.ok(["ports", "keys"]), address);
    env.ok(["restart", "keys"]);
    env.ok(["health", "keys", "--wait"]);
    assert_eq!(env.ok(["client", "keys", "dbsize"]), "20000\n");
    env.ok(["rm", "--force", "--volumes", "keys"]);
    env.assert_nothing_left();
}

#[test]
fn every_compression_keeps_the_data_and_its_header() {
    let service = Service::with_scripts();
    service.set("some data");
    let env = &service.env;
    for (compression, tool) in [("zstd", "zstd"), ("gzip", "gzip"), ("none", "cat")] {
        let arguments = ["backup", "one", "--compression", compression];
        let result = output(&mut env.svp(arguments));
        assert!(code(&result, 0).contains("the backup of some data"));
        let file = service.path(compression);
        std::fs::write(&file, &result.stdout).unwrap();
        let decompress =
            format!("{tool} {} <{}", if tool == "cat" { "" } else { "-dc" }, file.display());
        assert_eq!(run("sh", ["-c", &decompress]), "some data\n");
        service.set("other data");
        let mut restore = env.svp(["restore", "one"]);
        restore.stdin(File::open(&file).unwrap());
        let printed = code(&restore.output().unwrap(), 0);
        let says = printed.contains("a backup of one (one:latest)");
        assert_eq!(says, compression != "none", "{printed}");
        assert_eq!(service.get(), "some data\n");
    }
    // With a compression level, and compressed by other tools.
    env.ok(["backup", "one", "--compression-level", "9", "-o", "b.zst"]);
    env.fails(125, ["backup", "one", "--compression-level", "99"]);
    run("sh", ["-c", &format!("cd {} && zstd -dc b.zst | gzip >b.gz", service.path("").display())]);
    service.set("else");
    let printed = code(&service.restore(&service.path("b.gz"), &[]), 0);
    assert!(printed.contains("the backup has no header"), "{printed}");
    assert_eq!(service.get(), "some data\n");
    service.assert_alone();
}

#[test]
fn a_failed_backup_never_touches_the_last_good_one() {
    let service = Service::with_scripts();
    let file = service.backup("b");
    let good = std::fs::read(&file).unwrap();
    let to_file = ["backup", "one", "-o", "b"];
    for (value, expected) in [("fail", 3), ("killed", 137)] {
        service.set(value);
        let result = output(&mut service.env.svp(to_file));
        let printed = code(&result, expected);
        assert!(
            printed.contains("b is unchanged") && printed.contains("the backup of"),
            "{printed}"
        );
        assert_eq!(std::fs::read(&file).unwrap(), good);
        // No decompressor accepts the truncated stream as complete.
        let result = output(&mut service.env.svp(["backup", "one"]));
        code(&result, expected);
        std::fs::write(service.path("part"), &result.stdout).unwrap();
        let part = output(Command::new("zstd").arg("-dc").arg(service.path("part")));
        assert!(!part.status.success(), "{part:?}");
    }
    // A process still holds the output after the script has ended.
    service.set("left");
    let printed = code(&output(&mut service.env.svp(to_file)), 125);
    assert!(printed.contains("still holds"), "{printed}");
    service.set("fine");
    let printed = code(&output(&mut service.env.svp(["backup", "one", "-o", "/dev/full"])), 125);
    assert!(printed.contains("No space left"), "{printed}");
    let mut limited = service.env.command("sh");
    let svp = env!("CARGO_BIN_EXE_svp");
    service.env.ok(["exec", "one", "sh", "-c", "head -c 3000000 /dev/urandom >/data/x"]);
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -f 100; exec {svp} backup one -o b")]);
    code(&output(&mut limited), 125);
    assert_eq!(std::fs::read(&file).unwrap(), good);
    for arguments in
        [&["backup", "none"][..], &["backup", "one", "-o", "."], &["backup", "one", "-o", "no/b"]]
    {
        service.env.fails(125, arguments);
    }
    service.env.ok(["stop", "one", "-t", "0"]);
    let printed = service.env.fails(125, to_file);
    assert!(printed.contains("svp start one"), "{printed}");
    assert_eq!(std::fs::read(&file).unwrap(), good);
    service.assert_alone();
}

fn spawn(service: &Service, arguments: &[&str]) -> Child {
    let mut command = service.env.svp(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

fn kill(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

#[test]
fn an_interrupted_backup_leaves_nothing() {
    let service = Service::with_scripts();
    let file = service.backup("b");
    let good = std::fs::read(&file).unwrap();
    service.set("hang");
    let hangs = || !crate::support::processes_with("sleep\x004711\0").is_empty();
    for (signal, expected) in
        [(Signal::INT, Some(130)), (Signal::TERM, Some(130)), (Signal::KILL, None)]
    {
        let mut child = spawn(&service, &["backup", "one", "-o", "b"]);
        wait_until("the script hangs", hangs);
        kill(&child, signal);
        assert_eq!(child.wait().unwrap().code(), expected);
        assert_eq!(std::fs::read(&file).unwrap(), good);
        wait_until("the children of the script have ended", || !hangs());
        assert_eq!(service.status()["status"], "running");
    }
    service.assert_alone();
}

#[test]
fn a_failed_restore_changes_nothing() {
    let service = Service::with_scripts();
    for (value, name) in [("good", "good"), ("bad", "bad"), ("sick", "sick")] {
        service.set(value);
        service.backup(name);
    }
    service.set("mine");
    let monitor = service.started();
    let same = |service: &Service| {
        assert_eq!(service.get(), "mine\n");
        assert_eq!(service.started(), monitor, "the service was stopped");
        service.assert_alone();
    };
    let printed = code(&service.restore(&service.path("bad"), &[]), 4);
    assert!(
        printed.contains("no good") && printed.contains("everything is as it was"),
        "{printed}"
    );
    same(&service);
    let printed = code(&service.restore(&service.path("sick"), &["--wait", "1"]), 125);
    assert!(printed.contains("not healthy"), "{printed}");
    same(&service);
    // Damaged or truncated at any position.
    let good = std::fs::read(service.path("good")).unwrap();
    let note = good.len() - 30;
    for cut in [0, 3, 20, note, good.len() - 1] {
        std::fs::write(service.path("cut"), &good[..cut]).unwrap();
        code(&service.restore(&service.path("cut"), &[]), 125);
    }
    for at in [good.len() - 1, good.len() - 8] {
        let mut damaged = good.clone();
        damaged[at] ^= 0xff;
        std::fs::write(service.path("damaged"), damaged).unwrap();
        code(&service.restore(&service.path("damaged"), &[]), 125);
    }
    same(&service);
    // A backup of another image is refused without --force.
    service.add("two");
    service.env.ok(["backup", "two", "-o", "two"]);
    let printed = code(&service.restore(&service.path("two"), &[]), 125);
    assert!(printed.contains("backup of two") && printed.contains("--force"), "{printed}");
    service.env.ok(["rm", "--force", "--volumes", "two"]);
    same(&service);
    code(&service.restore(&service.path("two"), &["--force"]), 0);
    assert_eq!(service.get(), "built\n");
    // A stopped service is restored, and stays stopped.
    service.env.ok(["stop", "one", "-t", "0"]);
    code(&service.restore(&service.path("good"), &[]), 0);
    assert_eq!(service.status()["status"], "exited");
    service.env.ok(["start", "one"]);
    assert_eq!(service.get(), "good\n");
    service.assert_alone();
}

#[test]
fn a_restored_service_that_is_unhealthy_is_rolled_back() {
    let service = Service::with_scripts();
    service.env.ok(["rm", "--force", "--volumes", "one"]);
    // The service has its own address; its candidate, of a service without ports, has no network.
    service.env.ok(["run", "-d", "--wait", "one"]);
    service.set("away");
    service.backup("b");
    service.set("mine");
    service.env.ok(["exec", "one", "sh", "-c", "echo w >/etc/written"]);
    let printed = code(&service.restore(&service.path("b"), &["--wait", "1"]), 125);
    assert!(printed.contains("it replaces the old one"), "{printed}");
    assert!(printed.contains("not restored, everything is as it was"), "{printed}");
    assert_eq!(service.status()["status"], "running");
    assert_eq!(service.get(), "mine\n");
    assert_eq!(service.env.ok(["exec", "one", "cat", "/etc/written"]), "w\n");
    service.assert_alone();
    // An interrupt at this point is rolled back too.
    let mut child = spawn(&service, &["restore", "one", "-i", "b"]);
    let journal = service.env.store().join("services/one/swap.json");
    wait_until("the cutover has begun", || journal.exists());
    kill(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(service.status()["status"], "running");
    assert_eq!(service.get(), "mine\n");
    service.assert_alone();
}

#[test]
fn a_volume_in_use_by_another_service_is_not_replaced() {
    let service = Service::with_scripts();
    let file = service.backup("b");
    service.env.ok(["rm", "--force", "--volumes", "one"]);
    let run = ["run", "-d", "--network", "none", "-v", "both:/data"];
    for name in ["one", "two"] {
        service.env.ok([&run[..], &["--name", name, "one"]].concat());
    }
    service.set("mine");
    let printed = code(&service.restore(&file, &[]), 125);
    assert!(printed.contains("two is running with the same volume, both"), "{printed}");
    service.env.ok(["stop", "-t", "0", "two"]);
    code(&service.restore(&file, &[]), 0);
    service.env.ok(["start", "two"]);
    for name in ["one", "two"] {
        assert_eq!(service.env.ok(["exec", name, "cat", "/data/x"]), "built\n");
    }
}

#[test]
fn a_restore_waits_until_the_candidate_listens() {
    let env = TestEnv::new();
    env.import_busybox();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; ports) echo 4713;; volumes) echo /data;; esac\n";
    // The service listens late, and only then creates the file that the script needs.
    let run = "#!/bin/sh\nsleep 1; touch /tmp/ready\nexec nc -ll -p 4713 -e cat\n";
    let restore = "#!/bin/sh\ntest -e /tmp/ready && cat >/data/x\n";
    let files = [
        ("bin/query", query),
        ("bin/build", "#!/bin/sh\nmkdir -p /data\n"),
        ("bin/run", run),
        ("bin/backup", "#!/bin/sh\necho data\n"),
        ("bin/restore", restore),
    ];
    let pack = env.write_pack("late", &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "b", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "b", "-t", "late", "--network", "none"]);
    // On the host's network, which the candidate must not share.
    env.ok(["run", "-d", "--network", "host", "late"]);
    env.ok(["backup", "late", "-o", "late.zst", "--verify"]);
    env.ok(["restore", "late", "-i", "late.zst"]);
    assert_eq!(env.ok(["exec", "late", "cat", "/data/x"]), "data\n");
    env.ok(["rm", "--force", "--volumes", "late"]);
    env.assert_nothing_left();
}

#[test]
fn an_interrupted_copy_starts_the_service_again() {
    let service = Service::new(&[]);
    let fill = "head -c 30000000 /dev/urandom >/data/big; for i in 1 2 3 4; do cat /data/big >>/data/x; done";
    service.env.ok(["exec", "one", "sh", "-c", fill]);
    let mut child = spawn(&service, &["backup", "one", "-o", "b"]);
    wait_until("the service is stopped", || service.status()["status"] != "running");
    for arguments in [
        &["stop", "one"][..],
        &["stop", "--all"],
        &["start", "one"],
        &["restart", "one"],
        &["rm", "one"],
        &["rm", "--force", "one"],
    ] {
        let error = service.env.fails(2, arguments);
        assert!(error.contains("a backup of one is being created"), "{error}");
    }
    kill(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!service.path("b").exists());
    assert_eq!(service.status()["status"], "running");
    service.assert_alone();
}

#[test]
fn stop_is_refused_while_a_backup_stops_the_service() {
    let env = TestEnv::new();
    env.import_busybox();
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    let run =
        "#!/bin/sh\ntrap 'touch /stopping; sleep 3; exit 0' TERM\nwhile :; do sleep 0.1; done\n";
    let files = [("bin/query", query), ("bin/build", "#!/bin/sh\n"), ("bin/run", run)];
    let pack = env.write_pack("slow", &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "b", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "b", "-t", "slow", "--network", "none"]);
    env.ok(["run", "-d", "slow"]);
    let mut backup = env.svp(["backup", "slow", "-o", "file"]).spawn().unwrap();
    wait_until("the service is being stopped", || {
        env.svp(["exec", "slow", "test", "-e", "/stopping"]).output().unwrap().status.success()
    });
    for arguments in [&["stop", "slow"][..], &["restart", "slow"], &["rm", "--force", "slow"]] {
        let error = env.fails(2, arguments);
        assert!(error.contains("a backup of slow is being created"), "{error}");
    }
    assert!(backup.wait().unwrap().success());
    assert!(env.ok(["ps"]).contains("running"));
    env.ok(["rm", "--force", "slow"]);
    env.assert_nothing_left();
}

#[test]
fn verify_detects_a_bad_backup() {
    let service = Service::with_scripts();
    let file = service.backup("b");
    let good = std::fs::read(&file).unwrap();
    let monitor = service.started();
    for (value, expected) in [("bad", 4), ("sick", 125)] {
        service.set(value);
        let arguments = ["backup", "one", "-o", "b", "--verify", "--wait", "1"];
        code(&output(&mut service.env.svp(arguments)), expected);
        assert_eq!(std::fs::read(&file).unwrap(), good);
        let result = output(&mut service.env.svp(["backup", "one", "--verify", "--wait", "1"]));
        code(&result, expected);
        assert!(result.stdout.is_empty());
    }
    service.env.ok(["backup", "one", "--verify", "-i", "b"]);
    service.set("gz");
    let result =
        output(&mut service.env.svp(["backup", "one", "--verify", "--compression", "none"]));
    assert_eq!((code(&result, 0).contains("verified"), &result.stdout[..]), (true, &b"gz\n"[..]));
    assert_eq!(service.started(), monitor);
    service.assert_alone();
}

#[test]
fn a_killed_restore_leaves_the_old_or_the_new_service() {
    let service = Service::with_scripts();
    service.set("new");
    service.backup("b");
    let mut seen = [0, 0];
    for round in 0..16 {
        service.set("old");
        service.env.ok(["exec", "one", "sh", "-c", "echo w >/etc/written"]);
        let signal = if round % 3 == 2 { Signal::TERM } else { Signal::KILL };
        let mut child = spawn(&service, &["restore", "one", "-i", "b"]);
        std::thread::sleep(Duration::from_millis(round * 40));
        kill(&child, signal);
        child.wait().unwrap();
        let status = service.status()["status"].as_str().unwrap().to_owned();
        assert!(
            ["running", "exited", "dead", "starting", "stopping"].contains(&&status[..]),
            "{status}"
        );
        wait_until("the service starts or has started", || {
            let runs = service.status()["status"] == "running";
            runs || service.env.svp(["start", "one"]).output().unwrap().status.success()
        });
        let value = service.get();
        let written = service.env.svp(["exec", "one", "cat", "/etc/written"]).output().unwrap();
        match (&value[..], written.status.success()) {
            ("old\n", true) => seen[0] += 1,
            ("new\n", false) => seen[1] += 1,
            other => panic!("after {} ms: {other:?}", round * 40),
        }
    }
    assert!(seen[0] > 0, "{seen:?}");
    code(&service.restore(&service.path("b"), &[]), 0);
    assert_eq!(service.get(), "new\n");
    service.assert_alone();
    service.env.ok(["rm", "--force", "--volumes", "one"]);
    service.env.assert_nothing_left();
}

#[test]
fn the_candidate_of_a_killed_restore_is_removed() {
    let service = Service::with_scripts();
    service.set("stay");
    service.backup("b");
    service.set("mine");
    let stays = || !crate::support::processes_with("sleep\x004714\0").is_empty();
    for mend in [&["prune"][..], &["restart", "one", "-t", "0"]] {
        let mut child = spawn(&service, &["restore", "one", "-i", "b"]);
        wait_until("the script is running", stays);
        kill(&child, Signal::KILL);
        child.wait().unwrap();
        let all = service.env.ok(["ps", "-a", "-q"]);
        let copy = all.lines().find(|name| name.starts_with("one.restore-")).unwrap();
        wait_until("the script has ended", || !stays());
        let printed = service.env.fails(2, ["start", copy]);
        assert!(printed.contains("a killed restore of one"), "{printed}");
        let printed = output(&mut service.env.svp(["prune", "--dry-run"]));
        assert!(code(&printed, 0).contains("would be removed"));
        assert_eq!(service.env.ok(["ps", "-a", "-q"]), all);
        service.env.ok(mend);
        service.assert_alone();
        assert_eq!(service.get(), "mine\n");
    }
}

#[test]
fn a_pack_without_scripts_is_copied_while_it_is_stopped() {
    let service = Service::new(&[]);
    service.env.ok(["exec", "one", "sh", "-c",
        "echo mine >/data/x; mkdir /srv/b/d; ln /data/x /data/hard; echo e >/etc/e; rm /bin/vi; chown 7:8 /srv/b/d"]);
    let result = output(&mut service.env.svp(["backup", "one", "-o", "b"]));
    let printed = code(&result, 0);
    assert!(printed.contains("no bin/backup: one is stopped"), "{printed}");
    assert_eq!(service.status()["status"], "running");
    let listing = run("sh", ["-c", &format!("zstd -dc {} | tar -tv", service.path("b").display())]);
    for part in ["writes/etc/e", "writes/bin/.wh.vi", "volumes/data/x", "1000/1000", "7/8"] {
        assert!(listing.contains(part), "no {part} in {listing}");
    }
    service.env.ok([
        "exec",
        "one",
        "sh",
        "-c",
        "rm -r /data/* /srv/b/d; echo f >/etc/f; rm /etc/e",
    ]);
    code(&service.restore(&service.path("b"), &[]), 0);
    let look = "cat /data/link /data/hard /etc/e; stat -c %h:%u /data/x; stat -c %u:%g /srv/b/d; ls /etc/f /bin/vi || true";
    let found = service.env.ok(["exec", "one", "sh", "-c", look]);
    assert_eq!(found, "mine\nmine\ne\n2:1000\n7:8\n");
    // Verified, and restored through a pipe.
    let result =
        output(&mut service.env.svp(["backup", "one", "--verify", "--compression", "gzip"]));
    code(&result, 0);
    service.set("wrecked");
    let mut restore = service.env.svp(["restore", "one"]);
    let mut child = restore.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&result.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(service.get(), "mine\n");
    service.assert_alone();
}

/// Runs a script in a mount namespace with a tmpfs of this many megabytes at `disk` in the environment.
fn with_small_disk(service: &Service, megabytes: u32, script: &str) -> Output {
    let dir = service.path("disk");
    std::fs::create_dir_all(&dir).unwrap();
    let mut unshare = service.env.command("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-euc"]);
    unshare.arg(format!("mount -t tmpfs -o size={megabytes}m tmpfs {}\n{script}", dir.display()));
    output(&mut unshare)
}

#[test]
fn a_service_restarts_although_its_backup_does_not_fit() {
    // No other owner than root: the user namespace of the disk has a single user.
    let build = "#!/bin/sh\nmkdir -p /data /srv/b; echo built >/data/x\n";
    let service = Service::new(&[("bin/build", build)]);
    let env = &service.env;
    // The store, the services' files and the backup are all on one small disk.
    let store = service.path("disk/store");
    let other = |arguments: &str| {
        let svp = env!("CARGO_BIN_EXE_svp");
        format!("SVP_ROOT={} {svp} {arguments}\n", store.display())
    };
    env.ok(["save", "busybox", "-o", "oci-archive:busybox.oci"]);
    let script = [
        "cd ..; cd work\n".to_owned(),
        other("build -b pack -t base --base oci-archive:busybox.oci --network none >&2"),
        other("setup -i base -t one --network none >&2"),
        other("run -d --wait --network none one >&2"),
        other("exec one -- sh -c 'head -c 20000000 /dev/urandom >/data/x' >&2"),
        // Leave space for half of the backup.
        "left=$(df -k --output=avail disk | tail -n 1); head -c $(((left - 10000) * 1024)) /dev/zero >disk/full\n".to_owned(),
        format!("code=0; {} [ $code = 125 ]\n", other("backup one -o disk/b || code=$?")),
        "[ ! -e disk/b ]\n".to_owned(),
        other("ps -q"),
        other("exec one -- wc -c /data/x"),
        other("rm --force --volumes one >&2"),
    ];
    let result = with_small_disk(&service, 120, &script.concat());
    let printed = code(&result, 0);
    assert!(printed.contains("No space left"), "{printed}");
    assert_eq!(String::from_utf8_lossy(&result.stdout), "one\n20000000 /data/x\n");
}

#[test]
fn the_header_of_a_backup_is_shown() {
    let service = Service::with_scripts();
    service.backup("b");
    let shown: Value = serde_json::from_str(&service.env.ok(["backup", "--show", "b"])).unwrap();
    let digest = service.status()["digest"].clone();
    assert_eq!((&shown["service"], &shown["image"]), (&"one".into(), &"one:latest".into()));
    assert_eq!(shown["digest"], digest);
    assert!(shown["created"].as_str().unwrap().starts_with("20"), "{shown}");
    std::fs::write(service.path("other"), "x").unwrap();
    service.env.fails(125, ["backup", "--show", "other"]);
    service.env.fails(2, ["backup"]);
    service.env.fails(2, ["backup", "one", "--show", "b"]);
}

#[test]
fn an_empty_backup_is_reported() {
    let service = Service::with_scripts();
    service.env.ok(["exec", "one", "sh", "-c", ": >/data/x"]);
    let result = output(&mut service.env.svp(["backup", "one", "-o", "b"]));
    assert!(code(&result, 0).contains("the backup is empty"));
    // The reader may stop early.
    service.env.ok(["exec", "one", "sh", "-c", "head -c 3000000 /dev/urandom >/data/x"]);
    let mut head = service.env.command("bash");
    let svp = env!("CARGO_BIN_EXE_svp");
    head.args([
        "-c",
        &format!("{svp} backup one | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"),
    ]);
    let printed = code(&output(&mut head), 125);
    assert!(printed.contains("the backup's reader has exited"), "{printed}");
    service.assert_alone();
}

/// Creates hostile archives.
const HOSTILE: &str = r"
import io, sys, tarfile
out, canary = sys.argv[1:]
def entry(name, **more):
    info = tarfile.TarInfo(name)
    for key, value in more.items(): setattr(info, key, value)
    return info
def archive(name, *entries):
    with tarfile.open(out + '/' + name, 'w') as tar:
        for info, *content in entries:
            data = content[0] if content else b''
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
link = lambda name, to: (entry(name, type=tarfile.SYMTYPE, linkname=to),)
hard = lambda name, to: (entry(name, type=tarfile.LNKTYPE, linkname=to),)
file = lambda name: (entry(name), b'hostile')
archive('h1', file('volumes/data/../../../../../../../../..' + canary))
archive('h2', link('volumes/data/l', '/'), file('volumes/data/l' + canary))
archive('h3', link('writes/l', '/'), file('writes/l' + canary))
archive('h4', file('/' + canary))
archive('h5', file('volumes/other/x'))
archive('h6', file('volumes/data/x'), file('writes/x'), file('volumes/data/y'))
archive('h7', hard('writes/x', canary))
archive('h8', hard('volumes/data/y', 'writes/etc/passwd'))
archive('h9', link('volumes/data/up', '../../../../../..'), file('volumes/data/up' + canary))
";

#[test]
fn hostile_archives_cannot_escape() {
    let service = Service::new(&[]);
    service.set("mine");
    let canary = service.path("canary");
    std::fs::write(&canary, "alive").unwrap();
    let dir = service.path("");
    run("/usr/bin/python3", ["-c", HOSTILE, dir.to_str().unwrap(), canary.to_str().unwrap()]);
    for n in 1..=9 {
        let result = service.restore(&service.path(&format!("h{n}")), &["--wait", "5"]);
        let text = String::from_utf8_lossy(&result.stderr).into_owned();
        assert_eq!(std::fs::read(&canary).unwrap(), b"alive", "h{n}: {text}");
        // Links that stay inside the volume are accepted; all other archives are refused.
        let inside = result.status.success() && [2, 3, 9].contains(&n);
        assert!(inside || result.status.code() == Some(125), "h{n}: {text}");
        if !inside {
            assert_eq!(service.get(), "mine\n", "h{n}");
        }
        service.assert_alone();
        service.set("mine");
    }
}

#[test]
fn packs_with_only_one_of_both_scripts() {
    let service = Service::new(&[("bin/backup", BACKUP)]);
    let result = output(&mut service.env.svp(["backup", "one", "-o", "b"]));
    assert!(code(&result, 0).contains("no bin/restore"));
    let printed = code(&service.restore(&service.path("b"), &[]), 125);
    assert!(printed.contains("no bin/restore"), "{printed}");
    service.assert_alone();
}

#[test]
fn a_backup_is_not_written_to_a_terminal() {
    let service = Service::with_scripts();
    let svp = env!("CARGO_BIN_EXE_svp");
    for command in ["backup one", "backup one -o /dev/tty", "restore one"] {
        let mut script = service.env.command("script");
        script.args(["-qec", &format!("{svp} {command}"), "/dev/null"]);
        let result = output(&mut script);
        assert_eq!(result.status.code(), Some(125), "{}", transcript(&script, &result));
        let text = String::from_utf8_lossy(&result.stdout);
        assert!(text.contains("terminal") && !text.contains("built"), "{text}");
    }
    let mut verify = service.env.command("script");
    verify.args(["-qec", &format!("{svp} backup one --verify"), "/dev/null"]);
    let text = success(&mut verify);
    assert!(text.contains("verified") && !text.contains("\nbuilt"), "{text}");
}
