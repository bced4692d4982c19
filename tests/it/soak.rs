//! Many svp processes on one store at once, repeatedly: eight pulls, eight builds, a prune and a removal in each round.
//! Each must succeed, no tag may be lost, and the store must be sound after each round, with nothing left behind.
//!
//! `make test` runs two rounds; `make soak` a hundred, or `SVP_SOAK_ROUNDS`.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::registry::Registry;
use crate::support::{TestEnv, success, transcript};

/// Number of pulls, and of builds, in a round.
const EACH: usize = 8;

/// The expected contents of an environment's store: each tag, with the digest of its manifest.
type Tags = BTreeMap<String, String>;

struct Soak {
    env: TestEnv,
    registry: Registry,
    /// The images in the registry: name and digest.
    remote: Vec<(String, String)>,
    tags: Tags,
}

/// A running command, and the effect of its success.
struct Running {
    arguments: Vec<String>,
    child: Child,
    /// The tag that it creates, with the digest if known beforehand.
    makes: Option<(String, Option<String>)>,
}

impl Soak {
    /// Returns a registry with four images that share layers, and a store with busybox.
    fn new() -> Self {
        let env = TestEnv::new();
        let registry = Registry::start();
        env.import_busybox();
        let maker = TestEnv::new();
        maker.import_busybox();
        let mut remote = Vec::new();
        let mut base = "busybox".to_owned();
        for n in 0..EACH / 2 {
            let script = format!("mkdir -p /n; seq {n} 40000 >/n/{n}");
            let pack = pack(&maker, &format!("pack{n}"), &script);
            let tag = format!("image{n}");
            let build = ["build", "-b", &pack, "-t", &tag, "--base", &base, "--network", "none"];
            let digest = maker.ok(build).trim().to_owned();
            let name = format!("docker://{}/soak/{tag}:1", registry.host());
            maker.ok(["push", &tag, &name]);
            remote.push((name, digest));
            base = tag;
        }
        let busybox = env.ok(["inspect", "busybox", "--field", "digest"]).trim().to_owned();
        let tags = Tags::from([("busybox:latest".to_owned(), busybox)]);
        Soak { env, registry, remote, tags }
    }

    fn start(&self, arguments: &[&str], makes: Option<(&str, Option<&str>)>) -> Running {
        let mut command = self.env.svp(arguments);
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("svp");
        Running {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            child,
            makes: makes.map(|(tag, digest)| (tag.to_owned(), digest.map(str::to_owned))),
        }
    }

    fn round(&mut self, round: usize) {
        // Two builds each write the same layers; the script differs from that of the previous round.
        let packs: Vec<String> = (0..EACH)
            .map(|n| {
                let script = format!("echo {round} {} >/made; seq 1 20000 >/much", n / 2);
                pack(&self.env, &format!("pack{n}"), &script)
            })
            .collect();
        // Remove one tag of the last round and the image that was pulled as it; the others are replaced.
        let gone = (round > 0).then(|| match round % 2 {
            0 => format!("pulled-{}-{}:latest", (round - 1) % 3, round % EACH),
            _ => format!("built-{}-{}:latest", (round - 1) % 3, round % EACH),
        });
        let mut running = Vec::new();
        for (n, pack) in packs.iter().enumerate() {
            let (source, digest) = &self.remote[(n + round) % self.remote.len()];
            let tag = format!("pulled-{}-{n}:latest", round % 3);
            running.push(self.start(&["pull", source, "-t", &tag], Some((&tag, Some(digest)))));
            let tag = format!("built-{}-{n}:latest", round % 3);
            let build = ["build", "-b", pack, "-t", &tag, "--base", "busybox", "--network", "none"];
            running.push(self.start(&build, Some((&tag, None))));
            if n == round % EACH {
                // Prune runs once the store is idle, however long that takes.
                running.push(self.start(&["prune", "--wait", "600"], None));
            }
            if n == (round / 2) % EACH
                && let Some(gone) = &gone
            {
                assert!(self.tags.remove(gone).is_some(), "{gone} was never there");
                running.push(self.start(&["rmi", gone], None));
            }
            std::thread::sleep(Duration::from_millis(rand::random_range(0..40)));
        }
        for Running { arguments, child, makes } in running {
            let output = child.wait_with_output().expect("svp");
            let command = self.env.svp(&arguments);
            assert!(output.status.success(), "round {round}: {}", transcript(&command, &output));
            let Some((tag, expected)) = makes else { continue };
            let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            assert!(expected.is_none_or(|expected| expected == digest), "{tag}: {digest}");
            self.tags.insert(tag, digest);
        }
        let made = |n: usize| {
            let tag = format!("built-{}-{n}:latest", round % 3);
            self.env.ok(["inspect", &tag, "--field", "layers.2.digest"])
        };
        assert_eq!(made(round % EACH), made((round % EACH) ^ 1), "round {round}");
        self.check(round);
    }

    /// Checks that every tag is there with its digest, and the store is sound.
    fn check(&self, round: usize) {
        let list = self.env.ok(["images", "--format", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let found: Tags = (list.as_array().expect("a list").iter())
            .map(|image| {
                let tag = format!("{}:{}", text(&image["repository"]), text(&image["tag"]));
                (tag, text(&image["digest"]))
            })
            .collect();
        assert_eq!(found, self.tags, "after round {round}");
        assert_eq!(self.env.ok(["check", "--store"]), "", "after round {round}");
        self.env.assert_nothing_left();
    }

    /// Checks that every image is usable: its root file system unpacks.
    fn use_all(&self) {
        for (n, tag) in self.tags.keys().enumerate() {
            let root = self.env.path(&format!("root{n}"));
            self.env.ok(["unpack", tag, root.to_str().expect("UTF-8")]);
            assert!(root.join("bin/busybox").exists(), "{tag}");
        }
        // No blob is kept that no tag needs.
        self.env.ok(["prune"]);
        let left = self.env.ok(["prune", "--dry-run", "--format", "json"]);
        assert_eq!(left.trim(), "[]");
        let mut list = self.env.skopeo();
        let repository = format!("docker://{}/soak/image0", self.registry.host());
        success(list.args(["list-tags", "--tls-verify=false", &repository]));
        self.env.ok(["check", "--store"]);
        self.env.assert_nothing_left();
    }
}

fn pack(env: &TestEnv, name: &str, script: &str) -> String {
    let build = format!("#!/bin/sh\nset -e\n{script}\n");
    let query = "#!/bin/sh\n[ \"$1\" != os ] || echo busybox/1\n";
    let dir = env.write_pack(name, &[("bin/query", query), ("bin/build", &build)]);
    dir.to_str().expect("UTF-8").to_owned()
}

fn soak(rounds: usize) {
    let mut soak = Soak::new();
    for round in 0..rounds {
        soak.round(round);
    }
    soak.use_all();
}

#[test]
fn a_short_soak() {
    soak(2);
}

#[test]
#[ignore = "long: make soak"]
fn a_long_soak() {
    let rounds =
        std::env::var("SVP_SOAK_ROUNDS").map_or(100, |text| text.parse().expect("a number"));
    let since = std::time::Instant::now();
    soak(rounds);
    println!("{rounds} rounds of {} commands in {:?}", 2 * EACH + 2, since.elapsed());
}
