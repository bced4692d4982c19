//! Walls that can't be raised: each is an error. And what a query can do besides answering.

use std::process::Command;

use crate::e2e::common::{QUERY, build, pack_with};
use crate::support::{TestEnv, as_root, output, transcript};

/// Runs a program on a kernel that refuses some system calls.
const REFUSE: &str = include_str!("refuse.pl");

/// Returns `svp ARGUMENTS` on a kernel that refuses system calls: see refuse.pl.
fn on_a_kernel_that_refuses(env: &TestEnv, rules: &[String], arguments: &[&str]) -> Command {
    let script = env.path("refuse.pl");
    std::fs::write(&script, REFUSE).unwrap();
    let mut command = if as_root() {
        env.command("perl")
    } else {
        // CAP_SYS_ADMIN, and all ids of the user.
        let mut unshare = env.command("unshare");
        unshare.args(["--user", "--map-root-user", "--map-auto", "perl"]);
        unshare
    };
    command.arg(&script).args(rules).arg("--").arg(env!("CARGO_BIN_EXE_svp")).args(arguments);
    command
}

fn rule(number: libc::c_long, errno: i32) -> String {
    format!("{number}:{errno}")
}

/// Returns the code and stderr of a command.
fn finish(mut command: Command) -> (Option<i32>, String) {
    let result = output(&mut command);
    (result.status.code(), transcript(&command, &result))
}

#[test]
fn a_query_on_the_host_gains_no_privilege_and_writes_only_to_its_own_directories() {
    let env = TestEnv::new();
    env.import_busybox();
    // Each line is one probe: what must succeed prints nothing, what must fail prints its name.
    let query = r#"#!/bin/sh
exec >/tmp/out 2>&1
grep -q 'NoNewPrivs:[[:space:]]*1' /proc/self/status || echo no_new_privs
# A set-user-id program of the container's root, executed by another user of it.
cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && chmod 755 /tmp
if setpriv --reuid 1 --clear-groups true 2>/dev/null; then
    [ "$(setpriv --reuid 1 --clear-groups /tmp/id -u)" = 1 ] || echo setuid
fi
for dir in / /usr /usr/bin /etc /service /service/bin; do
    (: >"$dir/probe") 2>/dev/null && echo "writes $dir"
done
(: >>/usr/bin/id) 2>/dev/null && echo appends
(: >>/service/bin/query) 2>/dev/null && echo appends
mkdir /new 2>/dev/null && echo mkdir
mv /tmp /moved 2>/dev/null && echo mv
for dir in /tmp /dev/shm; do : >"$dir/probe" || echo "can't write $dir"; done
mkdir /tmp/a && ln /tmp/probe /tmp/a/linked && mv /tmp/a/linked /tmp/renamed || echo rename
echo text >/dev/null; echo 500 >/proc/self/oom_score_adj || echo proc
found=$(tr '\n' ';' </tmp/out)
exec >/dev/null
echo "found: $found" >/dev/stderr 2>/dev/null
exit 1
"#;
    // The descriptor of standard error is saved, since a query may not open its pipe by name.
    let query = query
        .replace("exec >/tmp/out 2>&1", "exec 3>&2 >/tmp/out 2>&1")
        .replace("echo \"found: $found\" >/dev/stderr 2>/dev/null", "echo \"found: $found.\" >&3");
    let pack = env.write_pack("pack", &[("bin/query", &query[..]), ("bin/build", "#!/bin/sh\n")]);
    let text = env.fails(65, build(&pack, "it"));
    assert!(text.contains("\"found: .\""), "{text}");
}

#[test]
fn a_query_in_an_image_gains_no_privilege_and_a_script_may() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;;\n\
        env) echo NNP=$(grep NoNewPrivs /proc/self/status | tr -dc 01);; esac\n";
    let script = "#!/bin/sh\ngrep -q 'NoNewPrivs:.*0' /proc/self/status\n";
    crate::e2e::run::instance(&env, "s", query, script, "#!/bin/sh\nexec sleep 1000\n");
    env.ok(["run", "-d", "s", "--network", "none"]);
    assert!(env.ok(["env", "s"]).contains("NNP=1"), "{}", env.ok(["env", "s"]));
    let status = env.ok(["exec", "s", "--", "grep", "NoNewPrivs", "/proc/self/status"]);
    assert!(status.trim().ends_with('0'), "{status}");
    env.ok(["rm", "-f", "s"]);
}

#[test]
fn without_landlock_the_first_wall_holds_and_a_rule_that_fails_is_an_error() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "pack", "echo text >/file");
    let arguments = build(&pack, "it");
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
        let rules = [rule(libc::SYS_landlock_create_ruleset, errno)];
        let (code, text) = finish(on_a_kernel_that_refuses(&env, &rules, &arguments));
        assert_eq!(code, Some(0), "{text}");
        let (code, text) = finish(on_a_kernel_that_refuses(&env, &rules, &["check"]));
        assert_eq!(code, Some(0), "{text}");
        assert!(text.lines().any(|line| line.starts_with("limited") && line.contains("landlock")));
    }
    let check = env.ok(["check"]);
    let has_landlock =
        check.lines().any(|line| line.starts_with("ok") && line.contains("landlock"));
    for call in [libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self] {
        let rules = [rule(call, libc::ENOMEM)];
        let (code, text) = finish(on_a_kernel_that_refuses(&env, &rules, &arguments));
        if has_landlock {
            assert_eq!(code, Some(77), "{text}");
            assert!(text.contains("Landlock"), "{text}");
        }
        // Unpacking as well: nothing is left of it.
        let out = env.path("unpacked");
        let arguments = ["unpack", "busybox", out.to_str().unwrap()];
        let (code, text) = finish(on_a_kernel_that_refuses(&env, &rules, &arguments));
        if has_landlock {
            assert_eq!(code, Some(77), "{text}");
            assert!(!out.join("bin").exists(), "{text}");
        }
    }
    env.assert_nothing_left();
}

#[test]
fn a_query_has_no_memory_that_belongs_to_no_process() {
    let env = TestEnv::new();
    let (memfd, shm) = (libc::SYS_memfd_create, libc::SYS_shmget);
    let query = format!(
        "#!/bin/sh\ncase $1 in os) echo busybox/1;;\n\
         env) perl -e '$name = \"x\"; $a = syscall({memfd}, $name, 0); $b = syscall({shm}, 0, 4096, 01600); \
         print \"M=$a$b\\n\"';; esac\n"
    );
    let files = [("bin/query", &*query), ("bin/build", "#!/bin/sh\n")];
    let pack = env.write_pack("pack", &files);
    assert_eq!(env.ok(["query", "-b", pack.to_str().unwrap(), "env"]), "M=-1-1\n");
    env.assert_nothing_left();
}

#[test]
fn groups_that_cannot_be_dropped_and_a_missing_filter_fail_the_start() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "pack", "true");
    let arguments = build(&pack, "it");
    // seccomp itself for the filter's operation SECCOMP_SET_MODE_FILTER without flags, as refuse.pl's own is done by then.
    let filter = format!("{}:{}:1=0", libc::SYS_seccomp, libc::EINVAL);
    for (rule, expected) in [
        (rule(libc::SYS_setgroups, libc::EPERM), "groups"),
        (filter, "seccomp"),
        (format!("{}:{}:0={}", libc::SYS_unshare, libc::ENOSPC, libc::CLONE_NEWCGROUP), "cgroup"),
        (rule(libc::SYS_setsid, libc::EPERM), "session"),
    ] {
        let (code, text) = finish(on_a_kernel_that_refuses(&env, &[rule], &arguments));
        assert_eq!(code, Some(77), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    // A kernel without cgroup namespaces.
    let rule = format!("{}:{}:0={}", libc::SYS_unshare, libc::EINVAL, libc::CLONE_NEWCGROUP);
    let (code, text) = finish(on_a_kernel_that_refuses(&env, &[rule], &arguments));
    assert_eq!(code, Some(0), "{text}");
    env.assert_nothing_left();
}

/// AF_NETLINK sockets of NETLINK_XFRM, as on a kernel without IPsec.
#[test]
fn an_egress_filter_that_cannot_be_set_is_no_reason_for_the_hosts_network() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack =
        env.write_pack("pack", &[("bin/query", QUERY), ("bin/build", "#!/bin/sh\necho ran\n")]);
    let pack = pack.to_str().unwrap();
    let arguments = ["--progress", "plain", "build", "-b", pack, "-t", "it", "--base", "busybox"];
    let rule = format!("{}:{}:2=6", libc::SYS_socket, libc::EPROTONOSUPPORT);
    let refusing = |arguments: &[&str]| {
        finish(on_a_kernel_that_refuses(&env, std::slice::from_ref(&rule), arguments))
    };
    let (code, text) = refusing(&arguments);
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains("can't block 127.0.0.0/8") && text.contains("--network none"), "{text}");
    assert!(!text.contains("| ran"), "{text}");
    let (_, text) = refusing(&["check"]);
    let failed = |line: &str| line.starts_with("FAILED") && line.contains("can't block");
    assert!(text.lines().any(failed), "{text}");
    env.ok(arguments);
    env.assert_nothing_left();
}
