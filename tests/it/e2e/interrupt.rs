//! Interrupts and kills at any moment, and a full disk.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::e2e::common::{build, pack_with};
use crate::support::{
    TestEnv, as_root, busybox_base, output, processes_of, processes_with, transcript, wait_until,
};

/// Starts a build in its own process group, as a terminal would.
fn start(env: &TestEnv, script: &str) -> Child {
    let pack = pack_with(env, "pack", script);
    let mut command = env.svp(build(&pack, "x"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.spawn().expect("svp")
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[test]
fn ctrl_c_at_any_moment_leaves_nothing() {
    for delay in [0, 5, 10, 20, 40, 80, 120, 200, 300, 500, 800] {
        let env = TestEnv::new();
        env.import_busybox();
        let before = env.ok(["images"]);
        let mut child = start(&env, "trap '' INT TERM; echo begun; sleep 4301 & wait; sleep 4301");
        std::thread::sleep(Duration::from_millis(delay));
        let handles = handles_interrupts(&child);
        let _ = kill_process_group(pid(&child), Signal::INT);
        let sent = Instant::now();
        let status = child.wait().expect("wait");
        assert!(sent.elapsed() < Duration::from_secs(20), "took {:?}", sent.elapsed());
        use std::os::unix::process::ExitStatusExt;
        // Before svp handles interrupts, the signal kills it.
        let interrupted = status.code() == Some(130) || (!handles && status.signal() == Some(2));
        assert!(interrupted, "after {delay} ms: {status:?}");
        wait_until("the script ends", || processes_with("sleep\x004301\0").is_empty());
        assert_eq!(env.ok(["images"]), before, "after {delay} ms");
        env.assert_nothing_left();
    }
}

/// Returns whether svp blocks SIGINT already, for its thread that waits for signals.
fn handles_interrupts(svp: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", svp.id())).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(blocked.trim(), 16).unwrap() & (1 << (Signal::INT.as_raw() - 1)) != 0
}

#[test]
fn ctrl_c_while_stages_start_is_an_interrupt_not_a_failure() {
    let env = TestEnv::new();
    env.import_busybox();
    for delay in (0..50).chain(0..50) {
        let child = start(&env, "sleep 4306");
        // Before it does, the signal kills svp, which has done nothing yet.
        wait_until("svp handles interrupts", || handles_interrupts(&child));
        std::thread::sleep(Duration::from_millis(delay));
        kill_process_group(pid(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "after {delay} ms: {stderr}");
    }
    wait_until("the scripts end", || processes_with("sleep\x004306\0").is_empty());
    env.assert_nothing_left();
}

#[test]
fn a_killed_svp_ends_its_script_and_the_next_command_sweeps() {
    let env = TestEnv::new();
    env.import_busybox();
    let before = env.ok(["images"]);
    let mut child = start(&env, "echo begun; sleep 4302");
    wait_until("the script runs", || !processes_with("sleep\x004302\0").is_empty());
    kill_process(pid(&child), Signal::KILL).expect("kill");
    child.wait().expect("wait");
    wait_until("everything is gone", || {
        processes_with("sleep\x004302\0").is_empty() && processes_of(env.dir()).is_empty()
    });
    assert_eq!(env.ok(["images"]), before);
    let pack = pack_with(&env, "pack2", "echo x >/x");
    env.ok(build(&pack, "y"));
    env.assert_nothing_left();
}

#[test]
fn a_full_disk_is_reported_and_leaves_the_store_usable() {
    let env = TestEnv::new();
    let store = env.store();
    std::fs::create_dir_all(&store).unwrap();
    let pack = pack_with(&env, "pack", "dd if=/dev/urandom of=/big bs=1M count=200");
    // The tmpfs is mounted in a private mount namespace, for which `unshare` needs a user namespace unless the caller
    // is root. The second build shows that the store still works.
    let script = format!(
        "set -e\n\
         mount -t tmpfs -o size=48m,mode=700 tmpfs {store}\n\
         \"$SVP\" import {base} -t busybox >/dev/null\n\
         code=0; \"$SVP\" build -b {pack} -t x --base busybox --network none || code=$?\n\
         echo \"code $code\"; \"$SVP\" images; ls -A {store}/tmp {store}/trees/tmp\n\
         code=0; head -c 100000000 /dev/urandom >{store}/../work/random.tar\n\
         \"$SVP\" import {store}/../work/random.tar -t r || code=$?\n\
         echo \"code $code\"\n\
         df --output=used -k {store} | tail -n 1 | sed 's/^/used/'\n",
        store = store.display(),
        base = busybox_base().display(),
        pack = pack.display(),
    );
    let mut command = env.command("unshare");
    command.arg("--mount");
    if !as_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.args(["sh", "-c", &script]).env("SVP", env!("CARGO_BIN_EXE_svp"));
    let result = output(&mut command);
    let text = transcript(&command, &result);
    assert!(text.contains("code 1\n") || text.contains("code 74\n"), "{text}");
    assert!(!text.contains("code 0"), "{text}");
    assert!(text.contains("No space left on device"), "{text}");
}
