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

/// Returns a place with busybox as `team/base:1`, whose layer is gzip, and the digest of its manifest.
fn world() -> (TestEnv, String) {
    let place = TestEnv::new();
    let base = support::busybox_base();
    let digest = place.ok(["import", base.to_str().unwrap(), "-t", "team/base:1"]);
    (place, digest.trim().to_owned())
}

fn skopeo(place: &TestEnv, arguments: &[&str]) -> String {
    let mut skopeo = place.command("skopeo");
    support::success(skopeo.arg("--insecure-policy").args(arguments))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn inspect(place: &TestEnv, name: &str) -> Value {
    json(&place.ok(["inspect", name, "--format", "json"]))
}

/// Returns the media types of an image's layers, the lowest first.
fn media_types(place: &TestEnv, name: &str) -> Vec<Value> {
    let inspected = inspect(place, name);
    inspected["layers"].as_array().unwrap().iter().map(|l| l["mediaType"].clone()).collect()
}

#[test]
fn every_format_goes_through_a_registry_and_comes_back_the_same() {
    let (place, digest) = world();
    let registry = RealRegistry::start(&Setup::default());
    let was = inspect(&place, "team/base:1");
    for (format, media_type) in FORMATS {
        let name = format!("docker://{}/team/base:{format}", registry.address);
        let pushed = place.ok(["push", "team/base:1", &name, "--compression", format]);
        assert_eq!(pushed.trim() == digest, format == "gzip", "what is so already is kept");
        let manifest = skopeo(&place, &["inspect", "--raw", "--tls-verify=false", &name]);
        assert_eq!(Digest::of(&manifest).to_string(), pushed.trim());
        assert_eq!(json(&manifest)["layers"][0]["mediaType"], media_type, "{manifest}");
        let copy = format!("oci:{}:x:1", place.path(format).display());
        skopeo(&place, &["copy", "--src-tls-verify=false", &name, &copy]);
        support::conformance(&place.path(format));

        let other = TestEnv::new();
        assert_eq!(other.ok(["pull", &name, "--tag", "x"]), pushed);
        assert_eq!(inspect(&other, "x")["configDigest"], was["configDigest"]);
        other.ok(["check", "--store"]);
        other.ok(["unpack", "x", other.path("root").to_str().unwrap()]);
        assert!(other.path("root/bin/busybox").exists());
        other.assert_nothing_left();
    }
    place.ok(["check", "--store"]);
    place.assert_nothing_left();
}

#[test]
fn podman_runs_and_umoci_unpacks_what_svp_compresses() {
    let (place, _) = world();
    let podman = Podman::new(&place);
    for (format, _) in FORMATS {
        let archive = place.path(&format!("{format}.tar"));
        let output = format!("oci-archive:{}", archive.display());
        place.ok(["tag", "team/base:1", &format!("team/{format}:1")]);
        place.ok(["save", &format!("team/{format}:1"), "-o", &output, "--compression", format]);
        let name = podman.load(&archive);
        assert_eq!(podman.run(&[&name, "/bin/busybox", "echo", format]), format!("{format}\n"));
        // Debian's umoci (0.4.7) predates zstd layers.
        if format != "zstd" {
            let (layout, bundle) = (place.path(&format!("l-{format}")), place.path(format));
            let to = format!("oci:{}:x:1", layout.display());
            place.ok(["copy", "team/base:1", &to, "--compression", format]);
            let mut umoci = place.command("umoci");
            umoci.args(["raw", "unpack", "--rootless", "--image"]);
            umoci.arg(format!("{}:x:1", layout.display())).arg(&bundle);
            support::success(&mut umoci);
            assert!(bundle.join("bin/busybox").exists());
        }
    }
}

#[test]
fn a_build_writes_its_layers_so_and_leaves_the_bases() {
    let place = TestEnv::new();
    place.import_busybox();
    let base = inspect(&place, "busybox")["layers"][0].clone();
    place.write_pack(
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
        place.ok(with(&name));
        let built = inspect(&place, "p");
        assert_eq!(built["layers"][0], base);
        assert_eq!(media_types(&place, "p"), [LAYER_GZIP, media_type, media_type]);
    }
    place.ok(["setup", "-i", "p", "-t", "one", "--compression", "zstd"]);
    assert_eq!(media_types(&place, "one"), [LAYER_GZIP, LAYER, LAYER, LAYER_ZSTD]);
    place.ok(["check", "--store"]);

    // All layers in one format: those in another are recompressed, also out of the store.
    place.ok(["copy", "p", "all:zstd", "--compression", "zstd"]);
    assert_eq!(media_types(&place, "all:zstd"), [LAYER_ZSTD; 3]);
    let diff_ids = |name: &str| inspect(&place, name)["config"]["rootfs"]["diff_ids"].clone();
    assert_eq!(diff_ids("all:zstd"), diff_ids("p"));
    let printed = place.fails(2, ["copy", "one", "oci:out", "--compression", "zstd"]);
    assert!(printed.contains("--allow-secrets"), "{printed}");
    place.assert_nothing_left();
}

#[test]
fn the_digest_depends_on_neither_cores_nor_the_way_there() {
    let place = TestEnv::new();
    place.import_debian();
    for (format, level) in [("gzip", "1"), ("zstd", "1"), ("none", "")] {
        let mut options = vec!["--compression", format];
        if !level.is_empty() {
            options.extend(["--compression-level", level]);
        }
        let copied = place.ok([&["copy", "debian:bookworm", "x:1"], &options[..]].concat());
        let mut one = place.command("taskset");
        one.args(["-c", "0", env!("CARGO_BIN_EXE_svp"), "copy", "x:1", "oci:out:x:1"]);
        // A level recompresses all layers: here svp's own output, on one core.
        assert_eq!(support::success(one.args(&options)), copied, "{format}");
    }
    place.assert_nothing_left();
}

#[test]
fn what_can_not_be_had_is_refused_before_any_work() {
    let (place, _) = world();
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
            "without",
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
        let printed = place.fails(2, arguments);
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
        assert!(!place.path("x.tar").exists());
    }
    // Options that match the docker-archive format anyway are accepted.
    place.ok(["save", "team/base:1", "-o", "docker-archive:x.tar", "--compression", "none"]);
    let lines = place.ok(["images"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn dockers_manifests_keep_their_kind_and_have_no_zstd() {
    let (place, _) = world();
    let registry = RealRegistry::start(&Setup::default());
    let at = |tag: &str| format!("docker://{}/team/base:{tag}", registry.address);
    place.ok(["push", "team/base:1", &at("oci")]);
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&place, &["copy", tls[0], tls[1], "--format", "v2s2", &at("oci"), &at("docker")]);
    place.ok(["rmi", "team/base:1"]);
    place.ok(["pull", &at("docker"), "--tag", "docker:1"]);
    for (format, media_type) in [("none", DOCKER_LAYER), ("gzip", DOCKER_LAYER_GZIP)] {
        place.ok(["copy", "docker:1", &at(format), "--compression", format]);
        let manifest = skopeo(&place, &["inspect", "--raw", "--tls-verify=false", &at(format)]);
        let manifest = json(&manifest);
        assert_eq!(manifest["mediaType"], DOCKER_MANIFEST);
        assert_eq!(manifest["config"]["mediaType"], DOCKER_CONFIG);
        assert_eq!(manifest["layers"][0]["mediaType"], media_type);
    }
    let printed = place.fails(65, ["copy", "docker:1", &at("zstd"), "--compression", "zstd"]);
    assert!(printed.contains("schema 2") && printed.contains("gzip"), "{printed}");
    place.assert_nothing_left();
}

#[test]
fn a_damaged_layer_is_told_and_leaves_nothing() {
    let (place, _) = world();
    let layer = inspect(&place, "team/base:1")["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blobs = place.store().join("blobs/sha256");
    let blob = blobs.join(layer.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let before = fs::read_dir(&blobs).unwrap().count();
    for format in ["zstd", "none"] {
        let printed = place.fails(65, ["copy", "team/base:1", "oci:out", "--compression", format]);
        assert!(printed.contains(&layer) && printed.contains("damaged"), "{printed}");
    }
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), before);
    assert!(!place.path("out").exists());
    place.assert_nothing_left();
}

#[test]
fn what_svp_does_not_know_of_a_manifest_stays() {
    let (place, _) = world();
    let layout = place.path("layout");
    let from = format!("oci:{}:x:1", layout.display());
    place.ok(["copy", "team/base:1", &from]);
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
    place.ok(["copy", &from, "new:1", "--compression", "zstd"]);
    let new = json(&place.ok(["inspect", "new:1", "--manifest"]));
    assert_eq!(new["annotations"], manifest["annotations"]);
    assert_eq!(new["futureField"], manifest["futureField"]);
    assert_eq!(new["config"], manifest["config"]);
}
