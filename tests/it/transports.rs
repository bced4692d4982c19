//! svp compared with skopeo: an image copied by either from every transport to every transport has the same digest, and
//! each reads the other's output.

use std::fs;

use crate::support::registry::Registry;
use crate::support::{TestEnv, success};
use serde_json::Value;
use svp::oci::Digest;

/// The transports that both support. svp also has its store.
const TRANSPORTS: [&str; 4] = ["docker", "oci", "oci-archive", "docker-archive"];

/// An image of three layers in a registry and in every other transport, written by skopeo.
struct World {
    env: TestEnv,
    registry: Registry,
}

/// The properties of an image that a transport may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// The manifest's digest.
    manifest: String,
    /// The config's digest.
    config: String,
    /// The layers' diff IDs in the config.
    diff_ids: Value,
}

impl World {
    /// Returns a registry that has `team/image:1`, copied there by skopeo with `options`, and empty other transports.
    fn new(options: &[&str]) -> Self {
        let (env, registry) = (TestEnv::new(), Registry::start());
        env.import_busybox();
        let query = "#!/bin/sh\n[ \"$1\" != os ] || echo busybox/1\n";
        let build = "#!/bin/sh\nseq 1 20000 >/numbers\n";
        env.write_pack("pack", &[("bin/query", query), ("bin/build", build)]);
        let command = ["build", "-b", "pack", "-t", "made:1", "--base", "busybox", "--network"];
        env.ok(command.iter().chain(&["none", "--oci-dir", "made"]));
        let world = World { env, registry };
        world.skopeo_copy("oci:made:made:1", &world.at("docker", "image"), options);
        world.env.ok(["rmi", "made:1"]);
        fs::write(world.env.path("data"), "some data\n".repeat(1000)).expect("a file");
        success(world.env.command("tar").args(["-cf", "data.tar", "data"]));
        world
    }

    /// Returns the image called `name` at a transport.
    fn at(&self, transport: &str, name: &str) -> String {
        match transport {
            "docker" => format!("docker://{}/team/{name}:1", self.registry.host()),
            "store" => format!("{name}:1"),
            // svp and skopeo take the same names here.
            _ => format!("{transport}:{name}.{transport}:docker.io/team/{name}:1"),
        }
    }

    fn skopeo_copy(&self, from: &str, to: &str, options: &[&str]) {
        let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        let arguments = [&["copy", "--quiet"], &plain[..], options, &[from, to]].concat();
        self.env.skopeo_ok(&arguments);
    }

    /// Returns the digest of the manifest or index that skopeo reads at `image`.
    fn digest(&self, image: &str) -> String {
        let tls = if image.starts_with("docker:") { &["--tls-verify=false"][..] } else { &[] };
        let raw = self.env.skopeo_ok(&[&["inspect", "--raw"], tls, &[image]].concat());
        Digest::of(raw).to_string()
    }

    /// Returns the image that skopeo reads at `image`, with every blob verified.
    fn read(&self, image: &str) -> Found {
        let raw = |more: &[&str]| {
            let tls = if image.starts_with("docker:") { &["--tls-verify=false"][..] } else { &[] };
            let stdout = self.env.skopeo_ok(&[&["inspect", "--raw"], tls, more, &[image]].concat());
            // skopeo appends a line feed to the config.
            if more.is_empty() { stdout } else { stdout.trim_end_matches('\n').to_owned() }
        };
        let (manifest, config) = (raw(&[]), raw(&["--config"]));
        let to = self.env.path("read");
        let _ = fs::remove_dir_all(&to);
        self.skopeo_copy(image, &format!("dir:{}", to.display()), &[]);
        let parsed: Value = serde_json::from_str(&config).expect("JSON");
        Found {
            manifest: Digest::of(&manifest).to_string(),
            config: Digest::of(&config).to_string(),
            diff_ids: parsed["rootfs"]["diff_ids"].clone(),
        }
    }

    /// Returns a field of the image in svp's store.
    fn stored(&self, name: &str, field: &str) -> String {
        self.env.ok(["inspect", name, "--field", field]).trim_end().to_owned()
    }

    /// Returns the image in svp's store.
    fn image_in_store(&self, name: &str) -> Found {
        let config = self.env.ok(["inspect", name, "--config"]);
        let config: Value = serde_json::from_str(&config).expect("JSON");
        Found {
            manifest: self.stored(name, "digest"),
            config: self.stored(name, "configDigest"),
            diff_ids: config["rootfs"]["diff_ids"].clone(),
        }
    }

    /// Copies the image from every transport to every transport. Where `keeps` holds, both svp and skopeo must keep the
    /// digest. Only svp writes to a transport to which skopeo can't, as `can` returns.
    fn copy_everywhere(&self, keeps: impl Fn(&str, &str) -> bool, can: impl Fn(&str) -> bool) {
        let image = self.at("docker", "image");
        for transport in &TRANSPORTS[1..] {
            match can(transport) {
                true => self.skopeo_copy(&image, &self.at(transport, "image"), &[]),
                false => drop(self.env.ok(["copy", &image, &self.at(transport, "image")])),
            }
        }
        for from in TRANSPORTS {
            let source = self.at(from, "image");
            let truth = self.read(&source);
            self.env.ok(["pull", &source, "-t", "image:1"]);
            let stored = self.image_in_store("image:1");
            assert_same(&truth, &stored, from != "docker-archive", &format!("{from} to the store"));
            for to in TRANSPORTS {
                let case = format!("{from} to {to}");
                let (ours, theirs) = (self.at(to, "ours"), self.at(to, "theirs"));
                self.env.ok(["copy", &source, &ours]);
                let found = self.read(&ours);
                // svp always reads an archive as the same image; skopeo creates another one each time.
                let kept = keeps(from, to) || (from == "docker-archive" && to != from);
                assert_same(&stored, &found, kept, &case);
                if can(to) {
                    self.skopeo_copy(&source, &theirs, &[]);
                    let beside = self.read(&theirs);
                    assert_eq!(found.diff_ids, beside.diff_ids, "{case}");
                    assert!(
                        !keeps(from, to) || found == beside,
                        "{case}: {found:?}, skopeo: {beside:?}"
                    );
                }
                // The same through the store, by svp's own commands.
                let again = self.at(to, "again");
                match to {
                    "docker" => self.env.ok(["push", "image:1", &again]),
                    _ => {
                        let (file, _) = again.rsplit_once(":docker.io").unwrap();
                        self.env.ok(["tag", "image:1", "team/again:1"]);
                        self.env.ok(["save", "team/again:1", "-o", file])
                    }
                };
                let name = if to == "docker" || to == "docker-archive" {
                    again
                } else {
                    again.replace("docker.io/", "")
                };
                assert_eq!(self.read(&name), found, "{case} through the store");
                self.clear();
            }
            self.env.ok(["rmi", "image:1"]);
        }
        self.env.assert_nothing_left();
    }

    /// Removes the files that were written.
    fn clear(&self) {
        for name in ["ours", "theirs", "again"] {
            for transport in TRANSPORTS {
                let path = self.env.path(&format!("{name}.{transport}"));
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
}

/// Checks that two images are the same; compares the `digest` too where the transports keep the manifest.
#[track_caller]
fn assert_same(before: &Found, after: &Found, digest: bool, case: &str) {
    if digest {
        assert_eq!(before, after, "{case}");
    } else {
        let parts = |found: &Found| (found.config.clone(), found.diff_ids.clone());
        assert_eq!(parts(before), parts(after), "{case}");
    }
}

/// Docker archives have no manifest: each reader creates one in its own way.
fn keeps_digests(from: &str, to: &str) -> bool {
    from != "docker-archive" && to != "docker-archive"
}

#[test]
fn oci_images_with_gzip() {
    World::new(&[]).copy_everywhere(keeps_digests, |_| true);
}

#[test]
fn oci_images_with_zstd() {
    let options =
        ["--dest-compress-format", "zstd", "--dest-compress-level", "3", "--format", "oci"];
    let world = World::new(&options);
    let manifest = world.env.skopeo_ok(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &world.at("docker", "image"),
    ]);
    assert!(manifest.contains("tar+zstd"), "{manifest}");
    world.copy_everywhere(keeps_digests, |transport| transport != "docker-archive");
}

#[test]
fn docker_images() {
    let world = World::new(&["--format", "v2s2"]);
    // In a layout the manifest is OCI's, as with skopeo; skopeo also rewrites the config, svp doesn't.
    let keeps = |from: &str, to: &str| {
        keeps_digests(from, to) && !(from == "docker" && to.starts_with("oci"))
    };
    world.copy_everywhere(keeps, |_| true);
    let (from, to) = (world.at("docker", "image"), world.at("oci", "zstd"));
    world.env.ok(["copy", "--compression", "zstd", &from, &to]);
    assert_eq!(world.read(&to).diff_ids, world.read(&from).diff_ids);
}

/// An index of two platforms, pushed by skopeo: one image with either manifest type.
#[test]
fn indexes_of_two_platforms() {
    for format in ["oci", "v2s2"] {
        let world = World::new(&["--format", format]);
        let image = world.at("docker", "image");
        world.env.ok(["pull", &image, "-t", "amd:1"]);
        world.env.ok(["import", "data.tar", "-t", "arm:1", "--platform", "linux/arm64"]);
        world.env.ok(["index", "-t", "multi:1", "amd:1", "arm:1"]);
        for to in ["docker", "oci", "oci-archive"] {
            let (ours, theirs) = (world.at(to, "ours"), world.at(to, "theirs"));
            world.env.ok(["copy", "multi:1", &ours]);
            // skopeo copies the whole index with the same digest, to every transport.
            world.skopeo_copy(&ours, &theirs, &["--all"]);
            let digest = world.digest(&ours);
            assert_eq!(world.digest(&theirs), digest, "{format} to {to}");
            let same = format == "oci" || to == "docker";
            assert_eq!(world.stored("multi:1", "index.digest") == digest, same, "{format} to {to}");
            // Both select the same image of the index.
            for architecture in ["amd64", "arm64"] {
                let chosen = world.at("oci", architecture);
                world.skopeo_copy(&theirs, &chosen, &["--override-arch", architecture]);
                let platform = format!("linux/{architecture}");
                world.env.ok(["pull", &theirs, "--platform", &platform, "-t", "chosen:1"]);
                let kept = format == "oci" || to != "docker" || architecture == "arm64";
                let same = world.stored("chosen:1", "digest") == world.digest(&chosen);
                assert_eq!(same, kept, "{format} to {to}: {architecture}");
                world.env.ok(["rmi", "chosen:1"]);
                let _ = fs::remove_dir_all(world.env.path(&format!("{architecture}.oci")));
            }
            world.clear();
        }
    }
}
