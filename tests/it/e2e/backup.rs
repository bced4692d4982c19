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
    place: TestEnv,
}

impl Service {
    /// Runs a service `one` of a pack with these backup scripts.
    fn new(scripts: &[(&str, &str)]) -> Service {
        let place = TestEnv::new();
        place.import_busybox();
        let files = [("bin/query", QUERY), ("bin/build", BUILD), ("bin/run", RUN)];
        let pack = place.write_pack("pack", &[&files[..], scripts].concat());
        let pack = pack.to_str().unwrap();
        place.ok(["build", "-b", pack, "-t", "base", "--base", "busybox", "--network", "none"]);
        let service = Service { place };
        service.add("one");
        service
    }

    fn with_scripts() -> Service {
        Service::new(&[("bin/backup", BACKUP), ("bin/restore", RESTORE)])
    }

    fn add(&self, name: &str) {
        self.place.ok(["setup", "-i", "base", "-t", name, "--network", "none"]);
        self.place.ok(["run", "-d", "--wait", "--network", "none", name]);
    }

    fn set(&self, value: &str) {
        self.place.ok(["exec", "one", "sh", "-c", &format!("echo '{value}' >/data/x")]);
    }

    fn get(&self) -> String {
        self.place.ok(["exec", "one", "cat", "/data/x"])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    fn backup(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.place.ok(["backup", "one", "-o", path.to_str().unwrap()]);
        path
    }

    /// `svp restore` of a file, with further arguments.
    fn restore(&self, file: &Path, more: &[&str]) -> Output {
        let mut command = self.place.svp(["restore", "one", "-i", file.to_str().unwrap()]);
        output(command.args(more))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.place.ok(["info", "one", "--format", "json"])).unwrap()
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
        let store = self.place.store();
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
fn the_hello_pack_has_its_data_back() {
    let place = TestEnv::new();
    place.import_busybox();
    let hello = pack("hello");
    let hello = hello.to_str().unwrap();
    place.ok(["build", "-b", hello, "-t", "hello", "--base", "busybox", "--network", "none"]);
    place.ok(["setup", "-i", "hello", "-t", "h1", "--network", "none"]);
    place.ok(["run", "-d", "--wait", "h1"]);
    let address = place.ok(["ports", "h1"]);
    place.ok(["extra", "h1", "greet", "the law"]);
    let file = place.path("h1.zst");
    let file = file.to_str().unwrap();
    place.ok(["backup", "h1", "-o", file, "--verify"]);
    // Other tools decompress it to the script's output.
    let listing = run("sh", ["-c", &format!("zstd -dc {file} | tar -tv")]);
    assert!(listing.contains("1000/1000") && listing.contains("index.html"), "{listing}");
    place.ok(["exec", "h1", "--", "sh", "-c", "rm -rf /var/lib/hello/*; echo x >/var/lib/hello/y"]);
    place.fails(1, ["client", "h1"]);
    assert_eq!(place.ok(["restore", "h1", "-i", file]), "h1\n");
    assert_eq!(place.ok(["client", "h1"]), "the law\n");
    assert_eq!(place.ok(["extra", "h1", "pages"]), "index.html\n");
    assert_eq!(place.ok(["ports", "h1"]), address);
    place.ok(["rm", "--force", "--volumes", "h1"]);
    place.assert_nothing_left();
}

#[test]
fn redis_has_its_keys_back() {
    let place = TestEnv::new();
    instance(&place, "redis");
    place.ok(["run", "-d", "--wait", "--name", "keys", "instance"]);
    let fill = "for i = 1, 20000 do redis.call('set', i, string.rep(i, 20)) end return 'full'";
    assert_eq!(place.ok(["client", "keys", "eval", fill, "0"]), "full\n");
    let address = place.ok(["ports", "keys"]);
    place.ok(["backup", "keys", "-o", "keys.zst", "--verify"]);
    place.ok(["extra", "keys", "flush"]);
    assert_eq!(place.ok(["client", "keys", "dbsize"]), "0\n");
    place.ok(["restore", "keys", "-i", "keys.zst"]);
    assert_eq!(place.ok(["client", "keys", "dbsize"]), "20000\n");
    assert_eq!(place.ok(["client", "keys", "get", "12"]).trim(), "12".repeat(20));
    assert_eq!(place.ok(["ports", "keys"]), address);
    place.ok(["restart", "keys"]);
    place.ok(["health", "keys", "--wait"]);
    assert_eq!(place.ok(["client", "keys", "dbsize"]), "20000\n");
    place.ok(["rm", "--force", "--volumes", "keys"]);
    place.assert_nothing_left();
}

#[test]
fn every_compression_gives_the_scripts_bytes_and_says_whose_they_are() {
    let service = Service::with_scripts();
    service.set("some data");
    let place = &service.place;
    for (compression, tool) in [("zstd", "zstd"), ("gzip", "gzip"), ("none", "cat")] {
        let arguments = ["backup", "one", "--compression", compression];
        let result = output(&mut place.svp(arguments));
        assert!(code(&result, 0).contains("the backup of some data"));
        let file = service.path(compression);
        std::fs::write(&file, &result.stdout).unwrap();
        let decompress =
            format!("{tool} {} <{}", if tool == "cat" { "" } else { "-dc" }, file.display());
        assert_eq!(run("sh", ["-c", &decompress]), "some data\n");
        service.set("other data");
        let mut restore = place.svp(["restore", "one"]);
        restore.stdin(File::open(&file).unwrap());
        let printed = code(&restore.output().unwrap(), 0);
        let says = printed.contains("a backup of one (one:latest)");
        assert_eq!(says, compression != "none", "{printed}");
        assert_eq!(service.get(), "some data\n");
    }
    // With a compression level, and compressed by other tools.
    place.ok(["backup", "one", "--compression-level", "9", "-o", "b.zst"]);
    place.fails(125, ["backup", "one", "--compression-level", "99"]);
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
        let result = output(&mut service.place.svp(to_file));
        let printed = code(&result, expected);
        assert!(
            printed.contains("b is unchanged") && printed.contains("the backup of"),
            "{printed}"
        );
        assert_eq!(std::fs::read(&file).unwrap(), good);
        // No decompressor accepts the truncated stream as complete.
        let result = output(&mut service.place.svp(["backup", "one"]));
        code(&result, expected);
        std::fs::write(service.path("part"), &result.stdout).unwrap();
        let part = output(Command::new("zstd").arg("-dc").arg(service.path("part")));
        assert!(!part.status.success(), "{part:?}");
    }
    // A process still holds the output after the script has ended.
    service.set("left");
    let printed = code(&output(&mut service.place.svp(to_file)), 125);
    assert!(printed.contains("still holds"), "{printed}");
    service.set("fine");
    let printed = code(&output(&mut service.place.svp(["backup", "one", "-o", "/dev/full"])), 125);
    assert!(printed.contains("No space left"), "{printed}");
    let mut limited = service.place.command("sh");
    let svp = env!("CARGO_BIN_EXE_svp");
    service.place.ok(["exec", "one", "sh", "-c", "head -c 3000000 /dev/urandom >/data/x"]);
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -f 100; exec {svp} backup one -o b")]);
    code(&output(&mut limited), 125);
    assert_eq!(std::fs::read(&file).unwrap(), good);
    for arguments in
        [&["backup", "none"][..], &["backup", "one", "-o", "."], &["backup", "one", "-o", "no/b"]]
    {
        service.place.fails(125, arguments);
    }
    service.place.ok(["stop", "one", "-t", "0"]);
    let printed = service.place.fails(125, to_file);
    assert!(printed.contains("svp start one"), "{printed}");
    assert_eq!(std::fs::read(&file).unwrap(), good);
    service.assert_alone();
}

fn spawn(service: &Service, arguments: &[&str]) -> Child {
    let mut command = service.place.svp(arguments);
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
        wait_until("what the script started ends with it", || !hangs());
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
        assert_eq!(service.started(), monitor, "the old one was stopped");
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
    service.place.ok(["backup", "two", "-o", "two"]);
    let printed = code(&service.restore(&service.path("two"), &[]), 125);
    assert!(printed.contains("backup of two") && printed.contains("--force"), "{printed}");
    service.place.ok(["rm", "--force", "--volumes", "two"]);
    same(&service);
    code(&service.restore(&service.path("two"), &["--force"]), 0);
    assert_eq!(service.get(), "built\n");
    // A stopped service is restored, and stays stopped.
    service.place.ok(["stop", "one", "-t", "0"]);
    code(&service.restore(&service.path("good"), &[]), 0);
    assert_eq!(service.status()["status"], "exited");
    service.place.ok(["start", "one"]);
    assert_eq!(service.get(), "good\n");
    service.assert_alone();
}

#[test]
fn a_copy_that_is_well_only_elsewhere_is_taken_back() {
    let service = Service::with_scripts();
    service.place.ok(["rm", "--force", "--volumes", "one"]);
    // Here the service has an address of its own; the fresh copy of a service without ports has no network.
    service.place.ok(["run", "-d", "--wait", "one"]);
    service.set("away");
    service.backup("b");
    service.set("mine");
    service.place.ok(["exec", "one", "sh", "-c", "echo w >/etc/written"]);
    let printed = code(&service.restore(&service.path("b"), &["--wait", "1"]), 125);
    assert!(printed.contains("it replaces the old one"), "{printed}");
    assert!(printed.contains("not restored, everything is as it was"), "{printed}");
    assert_eq!(service.status()["status"], "running");
    assert_eq!(service.get(), "mine\n");
    assert_eq!(service.place.ok(["exec", "one", "cat", "/etc/written"]), "w\n");
    service.assert_alone();
    // An interrupt at this point is rolled back too.
    let mut child = spawn(&service, &["restore", "one", "-i", "b"]);
    let journal = service.place.store().join("services/one/swap.json");
    wait_until("it is swapped", || journal.exists());
    kill(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(service.status()["status"], "running");
    assert_eq!(service.get(), "mine\n");
    service.assert_alone();
}

#[test]
fn a_volume_that_another_runs_with_is_not_taken_from_it() {
    let service = Service::with_scripts();
    let file = service.backup("b");
    service.place.ok(["rm", "--force", "--volumes", "one"]);
    let run = ["run", "-d", "--network", "none", "-v", "both:/data"];
    for name in ["one", "two"] {
        service.place.ok([&run[..], &["--name", name, "one"]].concat());
    }
    service.set("mine");
    let printed = code(&service.restore(&file, &[]), 125);
    assert!(printed.contains("two runs with the same volume, both"), "{printed}");
    service.place.ok(["stop", "-t", "0", "two"]);
    code(&service.restore(&file, &[]), 0);
    service.place.ok(["start", "two"]);
    for name in ["one", "two"] {
        assert_eq!(service.place.ok(["exec", name, "cat", "/data/x"]), "built\n");
    }
}

#[test]
fn a_restore_waits_until_the_fresh_copy_listens() {
    let place = TestEnv::new();
    place.import_busybox();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; ports) echo 4713;; volumes) echo /data;; esac\n";
    // The service listens late, and creates the script's prerequisite only then.
    let run = "#!/bin/sh\nsleep 1; touch /tmp/ready\nexec nc -ll -p 4713 -e cat\n";
    let restore = "#!/bin/sh\ntest -e /tmp/ready && cat >/data/x\n";
    let files = [
        ("bin/query", query),
        ("bin/build", "#!/bin/sh\nmkdir -p /data\n"),
        ("bin/run", run),
        ("bin/backup", "#!/bin/sh\necho data\n"),
        ("bin/restore", restore),
    ];
    let pack = place.write_pack("late", &files);
    let pack = pack.to_str().unwrap();
    place.ok(["build", "-b", pack, "-t", "b", "--base", "busybox", "--network", "none"]);
    place.ok(["setup", "-i", "b", "-t", "late", "--network", "none"]);
    // On the host's network, which the copy must not share.
    place.ok(["run", "-d", "--network", "host", "late"]);
    place.ok(["backup", "late", "-o", "late.zst", "--verify"]);
    place.ok(["restore", "late", "-i", "late.zst"]);
    assert_eq!(place.ok(["exec", "late", "cat", "/data/x"]), "data\n");
    place.ok(["rm", "--force", "--volumes", "late"]);
    place.assert_nothing_left();
}

#[test]
fn an_interrupted_copy_starts_the_service_again() {
    let service = Service::new(&[]);
    let fill = "head -c 30000000 /dev/urandom >/data/big; for i in 1 2 3 4; do cat /data/big >>/data/x; done";
    service.place.ok(["exec", "one", "sh", "-c", fill]);
    let mut child = spawn(&service, &["backup", "one", "-o", "b"]);
    wait_until("it is stopped", || service.status()["status"] != "running");
    for arguments in [
        &["stop", "one"][..],
        &["stop", "--all"],
        &["start", "one"],
        &["restart", "one"],
        &["rm", "one"],
        &["rm", "--force", "one"],
    ] {
        let error = service.place.fails(2, arguments);
        assert!(error.contains("a backup of one is being created"), "{error}");
    }
    kill(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!service.path("b").exists());
    assert_eq!(service.status()["status"], "running");
    service.assert_alone();
}

#[test]
fn who_stops_a_service_that_a_backup_is_stopping_is_not_told_that_it_is_stopped() {
    let place = TestEnv::new();
    place.import_busybox();
    let query = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
    let run =
        "#!/bin/sh\ntrap 'touch /stopping; sleep 3; exit 0' TERM\nwhile :; do sleep 0.1; done\n";
    let files = [("bin/query", query), ("bin/build", "#!/bin/sh\n"), ("bin/run", run)];
    let pack = place.write_pack("slow", &files);
    let pack = pack.to_str().unwrap();
    place.ok(["build", "-b", pack, "-t", "b", "--base", "busybox", "--network", "none"]);
    place.ok(["setup", "-i", "b", "-t", "slow", "--network", "none"]);
    place.ok(["run", "-d", "slow"]);
    let mut backup = place.svp(["backup", "slow", "-o", "file"]).spawn().unwrap();
    wait_until("it is being stopped", || {
        place.svp(["exec", "slow", "test", "-e", "/stopping"]).output().unwrap().status.success()
    });
    for arguments in [&["stop", "slow"][..], &["restart", "slow"], &["rm", "--force", "slow"]] {
        let error = place.fails(2, arguments);
        assert!(error.contains("a backup of slow is being created"), "{error}");
    }
    assert!(backup.wait().unwrap().success());
    assert!(place.ok(["ps"]).contains("running"));
    place.ok(["rm", "--force", "slow"]);
    place.assert_nothing_left();
}

#[test]
fn verify_tells_a_backup_that_is_no_good() {
    let service = Service::with_scripts();
    let file = service.backup("b");
    let good = std::fs::read(&file).unwrap();
    let monitor = service.started();
    for (value, expected) in [("bad", 4), ("sick", 125)] {
        service.set(value);
        let arguments = ["backup", "one", "-o", "b", "--verify", "--wait", "1"];
        code(&output(&mut service.place.svp(arguments)), expected);
        assert_eq!(std::fs::read(&file).unwrap(), good);
        let result = output(&mut service.place.svp(["backup", "one", "--verify", "--wait", "1"]));
        code(&result, expected);
        assert!(result.stdout.is_empty());
    }
    service.place.ok(["backup", "one", "--verify", "-i", "b"]);
    service.set("gz");
    let result =
        output(&mut service.place.svp(["backup", "one", "--verify", "--compression", "none"]));
    assert_eq!((code(&result, 0).contains("verified"), &result.stdout[..]), (true, &b"gz\n"[..]));
    assert_eq!(service.started(), monitor);
    service.assert_alone();
}

#[test]
fn a_restore_that_is_killed_leaves_one_of_the_two() {
    let service = Service::with_scripts();
    service.set("new");
    service.backup("b");
    let mut seen = [0, 0];
    for round in 0..16 {
        service.set("old");
        service.place.ok(["exec", "one", "sh", "-c", "echo w >/etc/written"]);
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
        wait_until("it starts or has started", || {
            let runs = service.status()["status"] == "running";
            runs || service.place.svp(["start", "one"]).output().unwrap().status.success()
        });
        let value = service.get();
        let written = service.place.svp(["exec", "one", "cat", "/etc/written"]).output().unwrap();
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
    service.place.ok(["rm", "--force", "--volumes", "one"]);
    service.place.assert_nothing_left();
}

#[test]
fn the_copy_of_a_killed_restore_goes() {
    let service = Service::with_scripts();
    service.set("stay");
    service.backup("b");
    service.set("mine");
    let stays = || !crate::support::processes_with("sleep\x004714\0").is_empty();
    for mend in [&["prune"][..], &["restart", "one", "-t", "0"]] {
        let mut child = spawn(&service, &["restore", "one", "-i", "b"]);
        wait_until("the script stays", stays);
        kill(&child, Signal::KILL);
        child.wait().unwrap();
        let all = service.place.ok(["ps", "-a", "-q"]);
        let copy = all.lines().find(|name| name.starts_with("one.restore-")).unwrap();
        wait_until("it has ended", || !stays());
        let printed = service.place.fails(2, ["start", copy]);
        assert!(printed.contains("a killed restore of one"), "{printed}");
        let printed = output(&mut service.place.svp(["prune", "--dry-run"]));
        assert!(code(&printed, 0).contains("would be removed"));
        assert_eq!(service.place.ok(["ps", "-a", "-q"]), all);
        service.place.ok(mend);
        service.assert_alone();
        assert_eq!(service.get(), "mine\n");
    }
}

#[test]
fn a_pack_without_scripts_is_copied_while_it_is_stopped() {
    let service = Service::new(&[]);
    service.place.ok(["exec", "one", "sh", "-c",
        "echo mine >/data/x; mkdir /srv/b/d; ln /data/x /data/hard; echo e >/etc/e; rm /bin/vi; chown 7:8 /srv/b/d"]);
    let result = output(&mut service.place.svp(["backup", "one", "-o", "b"]));
    let printed = code(&result, 0);
    assert!(printed.contains("no bin/backup: one is stopped"), "{printed}");
    assert_eq!(service.status()["status"], "running");
    let listing = run("sh", ["-c", &format!("zstd -dc {} | tar -tv", service.path("b").display())]);
    for part in ["writes/etc/e", "writes/bin/.wh.vi", "volumes/data/x", "1000/1000", "7/8"] {
        assert!(listing.contains(part), "no {part} in {listing}");
    }
    service.place.ok([
        "exec",
        "one",
        "sh",
        "-c",
        "rm -r /data/* /srv/b/d; echo f >/etc/f; rm /etc/e",
    ]);
    code(&service.restore(&service.path("b"), &[]), 0);
    let look = "cat /data/link /data/hard /etc/e; stat -c %h:%u /data/x; stat -c %u:%g /srv/b/d; ls /etc/f /bin/vi || true";
    let found = service.place.ok(["exec", "one", "sh", "-c", look]);
    assert_eq!(found, "mine\nmine\ne\n2:1000\n7:8\n");
    // Verified, and through a pipe.
    let result =
        output(&mut service.place.svp(["backup", "one", "--verify", "--compression", "gzip"]));
    code(&result, 0);
    service.set("wrecked");
    let mut restore = service.place.svp(["restore", "one"]);
    let mut child = restore.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&result.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(service.get(), "mine\n");
    service.assert_alone();
}

/// Runs a script in a mount namespace with a disk of this many megabytes at `disk` in the place.
fn with_small_disk(service: &Service, megabytes: u32, script: &str) -> Output {
    let dir = service.path("disk");
    std::fs::create_dir_all(&dir).unwrap();
    let mut unshare = service.place.command("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-euc"]);
    unshare.arg(format!("mount -t tmpfs -o size={megabytes}m tmpfs {}\n{script}", dir.display()));
    output(&mut unshare)
}

#[test]
fn a_service_runs_again_when_its_copy_does_not_fit() {
    // The mount namespace of the disk has a single user.
    let build = "#!/bin/sh\nmkdir -p /data /srv/b; echo built >/data/x\n";
    let service = Service::new(&[("bin/build", build)]);
    let place = &service.place;
    // The store, the services' files and the backup, all on one small disk.
    let store = service.path("disk/store");
    let other = |arguments: &str| {
        let svp = env!("CARGO_BIN_EXE_svp");
        format!("SVP_ROOT={} {svp} {arguments}\n", store.display())
    };
    place.ok(["save", "busybox", "-o", "oci-archive:busybox.oci"]);
    let script = [
        "cd ..; cd work\n".to_owned(),
        other("build -b pack -t base --base oci-archive:busybox.oci --network none >&2"),
        other("setup -i base -t one --network none >&2"),
        other("run -d --wait --network none one >&2"),
        other("exec one -- sh -c 'head -c 20000000 /dev/urandom >/data/x' >&2"),
        // Space for half of it.
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
fn what_a_backup_says_of_itself_is_shown() {
    let service = Service::with_scripts();
    service.backup("b");
    let shown: Value = serde_json::from_str(&service.place.ok(["backup", "--show", "b"])).unwrap();
    let digest = service.status()["digest"].clone();
    assert_eq!((&shown["service"], &shown["image"]), (&"one".into(), &"one:latest".into()));
    assert_eq!(shown["digest"], digest);
    assert!(shown["created"].as_str().unwrap().starts_with("20"), "{shown}");
    std::fs::write(service.path("other"), "x").unwrap();
    service.place.fails(125, ["backup", "--show", "other"]);
    service.place.fails(2, ["backup"]);
    service.place.fails(2, ["backup", "one", "--show", "b"]);
}

#[test]
fn a_backup_that_prints_nothing_is_told() {
    let service = Service::with_scripts();
    service.place.ok(["exec", "one", "sh", "-c", ": >/data/x"]);
    let result = output(&mut service.place.svp(["backup", "one", "-o", "b"]));
    assert!(code(&result, 0).contains("the backup is empty"));
    // The reader may stop early.
    service.place.ok(["exec", "one", "sh", "-c", "head -c 3000000 /dev/urandom >/data/x"]);
    let mut head = service.place.command("bash");
    let svp = env!("CARGO_BIN_EXE_svp");
    head.args([
        "-c",
        &format!("{svp} backup one | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"),
    ]);
    let printed = code(&output(&mut head), 125);
    assert!(printed.contains("the backup's reader has exited"), "{printed}");
    service.assert_alone();
}

/// Archives made by others.
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
fn a_hostile_archive_stays_in_its_place() {
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
        // Links in it stay inside it; everything else is refused.
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
fn scripts_that_only_half_exist() {
    let service = Service::new(&[("bin/backup", BACKUP)]);
    let result = output(&mut service.place.svp(["backup", "one", "-o", "b"]));
    assert!(code(&result, 0).contains("no bin/restore"));
    let printed = code(&service.restore(&service.path("b"), &[]), 125);
    assert!(printed.contains("no bin/restore"), "{printed}");
    service.assert_alone();
}

#[test]
fn a_terminal_gets_no_backup() {
    let service = Service::with_scripts();
    let svp = env!("CARGO_BIN_EXE_svp");
    for command in ["backup one", "backup one -o /dev/tty", "restore one"] {
        let mut script = service.place.command("script");
        script.args(["-qec", &format!("{svp} {command}"), "/dev/null"]);
        let result = output(&mut script);
        assert_eq!(result.status.code(), Some(125), "{}", transcript(&script, &result));
        let text = String::from_utf8_lossy(&result.stdout);
        assert!(text.contains("terminal") && !text.contains("built"), "{text}");
    }
    let mut verify = service.place.command("script");
    verify.args(["-qec", &format!("{svp} backup one --verify"), "/dev/null"]);
    let text = success(&mut verify);
    assert!(text.contains("verified") && !text.contains("\nbuilt"), "{text}");
}
