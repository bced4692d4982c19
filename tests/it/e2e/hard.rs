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

/// An environment whose store is on a small disk, in a mount namespace that ends when this is dropped.
struct SmallDisk<'a> {
    env: &'a TestEnv,
    holder: Child,
}

impl<'a> SmallDisk<'a> {
    fn new(env: &'a TestEnv, size: &str) -> Self {
        let store = env.store();
        std::fs::create_dir_all(&store).unwrap();
        let mut holder = env.command("unshare");
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
        SmallDisk { env, holder }
    }

    /// Returns a command that sees the disk.
    fn command(&self, program: &str) -> Command {
        let mut command = self.env.command("nsenter");
        command.arg(format!("--target={}", self.holder.id())).arg("--mount");
        if !as_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(format!("--wd={}", self.env.path("").display())).arg(program);
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
        let printed = success(df.args(["--output=avail", "-B1"]).arg(self.env.store()));
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
fn a_service_that_fills_its_disk_is_reported_and_recovers() {
    let env = TestEnv::new();
    let disk = SmallDisk::new(&env, "48m");
    disk.ok(&["import", crate::support::busybox_base().to_str().unwrap(), "-t", "busybox"]);
    let files = [("bin/query", QUERY), ("bin/build", BUILD), ("bin/run", FILLS)];
    let pack = env.write_pack("pack", &files);
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
    // A service whose data does not fit is refused, and leaves nothing behind.
    let other = disk.svp(&["run", "-d", "--name", "other", "fill"]).output().unwrap();
    let text = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(125));
    assert!(text.contains("No space left") && text.contains("svp df"), "{text}");
    assert_eq!(disk.ok(&["ps", "-a", "-q"]), "fill\n");
    // Its exit is reported; the service starts again, although nothing has been freed.
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
    // The user can run a command in the service to free space.
    disk.ok(&["exec", "fill", "sh", "-c", ": >/fill; : >/stop"]);
    wait_until("the service logs again", || {
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
    env.assert_nothing_left();
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
fn signals_are_forwarded_and_terminating_ones_stop_the_service() {
    let env = TestEnv::new();
    env.import_busybox();
    let run = "#!/bin/sh\nfor s in USR1 USR2 HUP QUIT; do trap \"echo got $s\" $s; done\n\
        trap 'echo got TERM; exit 5' TERM\necho up\nwhile :; do sleep 0.02; done\n";
    instance(&env, "ears", QUERY, BUILD, run);
    // Without a terminal, as under systemd, SIGHUP is forwarded: reload the configuration.
    let mut svp = env.command("setsid");
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
    env.assert_nothing_left();
    // In the background, the monitor forwards the signals.
    env.ok(["run", "-d", "ears"]);
    wait_until("the service is up", || env.ok(["logs", "ears"]) == "up\n");
    let monitor = info(&env, "ears")["monitor"].as_i64().unwrap();
    kill(Pid::from_raw(monitor as i32), Signal::SIGHUP).unwrap();
    wait_until("the service has handled the signal", || {
        env.ok(["logs", "ears"]) == "up\ngot HUP\n"
    });
    env.ok(["stop", "ears"]);
    assert_eq!(env.ok(["wait", "ears"]), "5\n");
    env.ok(["rm", "ears"]);
    env.assert_nothing_left();
}

#[test]
fn a_repeatedly_killed_container_is_recreated_with_backoff() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "sleeper", QUERY, BUILD, "#!/bin/sh\necho up\nexec sleep 1000\n");
    env.ok(["run", "-d", "--restart", "always", "sleeper"]);
    // The monitor's log is kept, but not without limit.
    let monitor_log = env.store().join("services/sleeper/monitor.log");
    std::fs::write(&monitor_log, vec![b'x'; 2 << 20]).unwrap();
    let mut killed = 0;
    while killed < 6 {
        // Killed earlier, it would not have printed its line, which is counted below.
        let lines = || env.ok(["logs", "sleeper"]).lines().count();
        wait_until("the service has printed its line", || lines() as i64 == killed + 1);
        let printed = info(&env, "sleeper");
        assert_eq!(printed["status"], "running");
        assert_eq!(printed["components"][0]["restarts"].as_i64().unwrap(), killed);
        let pid = printed["pid"].as_i64().unwrap();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        killed += 1;
        let again = || !info(&env, "sleeper")["pid"].is_null();
        wait_until("the restart is counted", || {
            info(&env, "sleeper")["components"][0]["restarts"] == killed
        });
        if killed < 6 {
            wait_until("there is another container", again);
        }
    }
    assert!(std::fs::read_to_string(&monitor_log).unwrap().contains("container was killed"));
    assert!(monitor_log.metadata().unwrap().len() < 10_000);
    assert!(monitor_log.with_extension("log.1").exists());
    // The back-off is now 3.2 s: the state is reported, and no command waits for the restart.
    let printed = info(&env, "sleeper");
    assert_eq!(printed["components"][0]["running"], false, "{printed}");
    assert!(env.ok(["ps"]).contains("1 of 1 down"));
    assert_eq!(code(&env, &["exec", "sleeper", "true"]), 125);
    let since = Instant::now();
    env.ok(["stop", "sleeper"]);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(env.ok(["wait", "sleeper"]), "137\n");
    assert_eq!(env.ok(["logs", "sleeper"]), "up\n".repeat(6));
    env.ok(["rm", "sleeper"]);
    env.assert_nothing_left();
}

#[test]
fn a_hanging_health_command_times_out() {
    let env = TestEnv::new();
    env.import_busybox();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; health) echo sleep 500;; esac\n";
    instance(&env, "hang", query, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    let since = Instant::now();
    let mut run = env.svp(["run", "-d", "--wait=1s", "hang"]);
    let output = run.output().unwrap();
    let text = transcript(&run, &output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("longer than 1 s") && text.contains("it keeps running"), "{text}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_eq!(info(&env, "hang")["status"], "running");
    assert_eq!(code(&env, &["health", "--wait=1", "hang"]), 1);
    let processes = env.ok(["exec", "hang", "ps", "-o", "args"]);
    assert!(!processes.contains("sleep 500"), "{processes}");
    env.ok(["rm", "--force", "hang"]);
    env.assert_nothing_left();
}

#[test]
fn wait_reports_each_exit_code_even_of_removed_services() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(
        &env,
        "brief",
        QUERY,
        BUILD,
        "#!/bin/sh\nwhile [ ! -e /end/now ]; do sleep 0.05; done; exit 3\n",
    );
    let end = env.path("end");
    std::fs::create_dir(&end).unwrap();
    let volume = format!("{}:/end:ro", end.display());
    env.ok(["run", "-d", "--rm", "--name", "gone", "-v", &volume, "brief"]);
    env.ok(["run", "-d", "--name", "stays", "-v", &volume, "brief"]);
    assert_eq!(code(&env, &["wait", "stays", "nowhere"]), 2);
    let mut wait = env.svp(["wait", "gone", "stays"]);
    let mut wait = wait.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(wait.try_wait().unwrap().is_none());
    std::fs::write(end.join("now"), "").unwrap();
    let mut codes = String::new();
    wait.stdout.take().unwrap().read_to_string(&mut codes).unwrap();
    assert!(wait.wait().unwrap().success());
    assert_eq!(codes, "3\n3\n");
    wait_until("the service is removed", || env.ok(["ps", "-a", "-q"]) == "stays\n");
    env.ok(["rm", "stays"]);
    env.assert_nothing_left();
}

#[test]
fn stop_waits_only_for_the_run_that_it_stops() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "sleeper", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "sleeper"]);
    // Another thread starts the service again as soon as it has ended.
    let over = AtomicBool::new(false);
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let _ = env.svp(["start", "sleeper"]).output();
            }
        });
        for _ in 0..10 {
            env.ok(["stop", "sleeper"]);
            if since.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
    env.ok(["rm", "--force", "sleeper"]);
    env.assert_nothing_left();
}

#[test]
fn a_volume_is_kept_while_another_service_uses_it() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    for name in ["one", "two"] {
        env.ok([
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
    env.ok(["exec", "one", "sh", "-c", "echo kept >/data/file; echo gone >/own/file"]);
    let mut rm = env.svp(["rm", "--force", "--volumes", "one"]);
    let output = rm.output().unwrap();
    let text = transcript(&rm, &output);
    assert!(output.status.success() && text.contains("keeping the volume shared"), "{text}");
    assert_eq!(env.ok(["exec", "two", "cat", "/data/file"]), "kept\n");
    env.ok(["run", "-d", "--name", "one", "-v", "one.own:/own", "one"]);
    assert_eq!(env.ok(["exec", "one", "ls", "/own"]), "");
    env.ok(["rm", "--force", "--volumes", "one", "two"]);
    env.ok(["run", "-d", "-v", "shared:/data", "one"]);
    assert_eq!(env.ok(["exec", "one", "ls", "/data"]), "");
    env.ok(["rm", "--force", "--volumes", "one"]);
    assert_eq!(processes_of(env.dir()), Vec::<String>::new());
    env.assert_nothing_left();
}

#[test]
fn leftovers_of_killed_commands_do_not_block() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    let services = env.store().join("services");
    // The leftovers of a killed `svp rm` and `svp run`: a directory without a record, and one not yet moved into place.
    std::fs::create_dir_all(services.join("one/logs")).unwrap();
    std::fs::write(services.join("one/lock"), "").unwrap();
    std::fs::create_dir_all(env.store().join("tmp/abcdef/service/logs")).unwrap();
    std::fs::create_dir_all(services.join("three")).unwrap();
    env.ok(["run", "-d", "one"]);
    assert_eq!(env.ok(["ps", "-a", "-q"]), "one\n");
    env.ok(["prune"]);
    let left: Vec<_> =
        std::fs::read_dir(&services).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["one"]);
    env.ok(["rm", "--force", "one"]);
    env.assert_nothing_left();
}

#[test]
fn unused_volumes_are_removed_on_request() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    for name in ["a", "b"] {
        env.ok(["run", "-d", "--name", name, "-v", &format!("data-{name}:/data"), "one"]);
        env.ok(["exec", name, "sh", "-c", "echo $HOSTNAME >/data/file"]);
    }
    env.ok(["rm", "--force", "a"]);
    env.ok(["prune"]);
    let printed = env.ok(["prune", "--volumes", "--dry-run"]);
    assert!(printed.contains("data-a") && !printed.contains("data-b"), "{printed}");
    env.ok(["prune", "--volumes"]);
    env.ok(["exec", "b", "cat", "/data/file"]);
    env.ok(["run", "-d", "--name", "a", "-v", "data-a:/data", "one"]);
    assert_eq!(env.ok(["exec", "a", "ls", "/data"]), "");
    // Messages show the names that the user typed.
    let text = env.fails(125, ["run", "-d", "--name", "bad", "-v", "v:/etc/passwd", "one"]);
    assert!(
        text.contains("the volume v at") && text.contains("the image has the other kind"),
        "{text}"
    );
    let text = env.fails(2, ["run", "-d", "--name", "bad", "-v", "v:/proc/x", "one"]);
    assert!(text.contains("can't mount at /proc/x"), "{text}");
    let twice = ["run", "-d", "--name", "bad", "-v", "v:/data", "-v", "w:/data/", "one"];
    assert!(env.fails(125, twice).contains("two mounts have the path /data"));
    env.ok(["rm", "--force", "a", "b"]);
    env.assert_nothing_left();
}

#[test]
fn every_service_command_prints_json() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "one", QUERY, BUILD, "#!/bin/sh\necho up\nexec sleep 1000\n");
    env.ok(["run", "-d", "one"]);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let arguments = [arguments, &["--format", "json"]].concat();
        serde_json::from_str(&env.ok(&arguments)).unwrap()
    };
    assert_eq!(json(&["ps"])[0]["name"], "one");
    assert_eq!(json(&["info", "one"])["status"], "running");
    assert_eq!(json(&["health", "one"])["healthy"], true);
    assert!(json(&["env", "one"]).is_object() && json(&["ports", "one"]).is_array());
    wait_until("the service is up", || !env.ok(["logs", "one"]).is_empty());
    assert_eq!(json(&["logs", "one"])["text"], "up");
    assert_eq!(json(&["restart", "one"])[0]["status"], "running");
    let stopped = &json(&["stop", "one"])[0];
    assert_eq!((&stopped["status"], &stopped["exitCode"]), (&"exited".into(), &143.into()));
    assert_eq!(json(&["wait", "one"])[0]["exitCode"], 143);
    assert_eq!(json(&["start", "one"])[0]["name"], "one");
    assert_eq!(json(&["rm", "--force", "one"])[0]["name"], "one");
    assert_eq!(json(&["ps", "-a"]), serde_json::json!([]));
    env.assert_nothing_left();
}

#[test]
fn a_damaged_service_is_reported_and_can_be_removed() {
    let env = TestEnv::new();
    env.import_busybox();
    instance(&env, "one", QUERY, BUILD, "#!/bin/sh\nexec sleep 1000\n");
    for name in ["good", "bad"] {
        env.ok(["run", "-d", "--name", name, "one"]);
    }
    let file = |file: &str| env.store().join("services/bad").join(file);
    // The status file is damaged, but svp still reports that the service runs.
    std::fs::write(file("status.json"), "{").unwrap();
    assert_eq!(info(&env, "bad")["status"], "running");
    env.ok(["stop", "bad"]);
    std::fs::write(file("service.json"), "{").unwrap();
    assert_eq!(env.ok(["ps", "-a", "-q"]), "good\n");
    for command in [&["info", "bad"][..], &["start", "bad"], &["rm", "bad"], &["prune"]] {
        let text = env.fails(65, command);
        assert!(text.contains("damaged") && text.contains("rm --force"), "{text}");
    }
    env.ok(["rm", "--force", "bad"]);
    let printed = env.ok(["prune"]);
    assert!(printed.contains("written by a service"), "{printed}");
    env.ok(["exec", "good", "true"]);
    env.ok(["run", "-d", "--name", "bad", "one"]);
    env.ok(["rm", "--force", "good", "bad"]);
    let printed = env.ok(["prune"]);
    assert!(!printed.contains("service"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn variables_set_by_the_user_reach_the_packs_clients() {
    let env = TestEnv::new();
    env.import_busybox();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; env) echo WEB_HOST=%IP; echo WEB_PORT=3306; \
        echo WEB_NAME=pack;; esac\n";
    let build = "#!/bin/sh\n[ $1 != base ] || { mkdir -p /data; echo page >/data/index.html; }\n";
    instance(&env, "web", query, build, "#!/bin/sh\nexec httpd -f -p $WEB_PORT -h /data\n");
    let file = env.path("env");
    std::fs::write(&file, "# of the file\nWEB_PORT=1\nOTHER=file\nWEB_NAME=file\n").unwrap();
    let file = file.to_str().unwrap();
    env.ok(["run", "-d", "--wait", "--env-file", file, "-e", "WEB_PORT=3307", "web"]);
    let variables = env.ok(["env", "web"]);
    assert!(
        variables.contains("WEB_PORT=3307\n") && variables.contains("WEB_NAME=file\n"),
        "{variables}"
    );
    assert!(!variables.contains("OTHER"), "{variables}");
    let at = env.ok(["ports", "web"]);
    assert!(at.trim().ends_with(":3307->3307/tcp"), "{at}");
    let inside = env.ok(["exec", "web", "sh", "-c", "echo $WEB_PORT $WEB_NAME $OTHER $WEB_HOST"]);
    let host = variables.lines().find_map(|line| line.strip_prefix("WEB_HOST=")).unwrap();
    assert_eq!(inside, format!("3307 file file {host}\n"));
    env.ok(["rm", "--force", "web"]);
    env.assert_nothing_left();
}

#[test]
fn each_volume_of_an_image_has_its_own_data() {
    let env = TestEnv::new();
    env.import_busybox();
    let long = format!("/{}/{}", "d".repeat(150), "e".repeat(150));
    let query = format!(
        "#!/bin/sh\ncase $1 in os) echo busybox/1;; volumes) echo /a/b; echo /a-b; echo {long};; esac\n"
    );
    let build =
        "#!/bin/sh\n[ $1 != base ] || { mkdir -p /a/b /a-b; echo >/a/b/one; echo >/a-b/two; }\n";
    instance(&env, "vols", &query, build, "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "vols"]);
    assert_eq!(env.ok(["exec", "vols", "ls", "/a/b"]), "one\n");
    assert_eq!(env.ok(["exec", "vols", "ls", "/a-b"]), "two\n");
    env.ok(["exec", "vols", "sh", "-c", &format!("echo >{long}/file")]);
    env.ok(["restart", "vols"]);
    assert_eq!(env.ok(["exec", "vols", "ls", &long]), "file\n");
    env.ok(["rm", "--force", "--volumes", "vols"]);
    assert!(!env.ok(["prune", "--volumes", "--dry-run"]).contains("volume"));
    env.assert_nothing_left();
}
