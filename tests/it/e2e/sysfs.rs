//! What a container sees of the host's /sys: its own bounds, and nothing to write to.

use std::path::Path;

use crate::e2e::common::{build, pack_with};
use crate::e2e::run::instance;
use crate::support::{TestEnv, as_root, output, run, transcript};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; esac\n";
const RUN: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Prints the limits from the files where a JVM, Go and node look for them, version 2 first.
const BOUNDS: &str = "cd /sys/fs/cgroup
    cat memory.max memory/memory.limit_in_bytes 2>/dev/null
    cat cpu.max 2>/dev/null || echo \"$(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us)\"
    cat pids.max pids/pids.max 2>/dev/null
    true";

fn exec(env: &TestEnv, service: &str, script: &str) -> String {
    env.ok(["exec", service, "--", "sh", "-c", script])
}

/// Whether limits have an effect for this user on this host.
fn can_limit(env: &TestEnv) -> bool {
    let check = output(&mut env.svp(["check"]));
    let text = [&check.stdout[..], &check.stderr[..]].concat();
    !String::from_utf8_lossy(&text).contains("would have no effect")
}

#[test]
fn a_container_sees_its_own_bounds_in_every_network() {
    let env = TestEnv::new();
    instance(&env, "s", QUERY, "#!/bin/sh\n", RUN);
    let limits = ["--memory", "300m", "--cpus", "1", "--pids", "50"];
    for network in ["auto", "host", "none"] {
        let arguments = [&["run", "-d", "s", "--name", network, "--network", network][..], &limits];
        env.ok(arguments.concat());
        // svp's own four processes come on top.
        if can_limit(&env) {
            let bounds = exec(&env, network, BOUNDS);
            assert_eq!(bounds, format!("{}\n100000 100000\n54\n", 300 << 20), "{network}");
            // The container's cgroup is the root of what it sees.
            let own = exec(&env, network, "grep -E ':memory|^0::' /proc/1/cgroup | cut -d: -f3");
            assert!(own.lines().all(|path| path == "/"), "{own}");
        }
        let writable = exec(
            &env,
            network,
            "awk '$2 ~ \"^/sys\" && $4 !~ \"^ro\" && $4 !~ \",ro\"' /proc/mounts; find /sys/fs/cgroup \
             -name cgroup.procs | while read f; do (echo $$ >$f) 2>/dev/null && echo $f; done; \
             mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; true",
        );
        assert_eq!(writable, "", "{network}");
    }
    // The mounts of the host are as they were.
    let host = std::fs::read_to_string("/proc/mounts").unwrap();
    let cgroups: Vec<&str> = host.lines().filter(|line| line.contains(" /sys/fs/cgroup")).collect();
    assert!(cgroups.iter().all(|line| line.contains(" rw,")), "{cgroups:#?}");
}

#[test]
fn a_container_without_limits_does_not_see_the_whole_hierarchy() {
    let env = TestEnv::new();
    instance(&env, "s", QUERY, "#!/bin/sh\n", RUN);
    for network in ["host", "none"] {
        env.ok(["run", "-d", "s", "--name", network, "--network", network]);
        let roots = exec(
            &env,
            network,
            "find /sys/fs/cgroup -maxdepth 2 -name release_agent; \
             ls /sys/fs/cgroup | grep -c slice; true",
        );
        assert_eq!(roots, "0\n", "{network}");
    }
}

#[test]
fn sys_shows_the_containers_network_and_hides_the_host() {
    let env = TestEnv::new();
    instance(&env, "s", QUERY, "#!/bin/sh\n", RUN);
    for network in ["host", "none"] {
        env.ok(["run", "-d", "s", "--name", network, "--network", network]);
        let interfaces = exec(&env, network, "ls /sys/class/net");
        if network == "none" {
            assert_eq!(interfaces, "lo\n");
        } else {
            assert_eq!(interfaces, run("ls", ["/sys/class/net"]));
        }
        let processors = exec(&env, network, "cat /sys/devices/system/cpu/online");
        assert_eq!(processors, std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap());
        for hidden in [
            "firmware",
            "dev/block",
            "devices/virtual/powercap",
            "fs/selinux",
            "fs/bpf",
            "kernel/debug",
            "kernel/tracing",
            "kernel/security",
        ] {
            let files = exec(&env, network, &format!("ls /sys/{hidden} 2>/dev/null; true"));
            assert_eq!(files, "", "{network}: {hidden}");
        }
        let wrote = exec(&env, network, "echo mem >/sys/power/state 2>&1 || echo refused");
        assert!(wrote.ends_with("refused\n"), "{wrote}");
    }
}

#[test]
fn a_build_sees_sys_and_leaves_no_trace_of_it() {
    let env = TestEnv::new();
    env.import_busybox();
    let script = "set -e; test -d /sys/class/net; ! mkdir /sys/class/x 2>/dev/null; rmdir /sys 2>/dev/null || true";
    let layout = crate::e2e::common::build_layout(&env, script, "it");
    let names = crate::e2e::common::last_layer(&layout, "it:latest");
    assert!(!names.iter().any(|name| name.contains("sys")), "{names:?}");
    // An image whose /sys is missing, or a link to elsewhere.
    for (tag, make) in [("none", "rmdir sys"), ("link", "rmdir sys; ln -s etc sys")] {
        let root = env.path(tag);
        std::fs::create_dir(&root).unwrap();
        let base = crate::support::busybox_base();
        let commands = format!("tar -xf {} -C {tag} && cd {tag} && {make}", base.display());
        run("sh", ["-c", &format!("cd {} && {commands}", env.path("").display())]);
        let tar = env.path(&format!("{tag}.tar"));
        let tar = tar.to_str().unwrap();
        run("tar", ["-cf", tar, "--owner=0", "--group=0", "-C", root.to_str().unwrap(), "."]);
        env.ok(["import", tar, "-t", tag]);
        let pack = pack_with(&env, &format!("pack-{tag}"), "ls /sys/class/net; touch /x");
        let mut arguments = build(&pack, "it2");
        arguments[6] = tag;
        arguments.extend(["--oci-dir", tar.trim_end_matches(".tar")]);
        let out = env.path(&format!("out-{tag}"));
        let last = arguments.len() - 1;
        arguments[last] = out.to_str().unwrap();
        env.ok(arguments);
        let names = crate::e2e::common::last_layer(&out, "it2:latest");
        assert!(!names.iter().any(|name| name.contains("sys")), "{names:?}");
    }
}

/// The case that the limits are for: without a view of them, a JVM takes a quarter of the host's memory.
#[test]
fn a_jvm_sees_its_bounds() {
    let env = TestEnv::new();
    if !Path::new("/usr/bin/java").exists() || !can_limit(&env) || !as_root() {
        return;
    }
    instance(&env, "s", QUERY, "#!/bin/sh\n", RUN);
    let mut arguments = vec!["run", "-d", "s", "-m", "300m", "--cpus", "1", "--network", "none"];
    for dir in [
        "/usr:/usr:ro",
        "/lib:/lib:ro",
        "/lib64:/lib64:ro",
        "/etc/alternatives:/etc/alternatives:ro",
    ] {
        if Path::new(dir.split(':').next().unwrap()).exists() {
            arguments.extend(["-v", dir]);
        }
    }
    env.ok(arguments);
    let mut svp =
        env.svp(["exec", "s", "--", "/usr/bin/java", "-XshowSettings:system", "-version"]);
    let told = output(&mut svp);
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{}", transcript(&svp, &told));
    assert!(text.contains("Effective CPU Count: 1"), "{text}");
    assert!(text.contains("Memory Limit: 300.00M"), "{text}");
}
