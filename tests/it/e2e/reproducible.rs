//! Same content, same digest: from any clone, with any umask, on any number of cores, as root or not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use svp::oci::Digest;

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

/// Writes the pack with `umask` and the file time `time` (`touch -d`), like a git clone.
fn clone(env: &TestEnv, name: &str, umask: &str, time: &str) -> String {
    let pack = env.write_pack(
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
    let env = TestEnv::new();
    digest_in(&env, pack, before, Path::new(env!("CARGO_BIN_EXE_svp")), &busybox_base())
}

#[track_caller]
fn digest_in(env: &TestEnv, pack: &str, before: &[&str], svp: &Path, base: &Path) -> String {
    let svp = svp.to_str().unwrap();
    let start = |arguments: &[&str]| {
        let mut all = before.to_vec();
        all.push(svp);
        all.extend(arguments);
        let mut command: Command = env.command(all[0]);
        command.args(&all[1..]).env("SOURCE_DATE_EPOCH", EPOCH);
        success(&mut command)
    };
    start(&["import", base.to_str().unwrap(), "-t", "busybox"]);
    start(&["build", "-b", pack, "-t", "x", "--base", "busybox", "--network", "none"])
}

#[test]
fn two_clones_with_other_umasks_and_times() {
    let env = TestEnv::new();
    let one = clone(&env, "one", "022", "2020-01-01");
    let two = clone(&env, "two", "077", "2024-05-06 07:08:09");
    let first = digest(&one, &[]);
    assert_eq!(first, digest(&two, &["sh", "-c", "umask 077; exec \"$0\" \"$@\""]));
    assert!(first.starts_with("sha256:"), "{first}");
    // And different input gives a different digest.
    std::fs::write(format!("{two}/lib/data"), "other").unwrap();
    assert_ne!(first, digest(&two, &[]));
}

#[test]
fn one_core_or_all_cores() {
    let env = TestEnv::new();
    let pack = clone(&env, "pack", "022", "2020-01-01");
    assert_eq!(digest(&pack, &[]), digest(&pack, &["taskset", "--cpu-list", "0"]));
}

#[test]
fn again_a_second_later() {
    let env = TestEnv::new();
    let pack = clone(&env, "pack", "022", "2020-01-01");
    let first = digest(&pack, &[]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, digest(&pack, &[]));
}

/// As root, runs svp as an ordinary user too; an ordinary user compares with the root of a user namespace.
#[test]
fn as_root_and_not() {
    let env = TestEnv::new();
    let pack = clone(&env, "pack", "022", "2020-01-01");
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

/// Pins the encoding and compression of layers, configs and manifests. A new version of the compressor may change
/// these digests; any other change would give users new images for no reason.
#[test]
fn the_digests_are_those_of_earlier_versions() {
    let env = TestEnv::new();
    let tar = env.path("base.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(8);
    header.set_mtime(1_600_000_000);
    archive.append_data(&mut header, "etc/motd", &b"welcome\n"[..]).unwrap();
    archive.finish().unwrap();
    let import = ["import", tar.to_str().unwrap(), "-t", "fixed:1", "--platform", "linux/amd64"];
    assert_eq!(
        digest_of(&mut env.svp(import)),
        "sha256:f19c81480278ea72a8b45946051f908d04ded647ae07a74f454eda1a33aa0fdc"
    );
}

/// As above, for a build. Masks the base layer (this machine's busybox) and the architecture.
#[test]
fn the_documents_of_a_build_are_those_of_earlier_versions() {
    let env = TestEnv::new();
    let pack = clone(&env, "pack", "022", "2020-01-01");
    let out = env.path("out");
    let base =
        digest_of(&mut env.svp(["import", busybox_base().to_str().unwrap(), "-t", "busybox"]));
    let build = ["build", "-b", &pack, "-t", "x", "--base", "busybox", "--network", "none"];
    let layout = ["--oci-dir", out.to_str().unwrap()];
    let digest = digest_of(env.svp(build).args(layout));
    let text = |digest: &str| {
        std::fs::read_to_string(out.join("blobs").join(digest.replace(':', "/"))).unwrap()
    };
    let manifest = text(&digest);
    let value: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let config = text(value["config"]["digest"].as_str().unwrap());
    let parsed: serde_json::Value = serde_json::from_str(&config).unwrap();
    let masked = [
        (value["config"].to_string(), "CONFIG"),
        (value["layers"][0].to_string(), "BASE"),
        (parsed["rootfs"]["diff_ids"][0].to_string(), "DIFF_ID"),
        (base, "MANIFEST"),
        (format!("\"architecture\":{}", parsed["architecture"]), "ARCHITECTURE"),
    ];
    let both = format!("{manifest}\n{config}");
    let both = masked.iter().fold(both, |text, (from, to)| text.replace(from, to));
    let found = Digest::of(&both).hex();
    assert_eq!(found, "612edbeca6a5a1af314f61c26df06400b369b6fe1f5b51e94c2bdb5cc9015801", "{both}");
}

/// Runs `svp` with a fixed time and returns the digest that it prints.
#[track_caller]
fn digest_of(svp: &mut Command) -> String {
    success(svp.env("SOURCE_DATE_EPOCH", EPOCH)).trim().to_string()
}
