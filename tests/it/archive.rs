//! Archives of layouts that svp writes, read by other tools.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support;
use crate::support::podman::Podman;
use svp::error::Kind;
use svp::import::{ImportOptions, Input, import};
use svp::oci::{Descriptor, Platform, Reference};
use svp::progress::Silent;
use svp::source::{PullOptions, pull};
use svp::store::{ArchiveFormat, Store};

fn reference() -> Reference {
    "team/base:1".parse().unwrap()
}

/// A store with one image, and a path for the archive.
fn world() -> (support::TestEnv, Store, Descriptor, PathBuf) {
    let env = support::TestEnv::new();
    let store = Store::open(&env.path("images")).unwrap();
    let options = ImportOptions { platform: Platform::host(), created: 0, threads: 2 };
    let input = Input::open(&support::busybox_base()).unwrap();
    let descriptor = import(input, &store, &reference(), &options, &Silent).unwrap();
    let archive = env.path("image.tar");
    (env, store, descriptor, archive)
}

#[test]
fn archives_are_reproducible_and_read_by_svp_and_skopeo() {
    let (env, store, descriptor, archive) = world();
    store.save_as(ArchiveFormat::Oci, &descriptor, &archive, &reference()).unwrap();
    let mut again = Vec::new();
    store.write_archive(&descriptor, &mut again, &reference()).unwrap();
    assert_eq!(fs::read(&archive).unwrap(), again);

    let shown = archive.display();
    for suffix in ["", ":team/base:1"] {
        let digest = support::run(
            "skopeo",
            ["inspect", "--format", "{{.Digest}}", &format!("oci-archive:{shown}{suffix}")],
        );
        assert_eq!(digest.trim(), descriptor.digest.to_string());
    }
    let fresh = Store::open(&env.path("fresh")).unwrap();
    let source = format!("oci-archive:{shown}:team/base:1").parse().unwrap();
    let pulled = pull(&source, &fresh, &PullOptions::default(), &Silent).unwrap();
    assert_eq!(pulled.digest, descriptor.digest);
}

#[test]
fn podman_loads_and_runs_an_archive() {
    let (env, store, descriptor, archive) = world();
    store.save_as(ArchiveFormat::Oci, &descriptor, &archive, &reference()).unwrap();
    let podman = Podman::new(&env);
    let name = podman.load(&archive);
    assert!(name.ends_with("team/base:1"), "{name}");
    let stdout = podman.run(&["--rm", "--net=none", &name, "/bin/busybox", "echo", "hello"]);
    assert_eq!(stdout.trim(), "hello");
}

#[test]
fn podman_loads_a_directory_with_one_tag() {
    let (env, store, descriptor, _) = world();
    // podman 4.3 names the image after the directory, and an image's name is lower case.
    let number = std::process::id().to_string();
    let out = tempfile::Builder::new().prefix("svp-load-").suffix(&number).rand_bytes(0).tempdir();
    let out = out.unwrap();
    store.save_to_layout(&descriptor, out.path(), &reference()).unwrap();
    let podman = Podman::new(&env);
    let name = podman.load(out.path());
    let stdout = podman.run(&["--rm", "--net=none", &name, "/bin/busybox", "echo", "hello"]);
    assert_eq!(stdout.trim(), "hello");
}

#[test]
fn pipes_are_written_directly_and_files_replaced_atomically() {
    let (_place, store, descriptor, archive) = world();
    fs::write(&archive, "old").unwrap();
    let manifest = store.load_manifest(&descriptor).unwrap();
    let blob = store.blob_path(&manifest.layers[0].digest);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&blob, bad).unwrap();
    let error = store.save_as(ArchiveFormat::Oci, &descriptor, &archive, &reference()).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput, "{error}");
    assert_eq!(fs::read(&archive).unwrap(), b"old");
    let dir = archive.parent().unwrap();
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".svp")));

    fs::write(&blob, good).unwrap();
    let fifo = dir.join("fifo");
    support::run("mkfifo", [&fifo]);
    let reader = Command::new("tar").arg("-tf").arg(&fifo).stdout(Stdio::piped()).spawn().unwrap();
    store.save_as(ArchiveFormat::Oci, &descriptor, &fifo, &reference()).unwrap();
    let listed = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
    assert!(listed.starts_with("blobs/\nblobs/sha256/\n"), "{listed}");
    assert!(listed.ends_with("index.json\noci-layout\n"), "{listed}");
}
