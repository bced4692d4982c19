//! `--compression` and `--compression-level`: skopeo, podman, umoci and svp read the output.

use std::fs;

use crate::support;
use crate::support::TestEnv;
use crate::support::podman::Podman;
use crate::support::real_registry::{RealRegistry, Setup};
use serde_json::{Value, json};
use svp::oci::Digest;
use svp::oci::media_type::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, LAYER, LAYER_GZIP, LAYER_ZSTD,
};

const FORMATS: [(&str, &str); 3] = [("gzip", LAYER_GZIP), ("zstd", LAYER_ZSTD), ("none", LAYER)];

/// Returns an environment with busybox as `team/base:1`, whose layer is gzip, and the digest of its manifest.
fn world() -> (TestEnv, String) {
    let env = TestEnv::new();
    let base = support::busybox_base();
    let digest = env.ok(["import", base.to_str().unwrap(), "-t", "team/base:1"]);
    (env, digest.trim().to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn inspect(env: &TestEnv, name: &str) -> Value {
    json(&env.ok(["inspect", name, "--format", "json"]))
}

/// Returns the media types of an image's layers, the lowest first.
fn media_types(env: &TestEnv, name: &str) -> Vec<Value> {
    let inspected = inspect(env, name);
    inspected["layers"].as_array().unwrap().iter().map(|l| l["mediaType"].clone()).collect()
}

#[test]
fn every_format_survives_a_registry_round_trip() {
    let (env, digest) = world();
    let registry = RealRegistry::start(&Setup::default());
    let was = inspect(&env, "team/base:1");
    for (format, media_type) in FORMATS {
        let name = format!("docker://{}/team/base:{format}", registry.address);
        let pushed = env.ok(["push", "team/base:1", &name, "--compression", format]);
        assert_eq!(
            pushed.trim() == digest,
            format == "gzip",
            "a layer in the requested format is kept"
        );
        let manifest = env.skopeo_ok(&["inspect", "--raw", "--tls-verify=false", &name]);
        assert_eq!(Digest::of(&manifest).to_string(), pushed.trim());
        assert_eq!(json(&manifest)["layers"][0]["mediaType"], media_type, "{manifest}");
        let copy = format!("oci:{}:x:1", env.path(format).display());
        env.skopeo_ok(&["copy", "--src-tls-verify=false", &name, &copy]);
        support::conformance(&env.path(format));

        let other = TestEnv::new();
        assert_eq!(other.ok(["pull", &name, "--tag", "x"]), pushed);
        assert_eq!(inspect(&other, "x")["configDigest"], was["configDigest"]);
        other.ok(["check", "--store"]);
        other.ok(["unpack", "x", other.path("root").to_str().unwrap()]);
        assert!(other.path("root/bin/busybox").exists());
        other.assert_nothing_left();
    }
    env.ok(["check", "--store"]);
    env.assert_nothing_left();
}

#[test]
fn podman_runs_and_umoci_unpacks_what_svp_compresses() {
    let (env, _) = world();
    let podman = Podman::new(&env);
    for (format, _) in FORMATS {
        let archive = env.path(&format!("{format}.tar"));
        let output = format!("oci-archive:{}", archive.display());
        env.ok(["tag", "team/base:1", &format!("team/{format}:1")]);
        env.ok(["save", &format!("team/{format}:1"), "-o", &output, "--compression", format]);
        let name = podman.load(&archive);
        assert_eq!(podman.run(&[&name, "/bin/busybox", "echo", format]), format!("{format}\n"));
        // Debian's umoci (0.4.7) predates zstd layers.
        if format != "zstd" {
            let (layout, bundle) = (env.path(&format!("l-{format}")), env.path(format));
            let to = format!("oci:{}:x:1", layout.display());
            env.ok(["copy", "team/base:1", &to, "--compression", format]);
            let mut umoci = env.command("umoci");
            umoci.args(["raw", "unpack", "--rootless", "--image"]);
            umoci.arg(format!("{}:x:1", layout.display())).arg(&bundle);
            support::success(&mut umoci);
            assert!(bundle.join("bin/busybox").exists());
        }
    }
}

#[test]
fn a_build_compresses_only_its_own_layers() {
    let env = TestEnv::new();
    env.import_busybox();
    let base = inspect(&env, "busybox")["layers"][0].clone();
    env.write_pack(
        "p",
        &[
            (
                "bin/query",
                "#!/bin/sh\ncase $1 in os) echo busybox/1.36 ;; secrets) echo PW ;; esac\n",
            ),
            ("bin/build", "#!/bin/sh\necho built >/built-$1\n"),
            ("bin/run", "#!/bin/sh\nexec sleep 1000\n"),
        ],
    );
    let build = ["build", "-b", "p", "--base", "busybox", "-t"];
    let with = |more: &[&'static str]| [&build[..], more].concat();
    for (format, media_type) in FORMATS {
        let mut name = vec!["p", "--compression", format];
        if format == "zstd" {
            name.extend(["--compression-level", "7"]);
        }
        env.ok(with(&name));
        let built = inspect(&env, "p");
        assert_eq!(built["layers"][0], base);
        assert_eq!(media_types(&env, "p"), [LAYER_GZIP, media_type, media_type]);
    }
    env.ok(["setup", "-i", "p", "-t", "one", "--compression", "zstd"]);
    assert_eq!(media_types(&env, "one"), [LAYER_GZIP, LAYER, LAYER, LAYER_ZSTD]);
    env.ok(["check", "--store"]);

    // All layers in one format: those in another are recompressed, also out of the store.
    env.ok(["copy", "p", "all:zstd", "--compression", "zstd"]);
    assert_eq!(media_types(&env, "all:zstd"), [LAYER_ZSTD; 3]);
    let diff_ids = |name: &str| inspect(&env, name)["config"]["rootfs"]["diff_ids"].clone();
    assert_eq!(diff_ids("all:zstd"), diff_ids("p"));
    let printed = env.fails(2, ["copy", "one", "oci:out", "--compression", "zstd"]);
    assert!(printed.contains("--allow-secrets"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn digests_are_independent_of_cores_and_transports() {
    let env = TestEnv::new();
    env.import_debian();
    for (format, level) in [("gzip", "1"), ("zstd", "1"), ("none", "")] {
        let mut options = vec!["--compression", format];
        if !level.is_empty() {
            options.extend(["--compression-level", level]);
        }
        let copied = env.ok([&["copy", "debian:bookworm", "x:1"], &options[..]].concat());
        let mut one = env.command("taskset");
        one.args(["-c", "0", env!("CARGO_BIN_EXE_svp"), "copy", "x:1", "oci:out:x:1"]);
        // A level recompresses all layers: here svp's own output, on one core.
        assert_eq!(support::success(one.args(&options)), copied, "{format}");
    }
    env.assert_nothing_left();
}

#[test]
fn unsupported_compression_is_refused_before_any_work() {
    let (env, _) = world();
    let refused: [(&[&str], &str); 9] = [
        (
            &["save", "team/base:1", "-o", "docker-archive:x.tar", "--compression", "zstd"],
            "plain tars",
        ),
        (&["copy", "team/base:1", "docker-archive:x.tar", "--compression", "gzip"], "plain tars"),
        (&["copy", "none:1", "docker-archive:x.tar", "--compression", "gzip"], "plain tars"),
        (&["copy", "team/base:1", "x:1", "--compression-level", "3"], "--compression"),
        (&["copy", "team/base:1", "x:1", "--compression", "xz"], "xz"),
        (
            &["copy", "team/base:1", "x:1", "--compression", "none", "--compression-level", "1"],
            "requires a compression format",
        ),
        (
            &["copy", "team/base:1", "x:1", "--compression", "gzip", "--compression-level", "10"],
            "1 to 9",
        ),
        (
            &["copy", "team/base:1", "x:1", "--compression", "zstd", "--compression-level", "20"],
            "1 to 19",
        ),
        (
            &["build", "-b", "p", "-t", "p", "-o", "docker-archive:x.tar", "--compression", "zstd"],
            "plain tars",
        ),
    ];
    for (arguments, expected) in refused {
        let printed = env.fails(2, arguments);
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
        assert!(!env.path("x.tar").exists());
    }
    // Options that match the docker-archive format anyway are accepted.
    env.ok(["save", "team/base:1", "-o", "docker-archive:x.tar", "--compression", "none"]);
    let lines = env.ok(["images"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn docker_manifests_keep_their_type_and_refuse_zstd() {
    let (env, _) = world();
    let registry = RealRegistry::start(&Setup::default());
    let at = |tag: &str| format!("docker://{}/team/base:{tag}", registry.address);
    env.ok(["push", "team/base:1", &at("oci")]);
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    env.skopeo_ok(&["copy", tls[0], tls[1], "--format", "v2s2", &at("oci"), &at("docker")]);
    env.ok(["rmi", "team/base:1"]);
    env.ok(["pull", &at("docker"), "--tag", "docker:1"]);
    for (format, media_type) in [("none", DOCKER_LAYER), ("gzip", DOCKER_LAYER_GZIP)] {
        env.ok(["copy", "docker:1", &at(format), "--compression", format]);
        let manifest = env.skopeo_ok(&["inspect", "--raw", "--tls-verify=false", &at(format)]);
        let manifest = json(&manifest);
        assert_eq!(manifest["mediaType"], DOCKER_MANIFEST);
        assert_eq!(manifest["config"]["mediaType"], DOCKER_CONFIG);
        assert_eq!(manifest["layers"][0]["mediaType"], media_type);
    }
    let printed = env.fails(65, ["copy", "docker:1", &at("zstd"), "--compression", "zstd"]);
    assert!(printed.contains("schema 2") && printed.contains("gzip"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn a_damaged_layer_is_reported_and_leaves_nothing() {
    let (env, _) = world();
    let layer = inspect(&env, "team/base:1")["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blobs = env.store().join("blobs/sha256");
    let blob = blobs.join(layer.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let before = fs::read_dir(&blobs).unwrap().count();
    for format in ["zstd", "none"] {
        let printed = env.fails(65, ["copy", "team/base:1", "oci:out", "--compression", format]);
        assert!(printed.contains(&layer) && printed.contains("damaged"), "{printed}");
    }
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), before);
    assert!(!env.path("out").exists());
    env.assert_nothing_left();
}

#[test]
fn unknown_manifest_fields_are_kept() {
    let (env, _) = world();
    let layout = env.path("layout");
    let from = format!("oci:{}:x:1", layout.display());
    env.ok(["copy", "team/base:1", &from]);
    let read = |path: &str| json(&fs::read_to_string(layout.join(path)).unwrap());
    let mut index = read("index.json");
    let old = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let mut manifest = read(&format!("blobs/{old}"));
    manifest["annotations"] = json!({"a": "b"});
    manifest["futureField"] = json!({"x": [1]});
    let bytes = manifest.to_string();
    let digest = Digest::of(&bytes).to_string();
    fs::write(layout.join("blobs").join(digest.replace(':', "/")), &bytes).unwrap();
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(bytes.len());
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    env.ok(["copy", &from, "new:1", "--compression", "zstd"]);
    let new = json(&env.ok(["inspect", "new:1", "--manifest"]));
    assert_eq!(new["annotations"], manifest["annotations"]);
    assert_eq!(new["futureField"], manifest["futureField"]);
    assert_eq!(new["config"], manifest["config"]);
}
