//! Same content, same digest: from any clone, with any umask, on any number of cores, as root or not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::e2e::common::QUERY;
use crate::support::ordinary_user::OrdinaryUser;
use crate::support::{TestEnv, as_root, busybox_base, run, success};

const EPOCH: &str = "1700000000";

/// More than one block of the compressor, so that threads share the work.
const BUILD: &str = "#!/bin/sh
umask 022
i=0; while [ $i -lt 4000 ]; do echo \"line $i of a file that compresses as text does $((i * 7919 % 1000))\"; i=$((i + 1)); done >/big
for n in 1 2 3 4 5 6 7 8 9 10; do cat /big; done >/bigger
mkdir -p /d/e; echo x >/d/e/x; ln /d/e/x /d/y; chown 33:44 /d/y; chmod 2755 /d
touch /now
";

/// Writes the pack with `umask` and files of the time `time` (`touch -d`), like a git clone.
fn clone(place: &TestEnv, name: &str, umask: &str, time: &str) -> String {
    let pack = place.write_pack(
        name,
        &[("bin/query", QUERY), ("bin/build", BUILD), ("lib/data", "data"), (".git/HEAD", name)],
    );
    let path = pack.to_str().unwrap().to_string();
    // The modes that a clone with this umask has.
    let script = format!(
        "umask {umask}; cp -r \"$0\" \"$0.new\"; rm -r \"$0\"; mv \"$0.new\" \"$0\"; find \"$0\" -exec touch -d '{time}' {{}} +"
    );
    run("sh", ["-c", &script, &path]);
    path
}

/// Builds in a fresh store, with this command prefix before svp; returns the digest.
#[track_caller]
fn digest(pack: &str, before: &[&str]) -> String {
    let place = TestEnv::new();
    digest_in(&place, pack, before, Path::new(env!("CARGO_BIN_EXE_svp")), &busybox_base())
}

#[track_caller]
fn digest_in(place: &TestEnv, pack: &str, before: &[&str], svp: &Path, base: &Path) -> String {
    let svp = svp.to_str().unwrap();
    let start = |arguments: &[&str]| {
        let mut all = before.to_vec();
        all.push(svp);
        all.extend(arguments);
        let mut command: Command = place.command(all[0]);
        command.args(&all[1..]).env("SOURCE_DATE_EPOCH", EPOCH);
        success(&mut command)
    };
    start(&["import", base.to_str().unwrap(), "-t", "busybox"]);
    start(&["build", "-b", pack, "-t", "x", "--base", "busybox", "--network", "none"])
}

#[test]
fn two_clones_with_other_umasks_and_times() {
    let place = TestEnv::new();
    let one = clone(&place, "one", "022", "2020-01-01");
    let two = clone(&place, "two", "077", "2024-05-06 07:08:09");
    let first = digest(&one, &[]);
    assert_eq!(first, digest(&two, &["sh", "-c", "umask 077; exec \"$0\" \"$@\""]));
    assert!(first.starts_with("sha256:"), "{first}");
    // And different input gives a different digest.
    std::fs::write(format!("{two}/lib/data"), "other").unwrap();
    assert_ne!(first, digest(&two, &[]));
}

#[test]
fn one_core_and_all() {
    let place = TestEnv::new();
    let pack = clone(&place, "pack", "022", "2020-01-01");
    assert_eq!(digest(&pack, &[]), digest(&pack, &["taskset", "--cpu-list", "0"]));
}

#[test]
fn again_a_second_later() {
    let place = TestEnv::new();
    let pack = clone(&place, "pack", "022", "2020-01-01");
    let first = digest(&pack, &[]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, digest(&pack, &[]));
}

/// As root, runs svp as an ordinary user too; an ordinary user compares with the root of a user namespace.
#[test]
fn as_root_and_not() {
    let place = TestEnv::new();
    let pack = clone(&place, "pack", "022", "2020-01-01");
    let mine = digest(&pack, &[]);
    let other = TestEnv::new();
    if as_root() {
        // The user can't use anything below a 0700 directory.
        let svp = other.path("svp");
        std::fs::copy(env!("CARGO_BIN_EXE_svp"), &svp).unwrap();
        let base = other.path("base.tar");
        std::fs::copy(busybox_base(), &base).unwrap();
        let theirs = other.path("pack");
        run("cp", ["-a", &pack, theirs.to_str().unwrap()]);
        std::fs::set_permissions(other.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let user = OrdinaryUser::create();
        run("chown", ["-R", user.name(), other.dir().to_str().unwrap()]);
        let before = ["runuser", "-u", user.name(), "--"];
        assert_eq!(mine, digest_in(&other, theirs.to_str().unwrap(), &before, &svp, &base));
    } else {
        let before = ["unshare", "--user", "--map-root-user", "--map-auto", "--"];
        assert_eq!(mine, digest(&pack, &before));
    }
}
