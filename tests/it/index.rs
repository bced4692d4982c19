//! Multi-platform indexes: created, shown, pushed, read by skopeo and podman, split again.

use std::fs;

use crate::support;
use crate::support::podman::Podman;
use crate::support::real_registry::{RealRegistry, Setup};
use crate::support::{TestEnv, busybox_base, success};
use serde_json::{Value, json};
use svp::oci::Digest;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns busybox as `amd` and `arm`, for two platforms, and the digests of both.
fn world() -> (TestEnv, [String; 2]) {
    let env = TestEnv::new();
    let base = busybox_base();
    let import = |name: &str, platform: &str| {
        let arguments = ["import", base.to_str().unwrap(), "-t", name, "--platform", platform];
        env.ok(arguments).trim().to_owned()
    };
    let digests = [import("amd", "linux/amd64"), import("arm", "linux/arm64")];
    (env, digests)
}

fn raw_at(env: &TestEnv, image: &str) -> String {
    success(env.skopeo().args(["inspect", "--tls-verify=false", "--raw", image]))
}

#[test]
fn an_index_is_created_and_shown() {
    let (env, [amd, arm]) = world();
    let made = parse(&env.ok([
        "index",
        "-t",
        "multi:1",
        "amd",
        "arm",
        "--annotation",
        "a.b=c",
        "--format",
        "json",
    ]));
    let digest = made["digest"].as_str().unwrap();
    let raw = env.ok(["inspect", "multi:1", "--raw"]);
    assert_eq!(Digest::of(&raw).to_string(), digest);
    let index = parse(&raw);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["annotations"], json!({"a.b": "c"}));
    assert_eq!(made["manifests"], index["manifests"]);
    let printed: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["digest"].as_str().unwrap(), &image["platform"]))
        .collect();
    let platform = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    assert_eq!(printed, [(&*amd, &platform("amd64")), (&*arm, &platform("arm64"))]);

    let list = parse(&env.ok(["images", "--format", "json"]));
    let list: Vec<_> =
        list.as_array().unwrap().iter().filter(|i| i["repository"] == "multi").collect();
    assert_eq!((list.len(), &list[0]["digest"]), (1, &made["digest"]));
    assert_eq!(list[0]["platforms"], json!([platform("amd64"), platform("arm64")]));
    assert!(env.ok(["images"]).contains("linux/amd64,linux/arm64"));

    let of = |platform: &str, field: &str| {
        env.ok(["inspect", "multi:1", "--platform", platform, "--field", field])
    };
    for (platform, image) in [("linux/amd64", &amd), ("linux/arm64", &arm)] {
        assert_eq!(of(platform, "digest").trim(), image);
        assert_eq!(of(platform, "index.digest").trim(), digest);
        assert_eq!(of(platform, "config.architecture").trim(), &platform[6..]);
        let manifest = env.ok(["inspect", "multi:1", "--platform", platform, "--raw"]);
        assert_eq!(Digest::of(manifest).to_string(), *image);
        assert!(env.ok(["history", "multi:1", "--platform", platform]).contains("import"));
    }
    let field =
        ["inspect", "multi:1", "--manifest", "--field", "manifests.1.platform.architecture"];
    assert_eq!(env.ok(field), "arm64\n");
    assert!(env.ok(["inspect", "multi:1", "--platform", "linux/arm64"]).contains("MANIFEST"));
    let printed = env.fails(65, ["inspect", "multi:1", "--platform", "linux/s390x"]);
    assert!(printed.contains("linux/amd64, linux/arm64"), "{printed}");

    // A repeated image counts once, an index contributes its images, and two images for one platform are refused.
    let again = env.ok(["index", "-t", "again", "amd", "multi:1", "arm", "--annotation", "a.b=c"]);
    assert_eq!(again.trim(), digest);
    env.write_pack(
        "pack",
        &[
            ("bin/query", "#!/bin/sh\ncase $1 in os) echo busybox/1;; esac\n"),
            ("bin/build", "#!/bin/sh\n"),
        ],
    );
    env.ok([
        "build",
        "-b",
        "pack",
        "--base",
        "multi:1",
        "--platform",
        "linux/amd64",
        "-t",
        "built",
        "--network",
        "none",
    ]);
    assert_eq!(env.ok(["inspect", "built", "--field", "layers.0"]), of("linux/amd64", "layers.0"));
    let printed = env.fails(2, ["index", "-t", "x", "amd", "arm", "built"]);
    assert!(
        printed.contains("amd") && printed.contains("built") && printed.contains("linux/amd64"),
        "{printed}"
    );
    env.fails(65, ["inspect", "x"]);

    env.ok(["unpack", "multi:1", "arm-root", "--platform", "linux/arm64"]);
    assert!(env.path("arm-root/bin").is_dir());
    env.assert_nothing_left();
}

#[test]
fn an_index_keeps_its_images_until_it_is_removed() {
    let (env, _) = world();
    env.ok(["index", "-t", "multi", "amd", "arm"]);
    env.ok(["tag", "multi", "other"]);
    let blobs = || fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
    // The layer is shared: an index, two manifests, two configs, a layer.
    assert_eq!(blobs(), 6);
    env.ok(["rmi", "amd", "arm", "other"]);
    assert_eq!(blobs(), 6);
    assert_eq!(env.ok(["check", "--store"]), "");
    let df = parse(&env.ok(["df", "-v", "--format", "json"]));
    assert_eq!(
        (df["images"].as_array().unwrap().len(), &df["total"]["reclaimableBytes"]),
        (1, &json!(0))
    );
    env.ok(["index", "-t", "half", "multi"]);
    env.ok(["prune"]);
    env.ok(["inspect", "half", "--platform", "linux/arm64"]);
    env.ok(["rmi", "half", "multi"]);
    assert_eq!(blobs(), 0);
}

#[test]
fn skopeo_and_podman_read_pushed_and_saved_indexes() {
    let (env, [amd, arm]) = world();
    let registry = RealRegistry::start(&Setup::default());
    let digest = env.ok(["index", "-t", "multi", "amd", "arm"]).trim().to_owned();
    let raw = env.ok(["inspect", "multi", "--raw"]);
    let name = format!("{}/team/multi:1", registry.address);
    let remote = format!("docker://{name}");
    assert_eq!(env.ok(["push", "multi", &remote]).trim(), digest);
    assert_eq!(raw_at(&env, &remote), raw);

    let layout = env.path("all");
    let to = format!("oci:{}:m", layout.display());
    let copy = ["--insecure-policy", "copy", "--all", "--src-tls-verify=false"];
    success(env.skopeo().args(copy).args([&remote, &to]));
    assert_eq!(
        parse(&fs::read_to_string(layout.join("index.json")).unwrap())["manifests"][0]["digest"],
        digest
    );
    for blob in [&amd, &arm] {
        assert!(layout.join("blobs/sha256").join(&blob[7..]).is_file());
    }
    let podman = Podman::new(&env);
    success(&mut podman.command(["pull", "--tls-verify=false", "--arch", "arm64", &name]));
    let printed = success(&mut podman.command([
        "image",
        "inspect",
        "--format",
        "{{.Architecture}} {{.Digest}}",
        &name,
    ]));
    assert!(printed.starts_with("arm64 "), "{printed}");
    // `podman manifest inspect` has no --tls-verify.
    let conf = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.address);
    fs::write(env.path("registries.conf"), conf).unwrap();
    let mut inspect = podman.command(["manifest", "inspect", &name]);
    let printed = success(inspect.env("CONTAINERS_REGISTRIES_CONF", env.path("registries.conf")));
    assert_eq!(parse(&printed)["manifests"][1]["digest"], arm);

    // An index of remote images has the same digest again; of a remote index, a single image can be selected.
    let other = TestEnv::new();
    for source in [&remote, &to] {
        assert_eq!(other.ok(["index", "-t", "m", source]).trim(), digest);
    }
    assert_eq!(other.ok(["pull", &remote, "--platform", "linux/arm64", "-t", "one"]).trim(), arm);
    let single = format!("docker://{}/team/single:1", registry.address);
    assert_eq!(env.ok(["push", "multi", &single, "--platform", "linux/amd64"]).trim(), amd);
    assert_eq!(Digest::of(raw_at(&env, &single)).to_string(), amd);
    assert_eq!(env.ok(["copy", "multi", &single, "--platform", "linux/arm64"]).trim(), arm);

    let archive = env.path("multi.tar").display().to_string();
    env.ok(["save", "multi", "-o", &format!("oci-archive:{archive}")]);
    assert_eq!(raw_at(&env, &format!("oci-archive:{archive}")), raw);
    assert_eq!(
        other.ok(["index", "-t", "saved", &format!("oci-archive:{archive}")]).trim(),
        digest
    );
    env.ok(["copy", "multi", &format!("oci:{}:mine:1", layout.display())]);
    assert_eq!(raw_at(&env, &format!("oci:{}:mine:1", layout.display())), raw);
    let zstd = format!("oci:{}:zstd:1", layout.display());
    let done = env.ok(["copy", "multi", &zstd, "--compression", "zstd"]);
    let printed = raw_at(&env, &zstd);
    assert_eq!(Digest::of(&printed).to_string(), done.trim());
    assert_eq!(parse(&printed)["manifests"][1]["platform"]["architecture"], "arm64");
    success(env.skopeo().args(copy).args([&zstd, &format!("oci:{}:z", layout.display())]));

    let archive = env.path("one.tar").display().to_string();
    env.ok([
        "save",
        "multi",
        "--platform",
        "linux/arm64",
        "-o",
        &format!("docker-archive:{archive}"),
    ]);
    let printed = parse(&success(env.skopeo().args([
        "inspect",
        "--config",
        &format!("docker-archive:{archive}"),
    ])));
    assert_eq!(printed["architecture"], "arm64");
    env.assert_nothing_left();
}

#[test]
fn attestations_are_left_out() {
    let (env, _) = world();
    let digest = env.ok(["index", "-t", "multi", "amd", "arm"]).trim().to_owned();
    let layout = env.path("layout");
    env.ok(["copy", "multi", &format!("oci:{}:multi:1", layout.display())]);
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"digest": digest, "size": bytes.len()})
    };
    // As BuildKit writes them.
    let layer = put(b"{}");
    let mut layers = layer.clone();
    layers["mediaType"] = json!("application/vnd.in-toto+json");
    let mut config = layer;
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layers]});
    let mut attestation = put(manifest.to_string().as_bytes());
    attestation["mediaType"] = json!(media_type);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let mut index = parse(&env.ok(["inspect", "multi", "--raw"]));
    index["manifests"].as_array_mut().unwrap().push(attestation);
    let mut entry = put(index.to_string().as_bytes());
    entry["mediaType"] = index["mediaType"].clone();
    let list = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), list.to_string()).unwrap();

    let mut command = env.svp(["index", "-t", "clean", &format!("oci:{}", layout.display())]);
    let output = support::output(&mut command);
    let printed = support::transcript(&command, &output);
    assert!(
        output.status.success() && printed.contains("skipped 1 entry of the index"),
        "{printed}"
    );
    assert_eq!(env.ok(["inspect", "clean", "--raw"]), env.ok(["inspect", "multi", "--raw"]));
    assert!(printed.contains(&digest), "{printed}");
}

#[test]
fn an_instance_keeps_its_name() {
    let (env, _) = world();
    env.write_pack(
        "pack",
        &[
            ("bin/query", "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo KEY;; esac\n"),
            ("bin/build", "#!/bin/sh\n"),
        ],
    );
    let network = ["--network", "none"];
    env.ok(["build", "-b", "pack", "--base", "amd", "--platform", "linux/amd64", "-t", "b"]
        .into_iter()
        .chain(network));
    env.ok(["setup", "-b", "pack", "-i", "b", "-t", "one"].into_iter().chain(network));
    let digest = env.ok(["inspect", "one", "--field", "digest"]);
    let base = busybox_base();
    let import = ["import", base.to_str().unwrap(), "-t", "one"];
    for refused in [&["tag", "amd", "one"][..], &["index", "-t", "one", "amd"], &import] {
        assert!(env.fails(2, refused).contains("--force"), "{refused:?}");
        assert_eq!(env.ok(["inspect", "one", "--field", "digest"]), digest);
    }
    env.ok(["tag", "one", "one"]);
    // An index with an instance is as secret as the instance.
    env.ok(["index", "-t", "secret", "one", "arm"]);
    assert!(env.fails(2, ["save", "secret", "-o", "oci:x"]).contains("--allow-secrets"));
    env.ok(["save", "secret", "-o", "oci:x", "--allow-secrets"]);
    assert!(env.fails(2, ["tag", "arm", "secret"]).contains("--force"));
    env.ok(["tag", "amd", "one", "--force"]);
    env.ok(import.into_iter().chain(["--force"]));
}

#[test]
fn the_base_of_a_build_is_tagged_with_its_name() {
    let (env, [amd, _]) = world();
    let registry = RealRegistry::start(&Setup::default());
    let name = format!("{}/team/base:1", registry.address);
    let remote = format!("docker://{name}");
    let digest = env.ok(["index", "-t", "multi", "amd", "arm"]).trim().to_owned();
    env.ok(["push", "multi", &remote]);
    let by_digest = format!("{}@{digest}", remote.trim_end_matches(":1"));

    let other = TestEnv::new();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo KEY;; esac\n";
    other.write_pack("pack", &[("bin/query", query), ("bin/build", "#!/bin/sh\n")]);
    let arguments = |base: &str, more: &[&str]| -> Vec<String> {
        let always = ["build", "-b", "pack", "--platform", "linux/amd64", "--network", "none"];
        let more = [&["--base", base][..], more].concat();
        always.iter().chain(&more).map(|&argument| argument.to_owned()).collect()
    };
    for base in [&remote, &by_digest] {
        let printed = other.fails(65, arguments(base, &["-t", "x", "--pull=never"]));
        assert!(printed.contains("the pull policy forbids contacting a registry"), "{printed}");
    }
    other.ok(arguments(&remote, &["-t", "a"]));
    assert_eq!(other.ok(["inspect", &name, "--field", "digest"]).trim(), amd);
    other.ok(arguments(&by_digest, &["-t", "b"]));
    other.ok(["rmi", "a", "b"]);
    other.ok(["prune"]);
    drop(registry);
    for base in [&remote, &by_digest] {
        for policy in ["missing", "never", "newer"] {
            other.ok(arguments(base, &["-t", "c", "--pull", policy]));
        }
        other.fails(69, arguments(base, &["-t", "c", "--pull", "always"]));
    }
    other.ok(["rmi", &name]);
    other.fails(65, arguments(&remote, &["-t", "c", "--offline"]));
    assert_eq!(other.ok(["check", "--store"]), "");

    // Commands must not replace the name of an instance.
    let registry = RealRegistry::start(&Setup::default());
    let name = format!("{}/team/base:1", registry.address);
    let remote = format!("docker://{name}");
    env.ok(["push", "multi", &remote]);
    other.ok(["setup", "-b", "pack", "-i", "c", "-t", &name, "--network", "none"]);
    let instance = other.ok(["inspect", &name, "--field", "digest"]);
    other.ok(arguments(&remote, &["-t", "d"]));
    assert_eq!(other.ok(["inspect", &name, "--field", "digest"]), instance);
    other.assert_nothing_left();
}
