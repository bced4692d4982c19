//! `svp pull` from a faulty registry: wrong data, cuts, stalls, redirects. Each case ends in bounded time, in success
//! or in exit code 69 with a message that names the fault and the object, and leaves nothing half-written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::fault_registry::{FaultRegistry, Piece, Reply, Seen};
use crate::support::{TestEnv, output, transcript};
use serde_json::{Value, json};
use svp::oci::media_type::MANIFEST;

/// An image as a registry serves it.
struct Image {
    manifest: Vec<u8>,
    layer: String,
    blobs: PathBuf,
    _place: TestEnv,
}

impl Image {
    fn new() -> Arc<Self> {
        let env = TestEnv::new();
        env.import_busybox();
        let manifest = env.ok(["inspect", "busybox", "--raw"]).into_bytes();
        let parsed: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = parsed["layers"][0]["digest"].as_str().unwrap().to_owned();
        let blobs = env.store().join("blobs/sha256");
        Arc::new(Image { manifest, layer, blobs, _place: env })
    }

    fn blob(&self, digest: &str) -> Vec<u8> {
        std::fs::read(self.blobs.join(digest.trim_start_matches("sha256:"))).unwrap()
    }

    /// Returns the reply of a correct registry.
    fn honest(&self, seen: &Seen) -> Reply {
        match seen.path().rsplit_once('/').unwrap() {
            (path, _) if path.ends_with("/manifests") => {
                Reply::status(200).header("Content-Type", MANIFEST).body(&self.manifest)
            }
            (path, digest) if path.ends_with("/blobs") => {
                Reply::status(200).body(self.blob(digest))
            }
            _ => Reply::status(200).body("{}"),
        }
    }
}

/// Returns a faulty reply, if the request is to get one.
type Fault = fn(&Image, &Seen) -> Option<Reply>;

fn of_manifest(seen: &Seen) -> bool {
    seen.path().contains("/manifests/")
}

fn of_layer(image: &Image, seen: &Seen) -> bool {
    seen.path().ends_with(&image.layer)
}

/// Returns the first `most` bytes of the layer, with the length of all.
fn cut(image: &Image, most: usize) -> Reply {
    let bytes = image.blob(&image.layer);
    let head = bytes[..most].to_vec();
    Reply::status(200)
        .header("Content-Length", &bytes.len().to_string())
        .pieces(vec![Piece::Bytes(head)])
}

fn forever(pause: u64) -> Piece {
    let bytes = if pause == 0 { vec![b' '; 1 << 16] } else { b" ".to_vec() };
    Piece::Forever(bytes, Duration::from_secs(pause))
}

/// Pulls with the fault; must fail with a message that contains `part`, or succeed if `part` is empty.
fn check(image: &Arc<Image>, name: &str, fault: Fault, part: &str, limit: Duration) {
    let served = image.clone();
    let server = FaultRegistry::start(move |seen| {
        fault(&served, seen).unwrap_or_else(|| served.honest(seen))
    });
    let env = TestEnv::new();
    let auth = env.path("auth.json");
    let auths = json!({"auths": {(server.address()): {"auth": "dXNlcjpodW50ZXIy"}}});
    std::fs::write(&auth, auths.to_string()).unwrap();
    let source = format!("docker://{}/team/a:1", server.address());
    let mut pull = env.svp(["pull", &source, "--authfile", auth.to_str().unwrap()]);
    let since = Instant::now();
    let result = output(&mut pull);
    let report = format!("{name}: {}", transcript(&pull, &result));
    assert!(since.elapsed() < limit, "{:?}: {report}", since.elapsed());
    assert!(!report.contains("hunter2") && !report.contains("dXNlcjpodW50ZXIy"), "{report}");
    assert!(!report.contains("panicked"), "{report}");
    let list = env.ok(["images", "--format", "json"]);
    if part.is_empty() {
        assert!(result.status.success(), "{report}");
        assert!(list.contains("team/a"), "{list}");
    } else {
        assert_eq!(result.status.code(), Some(69), "{report}");
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert!(result.stdout.is_empty() && stderr.contains(part), "{report}");
        assert_eq!(list.trim(), "[]");
        let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 0, "{report}");
    }
    assert_eq!(env.ok(["check", "--store"]), "", "{name}");
    env.assert_nothing_left();
}

/// All cases at once: they spend most of their time waiting.
fn check_all(cases: &[(&'static str, Fault, &'static str)], limit: Duration) {
    let image = Image::new();
    std::thread::scope(|scope| {
        for (name, fault, part) in cases {
            let image = &image;
            scope.spawn(move || check(image, name, *fault, part, limit));
        }
    });
}

fn token(seen: &Seen) -> Reply {
    let realm = format!("http://{}/token", seen.header("host").unwrap());
    let value = format!("Bearer realm=\"{realm}\",service=\"x\",scope=\"repository:team/a:pull\"");
    Reply::status(401).header("WWW-Authenticate", &value).body("")
}

const CASES: &[(&str, Fault, &str)] = &[
    ("an honest registry", |_, _| None, ""),
    (
        "a layer cut once",
        |image, seen| (of_layer(image, seen) && seen.before == 0).then(|| cut(image, 9999)),
        "",
    ),
    (
        "a layer always cut",
        |image, seen| of_layer(image, seen).then(|| cut(image, 1)),
        "cut the connection",
    ),
    (
        "429 once, with Retry-After",
        |_, seen| {
            let busy = Reply::status(429).header("Retry-After", "1").body("");
            (of_manifest(seen) && seen.before == 0).then_some(busy)
        },
        "",
    ),
    (
        "429 always, with Retry-After",
        |_, seen| of_manifest(seen).then(|| Reply::status(429).header("Retry-After", "1").body("")),
        "limits the rate",
    ),
    ("5xx once", |_, seen| (seen.before == 0).then(|| Reply::status(503).body("")), ""),
    ("5xx always", |_, seen| of_manifest(seen).then(|| Reply::status(500).body("")), "status 500"),
    (
        "5xx always for a layer",
        |image, seen| of_layer(image, seen).then(|| Reply::status(502).body("")),
        "status 502",
    ),
    (
        "wrong bytes",
        |image, seen| {
            let mut bytes = image.blob(&image.layer);
            bytes[1000] ^= 1;
            of_layer(image, seen).then(|| Reply::status(200).body(bytes))
        },
        "wrong blob",
    ),
    (
        "a byte more",
        |image, seen| {
            let bytes = [image.blob(&image.layer), b"x".to_vec()].concat();
            of_layer(image, seen).then(|| Reply::status(200).pieces(vec![Piece::Bytes(bytes)]))
        },
        "more than the",
    ),
    (
        "endless bytes",
        |image, seen| of_layer(image, seen).then(|| Reply::status(200).pieces(vec![forever(0)])),
        "more than the",
    ),
    (
        "a redirect to a file",
        |image, seen| {
            let reply = Reply::status(307).header("Location", "file:///etc/passwd").body("");
            of_layer(image, seen).then_some(reply)
        },
        "only http and https",
    ),
    (
        "a redirect in a loop",
        |_, seen| {
            let reply = Reply::status(302).header("Location", seen.path()).body("");
            of_manifest(seen).then_some(reply)
        },
        "more than 8 times",
    ),
    (
        "a realm on another host, in plain text",
        |_, seen| {
            let realm = "Bearer realm=\"http://auth.invalid/token\"";
            of_manifest(seen).then(|| Reply::status(401).header("WWW-Authenticate", realm).body(""))
        },
        "plain http only for loopback",
    ),
    (
        "a token that expires between manifest and layer",
        |image, seen| match (seen.path(), seen.header("authorization")) {
            ("/token", _) => {
                let text = format!("{{\"token\":\"t{}\"}}", seen.before);
                Some(Reply::status(200).body(text))
            }
            (_, Some("Bearer t0")) if !of_layer(image, seen) => None,
            (_, Some("Bearer t1")) => None,
            _ => Some(token(seen)),
        },
        "",
    ),
    (
        "401 whatever the token",
        |_, seen| match seen.path() {
            "/token" => Some(Reply::status(200).body("{\"token\":\"t\"}")),
            _ => Some(token(seen)),
        },
        "refuses the login",
    ),
    (
        "a manifest of 1 GiB",
        |_, seen| {
            let reply = Reply::status(200).header("Content-Type", MANIFEST);
            of_manifest(seen)
                .then(|| reply.header("Content-Length", "1073741824").pieces(vec![forever(0)]))
        },
        "more than 4194304 bytes",
    ),
    (
        "a manifest without an end",
        |_, seen| of_manifest(seen).then(|| Reply::status(200).pieces(vec![forever(0)])),
        "more than 4194304 bytes",
    ),
    (
        "HTML with 200",
        |_, seen| {
            let reply = Reply::status(200).header("Content-Type", "text/html");
            of_manifest(seen).then(|| reply.body("<html>log in"))
        },
        "a web page",
    ),
    (
        "HTML for a layer",
        |image, seen| {
            let reply = Reply::status(200).header("Content-Type", "text/html");
            of_layer(image, seen).then(|| reply.body("<html>log in"))
        },
        "a web page",
    ),
    (
        "a wrong Docker-Content-Digest",
        |image, seen| {
            let claim = format!("sha256:{}", "0".repeat(64));
            let reply = Reply::status(200).header("Content-Type", MANIFEST);
            let reply = reply.header("Docker-Content-Digest", &claim);
            of_manifest(seen).then(|| reply.body(&image.manifest))
        },
        "",
    ),
    (
        "Content-Encoding of a manifest",
        |image, seen| {
            let reply = Reply::status(200).header("Content-Type", MANIFEST);
            of_manifest(seen)
                .then(|| reply.header("Content-Encoding", "gzip").body(&image.manifest))
        },
        "content encoding",
    ),
    (
        "Content-Encoding of a layer",
        |image, seen| {
            let reply = Reply::status(200).header("Content-Encoding", "zstd");
            of_layer(image, seen).then(|| reply.body(image.blob(&image.layer)))
        },
        "content encoding",
    ),
];

/// These take as long as svp's timeouts.
const SLOW: &[(&str, Fault, &str)] = &[
    (
        "a stalled manifest",
        |_, seen| {
            let reply = Reply::status(200).header("Content-Type", MANIFEST);
            of_manifest(seen)
                .then(|| reply.header("Content-Length", "1000").pieces(vec![Piece::Hang]))
        },
        "stopped answering",
    ),
    (
        "a manifest of one byte every two seconds",
        |_, seen| {
            let reply = Reply::status(200).header("Content-Length", "1000");
            of_manifest(seen).then(|| reply.pieces(vec![forever(2)]))
        },
        "too slowly",
    ),
    (
        "a layer of one byte every two seconds",
        |image, seen| {
            let length = image.blob(&image.layer).len().to_string();
            let reply = Reply::status(200).header("Content-Length", &length);
            of_layer(image, seen).then(|| reply.pieces(vec![forever(2)]))
        },
        "in time",
    ),
];

#[test]
fn each_fault_ends_in_success_or_a_message() {
    check_all(CASES, Duration::from_secs(120));
}

#[test]
fn a_retry_is_reported_with_its_number_and_delay() {
    let image = Image::new();
    let served = image.clone();
    let server = FaultRegistry::start(move |seen| match seen.before {
        0 | 1 if of_manifest(seen) => Reply::status(503).body(""),
        _ => served.honest(seen),
    });
    let source = format!("docker://{}/team/a:1", server.address());
    let env = TestEnv::new();
    let pull = |progress: &[&str]| {
        let mut pull = env.svp([&["pull", &source][..], progress].concat());
        let result = output(&mut pull);
        assert!(result.status.success(), "{}", transcript(&pull, &result));
        String::from_utf8(result.stderr).unwrap()
    };
    let stderr = pull(&["--progress", "json"]);
    let events: Vec<Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["event"] == kind).collect()
    };
    let retries = of("retry");
    assert_eq!(retries.len(), 2, "{stderr}");
    for (n, retry) in retries.iter().enumerate() {
        assert_eq!((&retry["attempt"], &retry["attempts"]), (&json!(n + 1), &json!(5)), "{stderr}");
        assert!(retry["delayMs"].as_u64().is_some_and(|delay| delay > 0), "{stderr}");
        assert!(retry["reason"].as_str().unwrap().contains("503"), "{stderr}");
    }
    assert_eq!(
        of("step"),
        [&json!({"event": "step", "code": "pull", "source": source})],
        "{stderr}"
    );
    let transfers = of("transfer");
    let layer = transfers.iter().find(|event| event["digest"] == image.layer).unwrap();
    let size = image.blob(&image.layer).len();
    assert_eq!((&layer["done"], &layer["total"]), (&json!(0), &json!(size)), "{stderr}");
    assert!(of("transferred").iter().any(|event| event["digest"] == image.layer), "{stderr}");
    assert!(events.iter().all(|event| event.get("text").is_none()), "{stderr}");
}

#[test]
fn a_retry_as_text() {
    let image = Image::new();
    let served = image.clone();
    let server = FaultRegistry::start(move |seen| match seen.before {
        0 if of_manifest(seen) => Reply::status(429).header("Retry-After", "1").body(""),
        _ => served.honest(seen),
    });
    let env = TestEnv::new();
    let source = format!("docker://{}/team/a:1", server.address());
    let mut pull = env.svp(["pull", &source]);
    let result = output(&mut pull);
    let report = transcript(&pull, &result);
    assert!(report.contains("(attempt 1 of 5): trying again in 1.0 s"), "{report}");
    let mut quiet = env.svp(["pull", &source, "--quiet"]);
    let result = output(&mut quiet);
    assert!(result.status.success() && result.stderr.is_empty(), "{}", transcript(&quiet, &result));
}

/// The output of `-vv` must not contain tokens, passwords, or signatures in queries.
#[test]
fn diagnostics_show_requests_and_no_secrets() {
    let image = Image::new();
    let served = image.clone();
    let server =
        FaultRegistry::start(move |seen| match (seen.path(), seen.header("authorization")) {
            ("/token", Some(_)) => Reply::status(200).body("{\"token\":\"tok3n-of-ours\"}"),
            ("/token", None) => Reply::status(401).body(""),
            (path, Some("Bearer tok3n-of-ours")) if path.ends_with("/signed") => {
                Reply::status(200).body(served.blob(&served.layer))
            }
            (_, Some("Bearer tok3n-of-ours")) if of_layer(&served, seen) => Reply::status(307)
                .header("Location", "/v2/team/a/blobs/signed?X-Signature=s1gnature")
                .body(""),
            (_, Some("Bearer tok3n-of-ours")) => served.honest(seen),
            _ => token(seen),
        });
    let env = TestEnv::new();
    let auth = env.path("auth.json");
    let auths = json!({"auths": {(server.address()): {"auth": "dXNlcjpodW50ZXIy"}}});
    std::fs::write(&auth, auths.to_string()).unwrap();
    let source = format!("docker://{}/team/a:1", server.address());
    for (arguments, variable) in
        [(&["-vv"][..], ""), (&[], "trace"), (&["-vv", "--progress", "json"], "")]
    {
        let all = [arguments, &["pull", &source, "--authfile", auth.to_str().unwrap()]].concat();
        std::fs::remove_dir_all(env.store()).unwrap_or_default();
        let mut pull = env.svp(all);
        let result = output(pull.env("SVP_LOG", variable));
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{stderr}");
        assert!(stderr.contains("svp::registry") && stderr.contains("status 307"), "{stderr}");
        assert!(stderr.contains(&format!("GET http://{}/v2/team/a/manifests/1", server.address())));
        for secret in ["hunter2", "dXNlcjpodW50ZXIy", "tok3n", "s1gnature", "Bearer", "Basic "] {
            assert!(!stderr.contains(secret), "{secret}: {stderr}");
        }
        if arguments.contains(&"json") {
            assert!(stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        }
    }
    let mut wrong = env.svp(["images"]);
    let result = output(wrong.env("SVP_LOG", "ureq=trace"));
    assert_eq!(result.status.code(), Some(2), "{}", transcript(&wrong, &result));
}

#[test]
fn a_redirect_to_another_host_gets_no_credentials() {
    let image = Image::new();
    let served = image.clone();
    let storage =
        FaultRegistry::start(move |_| Reply::status(200).body(served.blob(&served.layer)));
    let (served, elsewhere) = (image.clone(), format!("http://{}/layer", storage.address()));
    let server = FaultRegistry::start(move |seen| match seen.header("authorization") {
        None => Reply::status(401).header("WWW-Authenticate", "Basic realm=x").body(""),
        Some(_) if of_layer(&served, seen) => {
            Reply::status(307).header("Location", &elsewhere).body("")
        }
        Some(_) => served.honest(seen),
    });
    let env = TestEnv::new();
    let auth = env.path("auth.json");
    let entry = json!({"auth": "dXNlcjpodW50ZXIy"});
    let auths = json!({"auths": {(server.address()): entry, (storage.address()): entry}});
    std::fs::write(&auth, auths.to_string()).unwrap();
    let source = format!("docker://{}/team/a:1", server.address());
    env.ok(["pull", &source, "--authfile", auth.to_str().unwrap()]);
    let seen = storage.seen();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
    env.assert_nothing_left();
}

#[test]
#[ignore = "long: make soak"]
fn stalled_and_slow_transfers_end() {
    check_all(SLOW, Duration::from_secs(600));
}
