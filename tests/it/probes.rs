//! The probes (probes/), in svp's own containers: all that is open is known. `make probes` compares it with other tools.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use crate::support::{TestEnv, repo, success, wait_until};

/// What a container may do, in the words of the probes, and why.
const OPEN: &[(&str, &str)] = &[
    (
        "a set-user-ID program gains privileges",
        "packs use su and sudo; query alone has no_new_privs",
    ),
    (
        "socket: NETLINK_AUDIT",
        "su and login open it; the kernel takes nothing from a user namespace",
    ),
    ("reads /proc/key-users", "counts of this container's own ids"),
    ("reads /proc/iomem", "all addresses are zero without a capability of the host"),
    ("reads /sys/kernel/notes", "the build ID of the kernel, as in docker and podman"),
];

/// The program, built once. `make test` has built it already.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let find = || match std::env::var_os("SVP_PROBES") {
        Some(path) => path.into(),
        None => {
            let mut build = std::process::Command::new(repo().join("scripts/build-probes.sh"));
            success(&mut build).trim_end().into()
        }
    };
    PROGRAM.get_or_init(find).clone()
}

/// A process that plays the host.
struct Host(Child);

impl Host {
    fn start(env: &TestEnv) -> Host {
        let dir = env.path("host");
        std::fs::create_dir(&dir).unwrap();
        let mut host = env.command(program());
        host.arg("--host").arg(&dir).env("SVP_PROBES_SECRET", "secret").stdout(Stdio::null());
        let host = Host(host.spawn().unwrap());
        wait_until("the host is ready", || dir.join("env").exists());
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SIGTERM, so that it removes its shared memory.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Checks that nothing but what is known is open in a place, and that enough was tried.
fn check(place: &str, lines: impl Iterator<Item = (String, String)>) {
    let (mut unknown, mut tried) = (Vec::new(), 0);
    for (name, result) in lines {
        tried += 1;
        if result == "open" && !OPEN.iter().any(|(known, _)| *known == name) {
            unknown.push(name);
        }
    }
    assert!(unknown.is_empty(), "{place}: open: {unknown:#?}");
    assert!(tried > 220, "{place}: {tried} probes");
}

/// The names and results of the program's output.
fn results(output: &str) -> impl Iterator<Item = (String, String)> + '_ {
    output.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        (fields[1].to_owned(), fields[2].to_owned())
    })
}

#[test]
fn all_that_is_open_in_a_container_is_known() {
    let env = TestEnv::new();
    env.import_busybox();
    let host = Host::start(&env);
    let script = "#!/bin/sh\nset -a && . /service/env\n";
    let query = format!(
        "{script}case $1 in\nos) echo busybox/1 ;;\nenv) echo PROBES=$(/service/svp-probes | cut -f3 | tr '\\n' ,) ;;\nesac\n"
    );
    let build = format!("{script}[ $1 = base ] || /service/svp-probes >/in-setup\n");
    let run = format!("{script}/service/svp-probes >/in-run && : >/ready\nexec sleep 1000\n");
    let pack = env.write_pack(
        "pack",
        &[("bin/query", &query), ("bin/build", &build), ("bin/run", &run), ("README.md", "")],
    );
    std::fs::copy(program(), pack.join("svp-probes")).unwrap();
    std::fs::copy(env.path("host/env"), pack.join("env")).unwrap();
    let pack = pack.to_str().unwrap();

    let answer = env.ok(["query", "-b", pack, "env"]);
    let letters = answer.trim().trim_start_matches("PROBES=").trim_end_matches(',').split(',');
    let list = success(env.command(program()).arg("--list"));
    let names = list.lines().map(|line| line.split('\t').nth(1).unwrap().to_owned());
    check("query", names.zip(letters.map(str::to_owned)));

    env.ok(["build", "-b", pack, "-t", "p-base", "--base", "busybox"]);
    env.ok(["setup", "-i", "p-base", "-t", "p"]);
    env.ok(["run", "-d", "p"]);
    let ready = || env.svp(["exec", "p", "test", "-e", "/ready"]).status().unwrap().success();
    wait_until("the service's probes have ended", ready);
    check("setup", results(&env.ok(["exec", "p", "cat", "/in-setup"])));
    check("run", results(&env.ok(["exec", "p", "cat", "/in-run"])));
    let probe = "set -a && . /service/env && exec /service/svp-probes";
    check("exec", results(&env.ok(["exec", "p", "sh", "-c", probe])));
    env.ok(["rm", "-f", "--volumes", "p"]);
    drop(host);
    env.assert_nothing_left();
}
