//! Services that fill their disk, hang, are killed, or handle every signal.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::e2e::run::{code, info, instance};
use crate::support::{TestEnv, as_root, processes_of, success, transcript, wait_until};

const QUERY: &str = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
const BUILD: &str = "#!/bin/sh\n";

/// A place with its store on a small disk, in a mount namespace that ends with it.
struct SmallDisk<'a> {
    place: &'a TestEnv,
    holder: Child,
}

impl<'a> SmallDisk<'a> {
    fn new(place: &'a TestEnv, size: &str) -> Self {
        let store = place.store();
        std::fs::create_dir_all(&store).unwrap();
        let mut holder = place.command("unshare");
        if !as_root() {
            holder.args(["--user", "--map-root-user"]);
        }
        holder.args(["--mount", "--propagation", "private", "sh", "-euc"]);
        holder.arg("mount -t tmpfs -o size=$1,mode=700 tmpfs \"$2\"; echo ready; exec sleep 600");
        holder.args(["sh", size, store.to_str().unwrap()]).stdout(Stdio::piped());
        let mut holder = holder.stdin(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        SmallDisk { place, holder }
    }

    /// Returns a command that sees the disk.
    fn command(&self, program: &str) -> Command {
        let mut command = self.place.command("nsenter");
        command.arg(format!("--target={}", self.holder.id())).arg("--mount");
        if !as_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(format!("--wd={}", self.place.path("").display())).arg(program);
        command
    }

    fn svp(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_svp"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        success(&mut self.svp(arguments))
    }

    /// Returns the number of free bytes.
    fn free(&self) -> u64 {
        let mut df = self.command("df");
        let printed = success(df.args(["--output=avail", "-B1"]).arg(self.place.store()));
        printed.lines().last().unwrap().trim().parse().unwrap()
    }

    fn info(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["info", name, "--format", "json"])).unwrap()
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = self.svp(&["stop", "--all", "-t", "0"]).output();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The service fills its disk to the last byte, goes on logging, and removes the file on request.
const FILLS: &str = "#!/bin/sh\necho up\nn=0\nwhile [ ! -e /stop ]; do\n\
    cat /dev/zero >>/fill 2>/dev/null\nn=$((n+1)); echo \"line $n\"; sleep 0.05\ndone\n\
    rm /fill\necho freed\nwhile :; do n=$((n+1)); echo \"line $n\"; sleep 0.05; done\n";

#[test]
fn one_that_fills_its_disk_is_told_of_truly_and_can_be_helped() {
    let place = TestEnv::new();
    let disk = SmallDisk::new(&place, "48m");
    disk.ok(&["import", crate::support::busybox_base().to_str().unwrap(), "-t", "busybox"]);
    let files = [("bin/query", QUERY), ("bin/build", BUILD), ("bin/run", FILLS)];
    let pack = place.write_pack("pack", &files);
    let pack = pack.to_str().unwrap();
    disk.ok(&["build", "-b", pack, "-t", "base", "--base", "busybox", "--network", "none"]);
    disk.ok(&["setup", "-i", "base", "-t", "fill", "--network", "none"]);
    disk.ok(&["run", "-d", "fill"]);
    wait_until("the log can't be written", || !disk.info("fill")["error"].is_null());
    assert_eq!(disk.free(), 0);
    let printed = disk.info("fill");
    assert!(printed["error"].as_str().unwrap().contains("No space left"), "{printed}");
    assert_eq!(printed["status"], "running");
    assert!(disk.ok(&["ps"]).contains("running"));
    // Data that fits nowhere is refused, and leaves nothing behind.
    let other = disk.svp(&["run", "-d", "--name", "other", "fill"]).output().unwrap();
    let text = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(125));
    assert!(text.contains("No space left") && text.contains("svp df"), "{text}");
    assert_eq!(disk.ok(&["ps", "-a", "-q"]), "fill\n");
    // Its end is reported; it starts again, although nothing has been freed.
    disk.ok(&["stop", "-t", "1", "fill"]);
    let printed = disk.info("fill");
    assert_eq!(
        (&printed["status"], &printed["exitCode"]),
        (&"exited".into(), &143.into()),
        "{printed}"
    );
    assert_eq!(disk.free(), 0);
    disk.ok(&["start", "fill"]);
    let printed = disk.info("fill");
    assert_eq!(
        (&printed["status"], &printed["components"][0]["running"]),
        (&"running".into(), &true.into())
    );
    // Its owner can exec into it.
    disk.ok(&["exec", "fill", "sh", "-c", ": >/fill; : >/stop"]);
    wait_until("it logs again", || {
        disk.ok(&["logs", "fill"]).contains("freed") && disk.info("fill")["error"].is_null()
    });
    assert!(disk.free() > 30 << 20, "{}", disk.free());
    // Lines are missing, but none is truncated or joined.
    let log = disk.ok(&["logs", "fill"]);
    let whole = |line: &str| {
        let number = line.strip_prefix("line ").map(|n| n.parse::<u32>().is_ok());
        number.unwrap_or(["up", "freed"].contains(&line))
    };
    assert!(log.lines().all(whole), "{log}");
    disk.ok(&["stop", "fill"]);
    disk.ok(&["rm", "fill"]);
    assert_eq!(disk.ok(&["check", "--store"]), "");
    drop(disk);
    place.assert_nothing_left();
}

/// A process of svp or of a service's monitor; killed when dropped, if it still runs.
struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn signals_are_forwarded_and_those_that_end_svp_stop_it() {
    let place = TestEnv::new();
    place.import_busybox();
    let run = "#!/bin/sh\nfor s in USR1 USR2 HUP QUIT; do trap \"echo got $s\" $s; done\n\
        trap 'echo got TERM; exit 5' TERM\necho up\nwhile :; do sleep 0.02; done\n";
    instance(&place, "ears", QUERY, BUILD, run);
    // Without a terminal, as under systemd, SIGHUP is forwarded: reload the configuration.
    let mut svp = place.command("setsid");
    svp.arg(env!("CARGO_BIN_EXE_svp")).args(["run", "--rm", "ears"]);
    let child = svp.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = Foreground(child);
    let mut out = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut next = || out.next().unwrap().unwrap();
    assert_eq!(next(), "up");
    let pid = Pid::from_raw(child.0.id() as i32);
    for (signal, name) in [
        (Signal::SIGUSR1, "got USR1"),
        (Signal::SIGHUP, "got HUP"),
        (Signal::SIGQUIT, "got QUIT"),
        (Signal::SIGUSR2, "got USR2"),
        (Signal::SIGINT, "got TERM"),
    ] {
        kill(pid, signal).unwrap();
        assert_eq!(next(), name);
    }
    assert_eq!(child.0.wait().unwrap().code(), Some(5));
    place.assert_nothing_left();
    // In the background, the monitor forwards the signals.
    place.ok(["run", "-d", "ears"]);
    wait_until("it is up", || place.ok(["logs", "ears"]) == "up\n");
    let monitor = info(&place, "ears")["monitor"].as_i64().unwrap();
    kill(Pid::from_raw(monitor as i32), Signal::SIGHUP).unwrap();
    wait_until("it has heard", || place.ok(["logs", "ears"]) == "up\ngot HUP\n");
    place.ok(["stop", "ears"]);
    assert_eq!(place.ok(["wait", "ears"]), "5\n");
    place.ok(["rm", "ears"]);
    place.assert_nothing_left();
}

#[test]
fn a_container_that_is_killed_again_and_again_is_made_anew_with_patience() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "sleeper", QUERY, BUILD, "#!/bin/sh\necho up\nexec sleep 1000\n");
    place.ok(["run", "-d", "--restart", "always", "sleeper"]);
    // The monitor's log is kept, but not without limit.
    let monitor_log = place.store().join("services/sleeper/monitor.log");
    std::fs::write(&monitor_log, vec![b'x'; 2 << 20]).unwrap();
    let mut killed = 0;
    while killed < 6 {
        // Killed earlier, it would not have printed its line, which is counted below.
        let lines = || place.ok(["logs", "sleeper"]).lines().count();
        wait_until("it has printed its line", || lines() as i64 == killed + 1);
        let printed = info(&place, "sleeper");
        assert_eq!(printed["status"], "running");
        assert_eq!(printed["components"][0]["restarts"].as_i64().unwrap(), killed);
        let pid = printed["pid"].as_i64().unwrap();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        killed += 1;
        let again = || !info(&place, "sleeper")["pid"].is_null();
        wait_until("it is counted", || {
            info(&place, "sleeper")["components"][0]["restarts"] == killed
        });
        if killed < 6 {
            wait_until("there is another", again);
        }
    }
    assert!(std::fs::read_to_string(&monitor_log).unwrap().contains("container was killed"));
    assert!(monitor_log.metadata().unwrap().len() < 10_000);
    assert!(monitor_log.with_extension("log.1").exists());
    // The back-off is now 3.2 s. The state is reported, and no command waits for its end.
    let printed = info(&place, "sleeper");
    assert_eq!(printed["components"][0]["running"], false, "{printed}");
    assert!(place.ok(["ps"]).contains("1 of 1 down"));
    assert_eq!(code(&place, &["exec", "sleeper", "true"]), 125);
    let since = Instant::now();
    place.ok(["stop", "sleeper"]);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(place.ok(["wait", "sleeper"]), "137\n");
    assert_eq!(place.ok(["logs", "sleeper"]), "up\n".repeat(6));
    place.ok(["rm", "sleeper"]);
    place.assert_nothing_left();
}

#[test]
fn a_health_command_that_hangs_is_not_waited_for() {
    let place = TestEnv::new();
    place.import_busybox();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; health) echo sleep 500;; esac\n";
    instance(&place, "hang", query, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    let since = Instant::now();
    let mut run = place.svp(["run", "-d", "--wait=1s", "hang"]);
    let output = run.output().unwrap();
    let text = transcript(&run, &output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("longer than 1 s") && text.contains("it keeps running"), "{text}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_eq!(info(&place, "hang")["status"], "running");
    assert_eq!(code(&place, &["health", "--wait=1", "hang"]), 1);
    let processes = place.ok(["exec", "hang", "ps", "-o", "args"]);
    assert!(!processes.contains("sleep 500"), "{processes}");
    place.ok(["rm", "--force", "hang"]);
    place.assert_nothing_left();
}

#[test]
fn who_waits_for_several_gets_each_code_those_of_removed_ones_too() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(
        &place,
        "brief",
        QUERY,
        BUILD,
        "#!/bin/sh\nwhile [ ! -e /end/now ]; do sleep 0.05; done; exit 3\n",
    );
    let end = place.path("end");
    std::fs::create_dir(&end).unwrap();
    let volume = format!("{}:/end:ro", end.display());
    place.ok(["run", "-d", "--rm", "--name", "gone", "-v", &volume, "brief"]);
    place.ok(["run", "-d", "--name", "stays", "-v", &volume, "brief"]);
    assert_eq!(code(&place, &["wait", "stays", "nowhere"]), 2);
    let mut wait = place.svp(["wait", "gone", "stays"]);
    let mut wait = wait.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(wait.try_wait().unwrap().is_none());
    std::fs::write(end.join("now"), "").unwrap();
    let mut codes = String::new();
    wait.stdout.take().unwrap().read_to_string(&mut codes).unwrap();
    assert!(wait.wait().unwrap().success());
    assert_eq!(codes, "3\n3\n");
    wait_until("it is removed", || place.ok(["ps", "-a", "-q"]) == "stays\n");
    place.ok(["rm", "stays"]);
    place.assert_nothing_left();
}

#[test]
fn who_stops_a_service_waits_for_that_run_alone() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "sleeper", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    place.ok(["run", "-d", "sleeper"]);
    // Others start it at once after it has ended.
    let over = AtomicBool::new(false);
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let _ = place.svp(["start", "sleeper"]).output();
            }
        });
        for _ in 0..10 {
            place.ok(["stop", "sleeper"]);
            if since.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
    place.ok(["rm", "--force", "sleeper"]);
    place.assert_nothing_left();
}

#[test]
fn a_volume_stays_as_long_as_another_service_has_it() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    for name in ["one", "two"] {
        place.ok([
            "run",
            "-d",
            "--name",
            name,
            "-v",
            "shared:/data",
            "-v",
            &format!("{name}.own:/own"),
            "one",
        ]);
    }
    place.ok(["exec", "one", "sh", "-c", "echo kept >/data/file; echo gone >/own/file"]);
    let mut rm = place.svp(["rm", "--force", "--volumes", "one"]);
    let output = rm.output().unwrap();
    let text = transcript(&rm, &output);
    assert!(output.status.success() && text.contains("keeping the volume shared"), "{text}");
    assert_eq!(place.ok(["exec", "two", "cat", "/data/file"]), "kept\n");
    place.ok(["run", "-d", "--name", "one", "-v", "one.own:/own", "one"]);
    assert_eq!(place.ok(["exec", "one", "ls", "/own"]), "");
    place.ok(["rm", "--force", "--volumes", "one", "two"]);
    place.ok(["run", "-d", "-v", "shared:/data", "one"]);
    assert_eq!(place.ok(["exec", "one", "ls", "/data"]), "");
    place.ok(["rm", "--force", "--volumes", "one"]);
    assert_eq!(processes_of(place.dir()), Vec::<String>::new());
    place.assert_nothing_left();
}

#[test]
fn what_a_kill_left_of_a_service_is_in_nobodys_way() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    let services = place.store().join("services");
    // As a killed `svp rm` and `svp run` leave it: no record any more, or not in its place yet.
    std::fs::create_dir_all(services.join("one/logs")).unwrap();
    std::fs::write(services.join("one/lock"), "").unwrap();
    std::fs::create_dir_all(place.store().join("tmp/abcdef/service/logs")).unwrap();
    std::fs::create_dir_all(services.join("three")).unwrap();
    place.ok(["run", "-d", "one"]);
    assert_eq!(place.ok(["ps", "-a", "-q"]), "one\n");
    place.ok(["prune"]);
    let left: Vec<_> =
        std::fs::read_dir(&services).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["one"]);
    place.ok(["rm", "--force", "one"]);
    place.assert_nothing_left();
}

#[test]
fn volumes_that_no_service_has_go_when_that_is_wanted() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    for name in ["a", "b"] {
        place.ok(["run", "-d", "--name", name, "-v", &format!("data-{name}:/data"), "one"]);
        place.ok(["exec", name, "sh", "-c", "echo $HOSTNAME >/data/file"]);
    }
    place.ok(["rm", "--force", "a"]);
    place.ok(["prune"]);
    let printed = place.ok(["prune", "--volumes", "--dry-run"]);
    assert!(printed.contains("data-a") && !printed.contains("data-b"), "{printed}");
    place.ok(["prune", "--volumes"]);
    place.ok(["exec", "b", "cat", "/data/file"]);
    place.ok(["run", "-d", "--name", "a", "-v", "data-a:/data", "one"]);
    assert_eq!(place.ok(["exec", "a", "ls", "/data"]), "");
    // Names that can't be shown are printed as the user typed them.
    let text = place.fails(125, ["run", "-d", "--name", "bad", "-v", "v:/etc/passwd", "one"]);
    assert!(
        text.contains("the volume v at") && text.contains("the image has the other kind"),
        "{text}"
    );
    let text = place.fails(2, ["run", "-d", "--name", "bad", "-v", "v:/proc/x", "one"]);
    assert!(text.contains("/proc/x is reserved in a container"), "{text}");
    let twice = ["run", "-d", "--name", "bad", "-v", "v:/data", "-v", "w:/data/", "one"];
    assert!(place.fails(125, twice).contains("two mounts have the path /data"));
    place.ok(["rm", "--force", "a", "b"]);
    place.assert_nothing_left();
}

#[test]
fn every_command_of_a_services_life_speaks_json() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "one", QUERY, BUILD, "#!/bin/sh\necho up\nexec sleep 1000\n");
    place.ok(["run", "-d", "one"]);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let arguments = [arguments, &["--format", "json"]].concat();
        serde_json::from_str(&place.ok(&arguments)).unwrap()
    };
    assert_eq!(json(&["ps"])[0]["name"], "one");
    assert_eq!(json(&["info", "one"])["status"], "running");
    assert_eq!(json(&["health", "one"])["healthy"], true);
    assert!(json(&["env", "one"]).is_object() && json(&["ports", "one"]).is_array());
    wait_until("it is up", || !place.ok(["logs", "one"]).is_empty());
    assert_eq!(json(&["logs", "one"])["text"], "up");
    assert_eq!(json(&["restart", "one"])[0]["status"], "running");
    let stopped = &json(&["stop", "one"])[0];
    assert_eq!((&stopped["status"], &stopped["exitCode"]), (&"exited".into(), &143.into()));
    assert_eq!(json(&["wait", "one"])[0]["exitCode"], 143);
    assert_eq!(json(&["start", "one"])[0]["name"], "one");
    assert_eq!(json(&["rm", "--force", "one"])[0]["name"], "one");
    assert_eq!(json(&["ps", "-a"]), serde_json::json!([]));
    place.assert_nothing_left();
}

#[test]
fn a_damaged_service_is_told_of_and_can_be_removed() {
    let place = TestEnv::new();
    place.import_busybox();
    instance(&place, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    for name in ["good", "bad"] {
        place.ok(["run", "-d", "--name", name, "one"]);
    }
    let file = |file: &str| place.store().join("services/bad").join(file);
    // Its status is lost, but svp still reports that it runs.
    std::fs::write(file("status.json"), "{").unwrap();
    assert_eq!(info(&place, "bad")["status"], "running");
    place.ok(["stop", "bad"]);
    std::fs::write(file("service.json"), "{").unwrap();
    assert_eq!(place.ok(["ps", "-a", "-q"]), "good\n");
    for command in [&["info", "bad"][..], &["start", "bad"], &["rm", "bad"], &["prune"]] {
        let text = place.fails(65, command);
        assert!(text.contains("damaged") && text.contains("rm --force"), "{text}");
    }
    place.ok(["rm", "--force", "bad"]);
    let printed = place.ok(["prune"]);
    assert!(printed.contains("written by a service"), "{printed}");
    place.ok(["exec", "good", "true"]);
    place.ok(["run", "-d", "--name", "bad", "one"]);
    place.ok(["rm", "--force", "good", "bad"]);
    let printed = place.ok(["prune"]);
    assert!(!printed.contains("service"), "{printed}");
    place.assert_nothing_left();
}

#[test]
fn what_the_user_says_of_a_packs_variable_is_true_for_its_clients_too() {
    let place = TestEnv::new();
    place.import_busybox();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; env) echo WEB_HOST=%IP; echo WEB_PORT=3306; \
        echo WEB_NAME=pack;; esac\n";
    let build = "#!/bin/sh\n[ $1 != base ] || { mkdir -p /data; echo page >/data/index.html; }\n";
    instance(&place, "web", query, build, "#!/bin/sh\nexec httpd -f -p $WEB_PORT -h /data\n");
    let file = place.path("env");
    std::fs::write(&file, "# of the file\nWEB_PORT=1\nOTHER=file\nWEB_NAME=file\n").unwrap();
    let file = file.to_str().unwrap();
    place.ok(["run", "-d", "--wait", "--env-file", file, "-e", "WEB_PORT=3307", "web"]);
    let env = place.ok(["env", "web"]);
    assert!(env.contains("WEB_PORT=3307\n") && env.contains("WEB_NAME=file\n"), "{env}");
    assert!(!env.contains("OTHER"), "{env}");
    let at = place.ok(["ports", "web"]);
    assert!(at.trim().ends_with(":3307->3307/tcp"), "{at}");
    let inside = place.ok(["exec", "web", "sh", "-c", "echo $WEB_PORT $WEB_NAME $OTHER $WEB_HOST"]);
    let host = env.lines().find_map(|line| line.strip_prefix("WEB_HOST=")).unwrap();
    assert_eq!(inside, format!("3307 file file {host}\n"));
    place.ok(["rm", "--force", "web"]);
    place.assert_nothing_left();
}

#[test]
fn each_volume_of_an_image_has_its_own_data() {
    let place = TestEnv::new();
    place.import_busybox();
    let long = format!("/{}/{}", "d".repeat(150), "e".repeat(150));
    let query = format!(
        "#!/bin/sh\ncase $1 in os) echo busybox/1;; volumes) echo /a/b; echo /a-b; echo {long};; esac\n"
    );
    let build =
        "#!/bin/sh\n[ $1 != base ] || { mkdir -p /a/b /a-b; echo >/a/b/one; echo >/a-b/two; }\n";
    instance(&place, "vols", &query, build, "#!/bin/sh\nexec sleep 1000\n");
    place.ok(["run", "-d", "vols"]);
    assert_eq!(place.ok(["exec", "vols", "ls", "/a/b"]), "one\n");
    assert_eq!(place.ok(["exec", "vols", "ls", "/a-b"]), "two\n");
    place.ok(["exec", "vols", "sh", "-c", &format!("echo >{long}/file")]);
    place.ok(["restart", "vols"]);
    assert_eq!(place.ok(["exec", "vols", "ls", &long]), "file\n");
    place.ok(["rm", "--force", "--volumes", "vols"]);
    assert!(!place.ok(["prune", "--volumes", "--dry-run"]).contains("volume"));
    place.assert_nothing_left();
}
