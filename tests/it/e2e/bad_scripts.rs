//! Build scripts that fail, die, linger or attack.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::e2e::common::{build, build_layout, last_layer, pack_with};
use crate::support::{TestEnv, processes_with};

/// Builds a script that must fail with exit code 1 and leave no image; returns svp's message.
#[track_caller]
fn fails(script: &str) -> (TestEnv, String) {
    let env = TestEnv::new();
    env.import_busybox();
    let before = env.ok(["images"]);
    let pack = pack_with(&env, "pack", script);
    let out = env.path("out");
    let mut arguments = build(&pack, "x");
    arguments.extend(["--oci-dir", out.to_str().unwrap()]);
    let printed = env.fails(1, arguments);
    assert_eq!(env.ok(["images"]), before);
    assert!(!out.join("index.json").exists(), "a layout was written");
    env.assert_nothing_left();
    (env, printed)
}

/// Returns the log that the message names.
#[track_caller]
fn log_in(printed: &str, env: &TestEnv) -> String {
    let logs = env.store().join("logs");
    let logs = logs.to_str().unwrap();
    let start = printed.find(logs).unwrap_or_else(|| panic!("no path below {logs} in: {printed}"));
    let path = printed[start..].split(|c: char| c.is_whitespace() || "`'\")".contains(c)).next();
    let path = path.unwrap().trim_end_matches(['.', ',', ':', ';']);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn a_failure_shows_its_code_and_last_lines_and_keeps_the_log() {
    let (env, printed) = fails(
        "i=0; while [ $i -lt 500 ]; do echo line-$i; i=$((i+1)); done; echo the end >&2; exit 7",
    );
    assert!(
        printed.contains('7') && printed.contains("line-499") && printed.contains("the end"),
        "{printed}"
    );
    let log = log_in(&printed, &env);
    assert!(
        log.starts_with("line-0\n") && log.contains("line-250\n") && log.ends_with("the end\n")
    );
}

#[test]
fn a_death_by_signal_is_reported() {
    let (_, printed) = fails("kill -9 $$; sleep 100");
    assert!(printed.contains("SIGKILL") || printed.contains("signal 9"), "{printed}");
    let (_, printed) = fails("kill -11 $$; sleep 100");
    assert!(printed.contains("SIGSEGV") || printed.contains("signal 11"), "{printed}");
}

#[test]
fn a_script_that_cannot_start_is_reported() {
    let env = TestEnv::new();
    env.import_busybox();
    let files = [
        ("bin/query", crate::e2e::common::QUERY),
        ("bin/build", "#!/no/such/interpreter\nexit 0\n"),
    ];
    let pack = env.write_pack("pack", &files);
    let printed = env.fails(65, build(&pack, "x"));
    assert!(printed.contains("/no/such/interpreter") && printed.contains("bin/build"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn daemons_are_dead_before_the_diff() {
    let env = TestEnv::new();
    let script = "
        (trap '' TERM HUP INT; while :; do echo more >>/grows; done) >/dev/null 2>&1 &
        setsid sleep 4201 </dev/null >/dev/null 2>&1 &
        sleep 0.2; echo done >/done";
    let out = build_layout(&env, script, "daemons");
    let files = last_layer(&out, "daemons:latest");
    assert!(files.iter().any(|name| name == "done"), "{files:?}");
    assert!(processes_with("sleep\x004201\0").is_empty());
    env.assert_nothing_left();
}

#[test]
fn a_child_that_keeps_stdout_open_does_not_block() {
    let env = TestEnv::new();
    let started = std::time::Instant::now();
    build_layout(&env, "sleep 4202 & echo x >/x", "holder");
    assert!(started.elapsed().as_secs() < 60, "took {:?}", started.elapsed());
    assert!(processes_with("sleep\x004202\0").is_empty());
    env.assert_nothing_left();
}

#[test]
fn the_binary_cannot_be_overwritten_from_inside() {
    let hash = |path: &Path| Sha256::digest(std::fs::read(path).unwrap());
    let binary = Path::new(env!("CARGO_BIN_EXE_svp"));
    let before = hash(binary);
    let env = TestEnv::new();
    let script = "
        for exe in /proc/[0-9]*/exe; do
            (echo evil >$exe) 2>/dev/null && echo wrote $exe
            (exec 3<>$exe && echo evil >&3) 2>/dev/null && echo wrote $exe
        done
        cp /bin/busybox /tmp/b && cat /tmp/b >/proc/1/exe
        (sleep 1; cat /tmp/b >/proc/1/exe) &
        exit 0";
    let printed = {
        env.import_busybox();
        let pack = pack_with(&env, "pack", script);
        let mut command = env.svp(build(&pack, "x"));
        let output = crate::support::output(&mut command);
        crate::support::transcript(&command, &output)
    };
    // Writing to the running busybox fails with ETXTBSY; writing to svp must fail too, for any reason.
    assert!(!printed.contains("wrote /proc/1/exe"), "{printed}");
    assert_eq!(hash(binary), before, "the binary has changed");
    env.ok(["--version"]);
}

#[test]
fn the_sandbox_matches_the_design() {
    let env = TestEnv::new();
    let script = "
        check() { if eval \"$2\"; then echo \"ok $1\"; else echo \"BAD $1\"; fi >>/report; }
        check stdin '[ \"$(readlink /proc/self/fd/0)\" = /dev/null ]'
        check descriptors '[ \"$(ls /proc/self/fd | tr \"\\n\" \" \")\" = \"0 1 2 3 \" ]'
        check umask '[ \"$(umask)\" = 0022 ]'
        check cwd '[ \"$(pwd)\" = /service ]'
        check root '[ \"$(id -u)\" = 0 ]'
        check processes '[ $(ls -d /proc/[0-9]* | wc -l) -lt 8 ]'
        check devices '[ -c /dev/null ] && [ -c /dev/zero ] && [ -c /dev/full ] && [ -c /dev/random ] && \
                       [ -c /dev/urandom ] && [ -c /dev/tty ] && [ -d /dev/pts ] && [ -d /dev/shm ] && \
                       [ -e /dev/ptmx ] && [ -L /dev/fd ] && [ -L /dev/stdout ]'
        check no-disk '[ -z \"$(find /dev -type b)\" ]'
        check null 'echo x >/dev/null'
        check network '[ $(grep -c : /proc/net/dev) = 1 ]'
        check hosts 'grep -q localhost /etc/hosts'
        check argument '[ \"$PHASE\" = base ]'
        check store '[ ! -e /proc/1/cwd/layers ]'
        env >/environment";
    env.import_busybox();
    let script = format!("PHASE=$1; {script}");
    let pack = pack_with(&env, "pack", &script);
    let mut command = env.svp(build(&pack, "x"));
    command.env("HOST_VARIABLE", "leaks").env("LD_PRELOAD_X", "leaks");
    crate::support::success(&mut command);
    let root = env.path("root");
    env.ok(["unpack", "x", root.to_str().unwrap()]);
    let report = std::fs::read_to_string(root.join("report")).unwrap();
    assert!(!report.contains("BAD") && report.lines().count() == 13, "{report}");
    let environment = std::fs::read_to_string(root.join("environment")).unwrap();
    assert!(!environment.contains("leaks") && !environment.contains("SVP_ROOT"), "{environment}");
    assert!(environment.contains("PATH="), "{environment}");
    // The sandbox's mounts leave no trace.
    for path in ["etc/hosts", "etc/resolv.conf", "dev/null", "proc/self"] {
        assert!(!root.join(path).exists(), "{path} is in the image");
    }
}
