//! Other tools read svp's output.

use std::path::PathBuf;

use crate::e2e::common::{blob, build_layout, json, manifest};
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::{TestEnv, as_root, conformance, pack, success, tree};

/// A script that creates every kind of entry that a layer can hold and every tool reads.
const EVERYTHING: &str = "
    mkdir -p /data/deep/er /data/empty
    echo one >/data/one; ln /data/one /data/hard; ln -s one /data/soft; ln -s /nowhere /data/dangling
    mkfifo /data/fifo
    echo long >/data/$(printf 'n%.0s' $(seq 1 200))
    mkdir -p /data/$(printf 'd%.0s' $(seq 1 120))/$(printf 'e%.0s' $(seq 1 120))
    touch -d @1000000000 /data/old; chmod 4755 /data/one; chmod 1777 /data/empty
    : >/data/nothing; dd if=/dev/zero of=/data/zeros bs=64k count=10 2>/dev/null
    rm /bin/yes; rm -r /home; echo home >/home; rm -r /var/log; mkdir /var/log
    echo changed >>/etc/passwd";

fn hello_in_layout(env: &TestEnv) -> PathBuf {
    build_layout(env, EVERYTHING, "thing")
}

/// Runs `skopeo copy FROM TO`, to a destination without TLS.
#[track_caller]
fn skopeo_copy(env: &TestEnv, from: &str, to: &str) {
    let mut copy = env.skopeo();
    copy.args(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]);
    success(copy.args([from, to]));
}

#[test]
fn skopeo_copies_to_a_docker_archive_and_to_a_registry() {
    let env = TestEnv::new();
    let out = hello_in_layout(&env);
    let from = format!("oci:{}:thing:latest", out.display());
    let archive = env.path("docker.tar");
    skopeo_copy(&env, &from, &format!("docker-archive:{}:thing:latest", archive.display()));
    assert!(archive.metadata().unwrap().len() > 100_000);

    let registry = Registry::start();
    let remote = format!("docker://{}/thing:1", registry.host());
    skopeo_copy(&env, &from, &remote);
    let mut inspect = env.skopeo();
    let raw = success(inspect.args(["inspect", "--raw", "--tls-verify=false", &remote]));
    let index = json(&out.join("index.json"));
    assert_eq!(raw, std::fs::read_to_string(blob(&out, &index["manifests"][0])).unwrap());

    // And svp reads it back.
    let other = TestEnv::new();
    let pack = crate::e2e::common::pack_with(&other, "pack", "test -f /data/one");
    let mut arguments = crate::e2e::common::build(&pack, "again");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = &remote;
    other.ok(arguments);
}

#[test]
fn podman_loads_the_archive_and_the_directory_and_runs_it() {
    let env = TestEnv::new();
    env.import_busybox();
    let out = env.path("out");
    let archive = env.path("hello.tar");
    let pack = pack("hello");
    let pack = pack.to_str().unwrap();
    let target = format!("oci-archive:{}", archive.display());
    let build = ["build", "-b", pack, "-t", "hello", "--base", "busybox", "--network", "none"];
    env.ok(build.iter().chain(&["--oci-dir", out.to_str().unwrap(), "-o", &target]));

    let podman = Podman::new(&env);
    let from_archive = podman.load(&archive);
    assert!(from_archive.ends_with("/hello:latest"), "{from_archive}");
    let inside = "test -x /service/bin/run && test -x /service/bin/query && echo fine";
    let arguments = ["--network=none", "--entrypoint=/bin/sh", &from_archive, "-c", inside];
    assert_eq!(podman.run(&arguments), "fine\n");
    let from_dir = podman.load(&out);
    let arguments = ["--network=none", "--entrypoint=/bin/sh", &from_dir, "-c", inside];
    assert_eq!(podman.run(&arguments), "fine\n");
}

#[test]
fn umoci_unpacks_the_same_tree() {
    let env = TestEnv::new();
    let out = hello_in_layout(&env);
    let bundle = env.path("bundle");
    let mut umoci = env.command("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:thing:latest", out.display()));
    if !as_root() {
        umoci.arg("--rootless");
    }
    success(umoci.arg(&bundle));
    let ours = env.path("ours");
    env.ok(["unpack", &format!("oci:{}:thing:latest", out.display()), ours.to_str().unwrap()]);
    if !as_root() {
        // umoci lets every user of the host run this program as the caller.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bundle.join("rootfs/data/one"), mode).unwrap();
    }
    // Without root umoci records owners in an attribute of its own.
    let what = tree::What { owners: as_root(), times: false, xattrs: false };
    tree::assert_same(&bundle.join("rootfs"), &ours, what);
    assert!(ours.join("data/one").exists() && !ours.join("bin/yes").exists());
}

#[test]
fn ocidir_accepts_the_layout() {
    let env = TestEnv::new();
    let out = hello_in_layout(&env);
    assert!(conformance(&out).contains("sound"));
    assert_eq!(manifest(&out, "thing:latest")["layers"].as_array().unwrap().len(), 3);
}

#[test]
fn gnu_tar_lists_and_extracts_every_layer() {
    let env = TestEnv::new();
    let out = hello_in_layout(&env);
    for layer in manifest(&out, "thing:latest")["layers"].as_array().unwrap() {
        let mut tar = env.command("tar");
        let output = crate::support::output(tar.arg("--list").arg("--file").arg(blob(&out, layer)));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
