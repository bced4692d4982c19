//! What an interrupted pull keeps: each layer that was whole, so that the next pull takes only the rest.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::fault_registry::{FaultRegistry, Piece, Reply, Seen};
use crate::support::{TestEnv, output, transcript, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use svp::oci::Digest;
use svp::oci::media_type::MANIFEST;

/// An image of three plain layers, whose blobs are small.
struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<Vec<u8>> = ["one", "two", "three"]
            .map(|name| {
                std::fs::write(dir.path().join(name), name.repeat(1000)).unwrap();
                let mut tar = std::process::Command::new("tar");
                tar.args(["-cf", "-", name]).current_dir(dir.path());
                tar.output().unwrap().stdout
            })
            .into();
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let (os, architecture) = ("linux", svp::oci::Platform::host().architecture);
        let config = json!({
            "os": os, "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}
        });
        let config = config.to_string().into_bytes();
        let part = |media_type: &str, bytes: &[u8]| {
            let digest = Digest::of(bytes).to_string();
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
        };
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| part(tar, layer)).collect::<Vec<_>>()
        });
        Image { manifest: manifest.to_string().into_bytes(), config, layers }
    }

    fn digest(&self, number: usize) -> String {
        Digest::of(&self.layers[number]).to_string()
    }

    fn serve(&self, seen: &Seen) -> Reply {
        if seen.path().contains("/manifests/") {
            return Reply::status(200).header("Content-Type", MANIFEST).body(&self.manifest);
        }
        let blobs = self.layers.iter().chain([&self.config]);
        let mut named = blobs.filter(|blob| seen.path().ends_with(&Digest::of(blob).to_string()));
        named
            .next()
            .map_or_else(|| Reply::status(404).body(""), |blob| Reply::status(200).body(blob))
    }
}

/// The first half of the last layer, and then `end`.
fn half(image: &Image, end: Vec<Piece>) -> Reply {
    let bytes = &image.layers[2];
    let mut pieces = vec![Piece::Bytes(bytes[..bytes.len() / 2].to_vec())];
    pieces.extend(end);
    Reply::status(200).header("Content-Length", &bytes.len().to_string()).pieces(pieces)
}

struct World {
    env: TestEnv,
    server: FaultRegistry,
    image: &'static Image,
}

impl World {
    /// A registry that answers the first request for the last layer with `fault`.
    fn new(fault: impl Fn(&Image) -> Reply + Send + Sync + 'static) -> Self {
        let image: &'static Image = Box::leak(Box::new(Image::new()));
        let last = image.digest(2);
        let server = FaultRegistry::start(move |seen| {
            match seen.path().ends_with(&last) && seen.before == 0 {
                true => fault(image),
                false => image.serve(seen),
            }
        });
        World { env: TestEnv::new(), server, image }
    }

    fn source(&self) -> String {
        format!("docker://{}/team/a:1", self.server.address())
    }

    fn has(&self, number: usize) -> bool {
        let digest = self.image.digest(number);
        self.env.store().join("blobs").join(digest.replace(':', "/")).exists()
    }

    /// Starts a pull, and waits until the first two layers are in the store.
    fn begin(&self) -> Child {
        let mut pull = self.env.svp(["pull", &self.source()]);
        let child = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("two layers are whole", || self.has(0) && self.has(1));
        let asked = || !self.server.seen_at(&self.image.digest(2)).is_empty();
        wait_until("the last layer is on its way", asked);
        child
    }

    /// Checks that the next pull takes only the rest.
    fn check_rest(&self) {
        assert!(self.has(0) && self.has(1) && !self.has(2));
        assert_eq!(self.env.ok(["images", "--format", "json"]).trim(), "[]");
        assert_eq!(self.env.ok(["check", "--store"]), "");
        self.env.ok(["pull", &self.source()]);
        for (number, requests) in [1, 1, 2].into_iter().enumerate() {
            let seen = self.server.seen_at(&self.image.digest(number)).len();
            assert_eq!(seen, requests, "layer {number}");
        }
        assert_eq!(self.env.ok(["check", "--store"]), "");
        self.env.assert_nothing_left();
    }
}

fn hang(image: &Image) -> Reply {
    half(image, vec![Piece::Hang])
}

#[test]
fn a_killed_pull_keeps_whole_layers() {
    let world = World::new(hang);
    let mut child = world.begin();
    child.kill().unwrap();
    child.wait().unwrap();
    world.check_rest();
}

#[test]
fn an_interrupted_pull_keeps_whole_layers() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let world = World::new(hang);
        let mut child = world.begin();
        let since = Instant::now();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(since.elapsed() < Duration::from_secs(10));
        world.check_rest();
    }
}

#[test]
fn a_failed_pull_keeps_whole_layers() {
    // The registry has lost the last layer, or sends other bytes.
    let faults: [fn(&Image) -> Reply; 2] = [
        |_| Reply::status(404).body(""),
        |image| Reply::status(200).body(vec![b'x'; image.layers[2].len()]),
    ];
    for fault in faults {
        let world = World::new(fault);
        let mut pull = world.env.svp(["pull", &world.source()]);
        let result = output(&mut pull);
        assert_eq!(result.status.code(), Some(69), "{}", transcript(&pull, &result));
        // The first failure stops the other layers, which may not be whole yet.
        let kept = world.has(0) && world.has(1);
        assert!(!world.has(2));
        if kept {
            world.check_rest();
        }
    }
}

#[test]
fn prune_takes_what_an_interrupted_pull_kept() {
    let world = World::new(hang);
    let mut child = world.begin();
    // A pull in progress keeps its layers.
    world.env.fails(69 + 5, ["prune", "--wait", "0"]);
    assert!(world.has(0) && world.has(1));
    child.kill().unwrap();
    child.wait().unwrap();
    world.env.ok(["prune"]);
    assert!(!world.has(0) && !world.has(1));
    world.env.ok(["pull", &world.source()]);
    assert!(world.has(0) && world.has(1) && world.has(2));
    assert_eq!(world.env.ok(["check", "--store"]), "");
}

#[test]
fn a_server_that_takes_long_to_answer_is_named_once() {
    let image: &'static Image = Box::leak(Box::new(Image::new()));
    let server = FaultRegistry::start(move |seen| {
        std::thread::sleep(Duration::from_millis(1400));
        image.serve(seen)
    });
    let env = TestEnv::new();
    let pull = output(&mut env.svp(["pull", &format!("docker://{}/team/a:1", server.address())]));
    let text = String::from_utf8_lossy(&pull.stderr);
    assert!(pull.status.success(), "{text}");
    let says = format!("svp: waiting for an answer of {}\n", server.address());
    assert_eq!(text.matches(&says).count(), 1, "{text}");
    // One that answers at once is not.
    let server = FaultRegistry::start(move |seen| image.serve(seen));
    let pull = output(&mut env.svp(["pull", &format!("docker://{}/team/a:1", server.address())]));
    assert!(!String::from_utf8_lossy(&pull.stderr).contains("waiting"));
    env.assert_nothing_left();
}
