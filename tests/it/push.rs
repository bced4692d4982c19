//! Pushes to Debian's docker-registry, compared with skopeo, and to a faulty registry.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::TestEnv;
use crate::support::fault_registry::{FaultRegistry, Piece, Reply, Seen};
use crate::support::real_registry::{RealRegistry, Setup};
use svp::error::{Error, Kind};
use svp::import::{ImportOptions, Input, import};
use svp::oci::media_type::MANIFEST;
use svp::oci::{Descriptor, Platform};
use svp::progress::Silent;
use svp::registry::{Client, ClientOptions};
use svp::store::Store;

/// Returns an environment with busybox as `team/base:1`, and the digest of its manifest.
fn world() -> (TestEnv, String) {
    let env = TestEnv::new();
    let base = support::busybox_base();
    let digest = env.ok(["import", base.to_str().unwrap(), "-t", "team/base:1"]);
    (env, digest.trim().to_owned())
}

fn digest_at(env: &TestEnv, registry: &RealRegistry, image: &str) -> String {
    let mut skopeo = env.skopeo();
    let name = format!("docker://{}/{image}", registry.address);
    skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &name]);
    support::success(&mut skopeo).trim().to_owned()
}

#[test]
fn skopeo_and_svp_read_pushed_images_with_the_same_digests() {
    let (env, digest) = world();
    let registry = RealRegistry::start(&Setup::default());
    let name = format!("{}/team/base:1", registry.address);
    assert_eq!(env.ok(["push", "team/base:1", &format!("docker://{name}")]).trim(), digest);
    assert_eq!(digest_at(&env, &registry, "team/base:1"), digest);

    let layout = env.path("layout");
    let (from, to) = (format!("docker://{name}"), format!("oci:{}:x:1", layout.display()));
    let mut skopeo = env.skopeo();
    skopeo.args(["--insecure-policy", "copy", "--src-tls-verify=false", &from, &to]);
    support::success(&mut skopeo);
    env.ok(["rmi", "team/base:1"]);
    assert_eq!(env.ok(["pull", &to]).trim(), digest);

    // From registry to registry, and by the image's own name.
    let other = format!("{}/other/base:2", registry.address);
    env.ok(["copy", &from, &format!("docker://{other}")]);
    assert_eq!(digest_at(&env, &registry, "other/base:2"), digest);
    let own = format!("{}/own:3", registry.address);
    env.ok(["tag", "x:1", &own]);
    env.ok(["push", &own]);
    assert_eq!(digest_at(&env, &registry, "own:3"), digest);
    env.ok(["pull", &format!("{}/own@{digest}", registry.address)]);
    env.ok(["inspect", &format!("{}/own@{digest}", registry.address)]);
    env.assert_nothing_left();
}

#[test]
fn a_registry_with_tls_and_a_password_accepts_only_the_right_login() {
    let (env, digest) = world();
    let registry = RealRegistry::start(&Setup { password: true, tls: true, ..Setup::default() });
    let to = format!("docker://{}/team/base:1", registry.address);
    let ca = registry.ca_file().display().to_string();
    let auth = |password| registry.auth_file(password).display().to_string();
    let push = |authfile: &str| {
        ["push", "team/base:1", &to, "--cacert", &ca, "--authfile", authfile].map(str::to_owned)
    };
    let printed = env.fails(69, push(&auth("wrong")));
    assert!(printed.contains("refuses the login") && !printed.contains("wrong\""), "{printed}");
    let printed = env.fails(69, ["push", "team/base:1", &to, "--cacert", &ca]);
    assert!(printed.contains("requires a login"), "{printed}");
    let printed = env.fails(69, ["push", "team/base:1", &to]);
    assert!(printed.contains("--cacert"), "{printed}");
    assert_eq!(env.ok(push(&auth(RealRegistry::PASSWORD))).trim(), digest);
    env.assert_nothing_left();
}

#[test]
fn names_without_a_registry_and_instances_are_refused() {
    let (env, _) = world();
    let printed = env.fails(2, ["push", "team/base:1"]);
    assert!(printed.contains("docker://REGISTRY/team/base:1"), "{printed}");
    let printed = env.fails(2, ["pull", "debian:12"]);
    assert!(printed.contains("docker://docker.io/library/debian:12"), "{printed}");
    let store = Store::open(&env.store()).unwrap();
    let record = store.resolve(&"team/base:1".parse().unwrap()).unwrap();
    let mut image = store.load_image(&record.manifest).unwrap();
    image.config_mut().set_label("dev.servicepack.phase", "setup");
    store.insert_image(&image, &"one:1".parse().unwrap()).unwrap();
    drop(store);
    let file = env.path("one.tar");
    let to = format!("docker-archive:{}", file.display());
    for arguments in [["push", "one:1", "docker://localhost:1/x"], ["copy", "one:1", &to]] {
        let printed = env.fails(2, arguments);
        assert!(printed.contains("--allow-secrets"), "{printed}");
        assert!(!file.exists());
    }
    env.fails(2, ["save", "one:1"]);
    env.ok(["save", "one:1", "--allow-secrets", "-o", &to]);
    let printed = env.fails(2, ["load", "-i", file.to_str().unwrap(), "-t", "one:1"]);
    assert!(printed.contains("instance") && printed.contains("--force"), "{printed}");
    env.ok(["load", "-i", file.to_str().unwrap(), "-t", "one:1", "--force"]);
    let printed = env.fails(65, ["push", "none:1", "docker://localhost:1/x"]);
    assert!(printed.contains("none:1"), "{printed}");
}

/// A store with an image of one layer, to test pushes.
struct Image {
    _place: TestEnv,
    store: Store,
    descriptor: Descriptor,
}

impl Image {
    fn new() -> Self {
        let env = TestEnv::new();
        let store = Store::open(&env.path("images")).unwrap();
        let options = ImportOptions { platform: Platform::host(), created: 0, threads: 1 };
        let input = Input::open(&support::busybox_base()).unwrap();
        let name = "team/base:1".parse().unwrap();
        let descriptor = import(input, &store, &name, &options, &Silent).unwrap();
        Image { _place: env, store, descriptor }
    }

    fn push(&self, server: &FaultRegistry) -> Result<(), Error> {
        let name = format!("{}/team/base:1", server.address()).parse().unwrap();
        let options = ClientOptions {
            idle_timeout: Duration::from_millis(800),
            request_timeout: Duration::from_millis(1500),
            rate_window: Duration::from_millis(800),
            retries: 2,
            backoff: Duration::from_millis(5),
            longest_wait: Duration::from_millis(1200),
            ..ClientOptions::isolated()
        };
        svp::source::push(&self.descriptor, &name, &self.store, &options, &Silent)
    }
}

/// Returns the reply of a correct registry without any blobs.
fn obedient(seen: &Seen) -> Reply {
    match (seen.method.as_str(), seen.path()) {
        ("HEAD", _) => Reply::status(404).body(""),
        ("POST", _) => Reply::status(202).header("Location", "/v2/up/1?state=x").body(""),
        ("PUT", _) => Reply::status(201).body(""),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_missing_blobs_are_sent_and_the_manifest_last() {
    let image = Image::new();
    let manifest = image.store.load_manifest(&image.descriptor).unwrap();
    let config = manifest.config.clone();
    let server = FaultRegistry::start(move |seen| match seen.method.as_str() {
        "HEAD" if seen.path().ends_with(&config.digest.to_string()) => {
            Reply::status(200).header("Content-Length", &config.size.to_string())
        }
        _ => obedient(seen),
    });
    image.push(&server).unwrap();
    let seen = server.seen();
    let sent: Vec<_> = seen.iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(sent.len(), 2);
    let layer = &manifest.layers[0];
    assert!(sent[0].target.starts_with("/v2/up/1?state=x&digest=sha256%3A"), "{}", sent[0].target);
    assert_eq!(sent[0].header("content-length"), Some(layer.size.to_string().as_str()));
    assert_eq!(sent[1].path(), "/v2/team/base/manifests/1");
    assert_eq!(sent[1].header("content-type"), Some(svp::oci::media_type::MANIFEST));
    assert_eq!(seen.last().unwrap().target, sent[1].target);
}

#[test]
fn blobs_of_another_repository_are_mounted() {
    let image = Image::new();
    let layer = image.store.load_manifest(&image.descriptor).unwrap().layers[0].clone();
    let server = FaultRegistry::start(|seen| match seen.target.contains("mount=") {
        true => Reply::status(201).body(""),
        false => obedient(seen),
    });
    let there = format!("{}/base:1", server.address()).parse().unwrap();
    image.store.set_tag(&there, &image.descriptor, None).unwrap();
    image.push(&server).unwrap();
    let expected = format!("/v2/team/base/blobs/uploads/?mount={}&from=base", layer.digest);
    assert!(server.seen().iter().any(|seen| seen.method == "POST" && seen.target == expected));
    let sent: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(sent.len(), 2, "{sent:?}");
}

#[test]
fn blobs_pulled_or_pushed_earlier_are_mounted() {
    let image = Image::new();
    let (store, manifest) = (image.store.root().to_owned(), image.descriptor.digest);
    let server = FaultRegistry::start(move |seen| {
        let blob = |digest: &svp::oci::Digest| {
            std::fs::read(store.join("blobs/sha256").join(digest.hex())).unwrap()
        };
        let (path, name) = seen.path().rsplit_once('/').unwrap();
        match (seen.method.as_str(), path) {
            ("GET", "/v2/first/manifests") => {
                Reply::status(200).header("Content-Type", MANIFEST).body(blob(&manifest))
            }
            ("GET", "/v2/first/blobs") => Reply::status(200).body(blob(&name.parse().unwrap())),
            ("POST", _) if seen.target.contains("mount=") => Reply::status(201).body(""),
            _ => obedient(seen),
        }
    });
    let env = TestEnv::new();
    let at = |name: &str| format!("docker://{}/{name}:1", server.address());
    let asked = |from: &str| {
        let posts = server.seen().into_iter().filter(|seen| seen.method == "POST");
        posts.filter(|seen| seen.target.ends_with(&format!("&from={from}"))).count()
    };
    // Nothing in the store has a name at that registry.
    env.ok(["copy", &at("first"), "local:1"]);
    env.ok(["push", "local:1", &at("second")]);
    assert_eq!(asked("first"), 2, "config and layer");
    env.ok(["copy", &at("first"), &at("third")]);
    assert_eq!(asked("first"), 4, "the repository that was pulled from last");
    env.ok(["push", "local:1", &at("fourth")]);
    assert_eq!(asked("third"), 2);
    let sent = server.seen().into_iter().filter(|seen| seen.method == "PUT");
    assert!(sent.into_iter().all(|seen| seen.path().contains("/manifests/")));
    env.ok(["check", "--store"]);
    env.ok(["rmi", "local:1"]);
    assert_eq!(std::fs::read_dir(env.store().join("homes")).unwrap().count(), 0);
    env.assert_nothing_left();
}

#[test]
fn a_registry_that_refuses_whole_blobs_gets_chunks() {
    let image = Image::new();
    // The bytes of each upload: blobs are sent concurrently.
    let uploads = Mutex::new(Vec::<u64>::new());
    let server = FaultRegistry::start(move |seen| {
        let mut uploads = uploads.lock().unwrap();
        let upload = seen.path().strip_prefix("/v2/up/").map(|n| n.parse::<usize>().unwrap());
        match (seen.method.as_str(), upload) {
            ("POST", _) => {
                uploads.push(0);
                let location = format!("/v2/up/{}", uploads.len() - 1);
                Reply::status(202).header("Location", &location).body("")
            }
            ("PUT", Some(_)) if !seen.body.is_empty() => Reply::status(413).body(""),
            ("PATCH", Some(upload)) => {
                let length: u64 = seen.header("content-length").unwrap().parse().unwrap();
                let at = uploads[upload];
                let expected = format!("{at}-{}", at + length - 1);
                if seen.header("content-range") != Some(expected.as_str()) {
                    return Reply::status(416).body("");
                }
                uploads[upload] += length;
                Reply::status(202).header("Location", seen.path()).body("")
            }
            _ => obedient(seen),
        }
    });
    image.push(&server).unwrap();
    let seen = server.seen();
    let layer = &image.store.load_manifest(&image.descriptor).unwrap().layers[0];
    let ends = format!("-{}", layer.size - 1);
    let chunks = seen.iter().filter(|seen| seen.method == "PATCH");
    assert!(chunks.filter_map(|seen| seen.header("content-range")).any(|r| r.ends_with(&ends)));
    assert_eq!(seen.last().unwrap().path(), "/v2/team/base/manifests/1");
}

#[test]
fn chunks_have_the_requested_length_and_resume_at_the_registrys_offset() {
    const MIB: usize = 1 << 20;
    const CUT: usize = 12 * MIB + 4711;
    let bytes: Vec<u8> = (0..5u32 << 20).flat_map(u32::to_le_bytes).collect();
    let blob = Descriptor::of(svp::oci::media_type::LAYER, &bytes);
    let server = FaultRegistry::start(move |seen| match (seen.method.as_str(), seen.path()) {
        ("POST", _) => Reply::status(202)
            .header("Location", "/v2/up/1?state=0")
            .header("OCI-Chunk-Min-Length", &(9 * MIB).to_string())
            .body(""),
        ("PUT", _) if !seen.body.is_empty() => Reply::status(413).body(""),
        // The second chunk is cut after a part of it has arrived.
        ("PATCH", _) if seen.target.ends_with("state=9") => Reply::raw(vec![]),
        ("PATCH", _) if seen.target.ends_with("state=0") => {
            Reply::status(202).header("Location", "/v2/up/1?state=9").body("")
        }
        ("PATCH", _) => Reply::status(202).header("Location", "/v2/up/1?state=end").body(""),
        ("GET", _) => Reply::status(204)
            .header("Location", "/v2/up/1?state=12")
            .header("Range", &format!("0-{}", CUT - 1))
            .body(""),
        _ => obedient(seen),
    });
    let options = ClientOptions { backoff: Duration::from_millis(5), ..ClientOptions::isolated() };
    let name = format!("{}/team/base:1", server.address()).parse().unwrap();
    let client = Client::for_push(options, &name).unwrap();
    let whole = bytes.clone();
    let content = move |from: u64| -> Result<Box<dyn std::io::Read + Send>, Error> {
        Ok(Box::new(std::io::Cursor::new(whole[from as usize..].to_vec())))
    };
    client.push_blob(&name, &blob, None, &content).unwrap();
    let sent = server.seen().into_iter().filter(|seen| seen.method == "PATCH");
    let ranges: Vec<_> =
        sent.map(|seen| seen.header("content-range").unwrap().to_owned()).collect();
    let range = |from: usize, to: usize| format!("{from}-{}", to - 1);
    let expected = [range(0, 9 * MIB), range(9 * MIB, 18 * MIB), range(CUT, bytes.len())];
    assert_eq!(ranges, expected);
    let last = server.seen().pop().unwrap();
    assert!(last.method == "PUT" && last.target.contains("state=end&digest="), "{}", last.target);
}

#[test]
fn transient_failures_are_retried() {
    let image = Image::new();
    type Fault = fn(&Seen) -> Option<Reply>;
    let cases: [(&str, Fault); 5] = [
        ("503 once at each path", |seen| (seen.before == 0).then(|| Reply::status(503).body(""))),
        ("429 with Retry-After", |seen| {
            let first = seen.method == "PUT" && seen.before == 0;
            first.then(|| Reply::status(429).header("Retry-After", "1").body(""))
        }),
        ("cut once at the manifest", |seen| {
            let first = seen.path().contains("manifests") && seen.before == 0;
            first.then(|| Reply::raw(vec![]))
        }),
        ("another 500 at the manifest", |seen| {
            let first = seen.path().contains("manifests") && seen.before < 2;
            first.then(|| Reply::status(500).body("x"))
        }),
        ("no mounting", |seen| seen.target.contains("mount=").then(|| Reply::status(405).body(""))),
    ];
    for (name, fault) in cases {
        let server = FaultRegistry::start(move |seen| match fault(seen) {
            Some(reply) => reply,
            None if seen.method == "PATCH" => {
                Reply::status(202).header("Location", "/v2/up/2").body("")
            }
            None => obedient(seen),
        });
        let pushed = image.push(&server);
        assert!(pushed.is_ok(), "{name}: {:?}", pushed);
        let last = server.seen().pop().unwrap();
        assert_eq!(last.path(), "/v2/team/base/manifests/1", "{name}");
    }
}

#[test]
fn persistent_failures_end_in_time_with_a_message() {
    let image = Image::new();
    type Fault = fn(&Seen) -> Option<Reply>;
    let cases: [(&str, Fault, &str); 9] = [
        ("403", |s| (s.method == "POST").then(|| Reply::status(403).body("")), "forbids"),
        ("404", |s| (s.method == "POST").then(|| Reply::status(404).body("")), "no repository for"),
        ("500", |s| (s.method == "PUT").then(|| Reply::status(500).body("")), "failed to store"),
        (
            "no location",
            |s| (s.method == "POST").then(|| Reply::status(202).body("")),
            "without a Location",
        ),
        (
            "a file",
            |s| {
                (s.method == "POST")
                    .then(|| Reply::status(202).header("Location", "file:///etc/passwd").body(""))
            },
            "that svp does not contact",
        ),
        (
            "plain http elsewhere",
            |s| {
                (s.method == "POST")
                    .then(|| Reply::status(202).header("Location", "http://192.0.2.1/x").body(""))
            },
            "plain http",
        ),
        (
            "a redirect loop",
            |s| {
                (s.method == "PUT")
                    .then(|| Reply::status(307).header("Location", "/v2/loop").body(""))
            },
            "redirects more than",
        ),
        (
            "another manifest",
            |s| {
                let digest = format!("sha256:{}", "0".repeat(64));
                s.path()
                    .contains("manifests")
                    .then(|| Reply::status(201).header("Docker-Content-Digest", &digest).body(""))
            },
            "another manifest",
        ),
        (
            "silence",
            |s| (s.method == "PUT").then(|| Reply::raw(vec![Piece::Hang])),
            "stopped answering",
        ),
    ];
    for (name, fault, expected) in cases {
        let server = FaultRegistry::start(move |seen| match fault(seen) {
            Some(reply) => reply,
            None if seen.method == "PATCH" => {
                Reply::status(202).header("Location", "/v2/up/2").body("")
            }
            None => obedient(seen),
        });
        let started = Instant::now();
        let error = image.push(&server).unwrap_err();
        assert_eq!(error.kind(), Kind::Registry, "{name}: {error}");
        let printed = error.to_string();
        assert!(printed.contains(expected), "{name}: {printed}");
        assert_eq!(printed.matches("team/base").count(), 1, "{name}: {printed}");
        assert!(error.hint_text().is_some(), "{name}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(40), "{name}");
        let manifests = server.seen_at("manifests").len();
        assert!(manifests == 0 || name == "another manifest", "{name}");
    }
}

#[test]
fn a_blob_that_is_damaged_in_the_store_is_reported() {
    let (env, _) = world();
    let registry = RealRegistry::start(&Setup::default());
    let layer = env.ok(["inspect", "team/base:1", "--format", "json"]);
    let layer: serde_json::Value = serde_json::from_str(&layer).unwrap();
    let layer = layer["layers"][0]["digest"].as_str().unwrap();
    let blob = env.store().join("blobs/sha256").join(layer.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let to = format!("docker://{}/team/base:1", registry.address);
    let printed = env.fails(65, ["push", "team/base:1", &to]);
    assert!(printed.contains(layer) && printed.contains("damaged"), "{printed}");
    assert!(printed.contains("svp check --store"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn build_and_setup_push_their_images() {
    let env = TestEnv::new();
    env.import_busybox();
    let registry = RealRegistry::start(&Setup::default());
    let query =
        "#!/bin/sh\n[ \"$1\" = os ] && echo any/1\n[ \"$1\" = secrets ] && echo WORD\nexit 0\n";
    let build = "#!/bin/sh\necho $1 >/made-$1\n";
    let pack = env.write_pack("p", &[("bin/query", query), ("bin/build", build)]);
    let pack = pack.to_str().unwrap();
    let base = format!("{}/team/p:1", registry.address);
    let build = ["build", "-b", pack, "--base", "busybox", "-t", &base, "--push"];
    let digest = env.ok(build);
    assert_eq!(digest_at(&env, &registry, "team/p:1"), digest.trim());

    let one = format!("{}/team/one:1", registry.address);
    let setup = ["setup", "-b", pack, "-i", &base, "-t", &one, "--push"];
    let printed = env.fails(2, setup);
    assert!(printed.contains("--allow-secrets"), "{printed}");
    env.fails(65, ["inspect", &one]);
    env.fails(2, ["build", "-b", pack, "--base", "busybox", "-t", "local", "--push"]);
    let environment = env.ok([&setup[..], &["--allow-secrets"]].concat());
    assert!(environment.starts_with("WORD="), "{environment}");
    assert!(digest_at(&env, &registry, "team/one:1").starts_with("sha256:"));
    env.assert_nothing_left();
}

#[test]
fn the_pull_policy_decides_when_a_registry_is_contacted() {
    let (env, first) = world();
    let registry = RealRegistry::start(&Setup::default());
    let name = format!("{}/team/base:1", registry.address);
    let (remote, first) = (format!("docker://{name}"), first.as_str());
    env.ok(["push", "team/base:1", &remote]);
    let pull = |policy: &str| env.svp(["pull", &remote, policy]).output().unwrap();
    let digest = |policy: &str| {
        let output = pull(policy);
        assert!(output.status.success(), "{policy}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    for policy in ["--pull=never", "--offline"] {
        let printed = String::from_utf8_lossy(&pull(policy).stderr).into_owned();
        assert_eq!(pull(policy).status.code(), Some(65), "{printed}");
        assert!(printed.contains("the pull policy forbids contacting a registry"), "{printed}");
    }
    assert_eq!(digest("--pull=missing"), first);

    // The registry's tag now refers to another image.
    let mut import = env.svp(["import", support::busybox_base().to_str().unwrap(), "-t", "new"]);
    let second = support::success(import.env("SOURCE_DATE_EPOCH", "1")).trim().to_owned();
    env.ok(["push", "new", &remote]);
    assert_ne!(first, second);
    for policy in ["--pull=missing", "--pull=never", "--offline"] {
        assert_eq!(digest(policy), first, "{policy}");
    }
    assert_eq!(digest("--pull=newer"), second);
    drop(registry);
    assert_eq!(pull("--pull=always").status.code(), Some(69));
    for policy in ["--pull=newer", "--pull=missing", "--offline"] {
        assert_eq!(digest(policy), second, "{policy}");
    }
    let by_digest = format!("docker://{}@{second}", name.trim_end_matches(":1"));
    assert_eq!(env.ok(["pull", &by_digest, "--offline"]).trim(), second);
    env.fails(2, ["pull", &remote, "--offline", "--pull=always"]);
}
