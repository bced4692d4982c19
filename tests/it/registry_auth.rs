//! Logins with a faulty registry: which server receives which credentials, and how often.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::fault_registry::{FaultRegistry, Piece, Reply, Seen};
use crate::support::registry::connect;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use svp::error::{Error, Kind};
use svp::oci::media_type::MANIFEST;
use svp::oci::{Digest, Reference};
use svp::registry::{AuthFiles, Client, ClientOptions};

const PASSWORD: &str = "hunter2";

fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        retries: 1,
        backoff: Duration::from_millis(5),
        longest_wait: Duration::from_millis(100),
        ..ClientOptions::isolated()
    }
}

/// A client with an auth file, which it reads once a registry requires a login.
struct ClientWithLogins {
    client: Client,
    _auth_file: tempfile::NamedTempFile,
}

impl std::ops::Deref for ClientWithLogins {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Returns a client that holds user and password for each server.
fn client_for(servers: &[&FaultRegistry]) -> ClientWithLogins {
    let pair = BASE64_STANDARD.encode(format!("user:{PASSWORD}"));
    client_with(servers, serde_json::json!({"auth": pair}))
}

fn client_with(servers: &[&FaultRegistry], entry: serde_json::Value) -> ClientWithLogins {
    let auths: serde_json::Map<_, _> =
        servers.iter().map(|server| (server.address(), entry.clone())).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::json!({ "auths": auths }).to_string()).unwrap();
    let auth_files = AuthFiles::only(file.path().to_owned());
    let client = connect(ClientOptions { auth_files, ..options() }).unwrap();
    ClientWithLogins { client, _auth_file: file }
}

fn reference(server: &FaultRegistry) -> Reference {
    format!("{}/team/a:1", server.address()).parse().unwrap()
}

fn good_manifest() -> Reply {
    Reply::status(200)
        .header("Content-Type", MANIFEST)
        .body(r#"{"schemaVersion":2,"config":{},"layers":[]}"#)
}

fn challenge(value: &str) -> Reply {
    Reply::status(401).header("WWW-Authenticate", value).body("")
}

fn bearer(seen: &Seen) -> Reply {
    let realm = format!("http://{}/token", seen.header("host").unwrap());
    challenge(&format!(
        r#"Bearer realm="{realm}",service="reg & co",scope="repository:team/a:pull""#
    ))
}

fn blob(client: &Client, server: &FaultRegistry) -> Result<Vec<u8>, Error> {
    let mut reader = client.blob(&reference(server), &Digest::of("blob"), 4)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[track_caller]
fn assert_error<T>(result: Result<T, Error>, part: &str) -> Error {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), Kind::Registry, "{error}");
    assert!(error.to_string().contains(part), "{error:?} lacks {part:?}");
    assert!(!format!("{error:?}").contains(PASSWORD), "{error:?}");
    error
}

/// A registry with bearer tokens `t0`, `t1`, …; `accepts` decides which token is valid for which request.
fn token_registry(
    accepts: impl Fn(&Seen, usize) -> bool + Send + Sync + 'static,
) -> (FaultRegistry, Arc<AtomicUsize>) {
    registry_of_tokens(300.into(), accepts)
}

/// Like `token_registry`, with tokens of the lifetime `expires_in`.
fn registry_of_tokens(
    expires_in: serde_json::Value,
    accepts: impl Fn(&Seen, usize) -> bool + Send + Sync + 'static,
) -> (FaultRegistry, Arc<AtomicUsize>) {
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = issued.clone();
    let server = FaultRegistry::start(move |seen| {
        if seen.path() == "/token" {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let token = format!("t{number}");
            let token = serde_json::json!({"token": token, "expires_in": expires_in});
            return Reply::status(200).body(token.to_string());
        }
        let token = seen.header("authorization").and_then(|a| a.strip_prefix("Bearer t"));
        match token.map(|number| number.parse().unwrap()) {
            Some(number) if accepts(seen, number) => match seen.path() {
                "/v2/team/a/manifests/1" => good_manifest(),
                _ => Reply::status(200).body("blob"),
            },
            _ => bearer(seen),
        }
    });
    (server, issued)
}

#[test]
fn a_token_is_fetched_with_the_login_and_reused() {
    let (server, issued) = token_registry(|_, _| true);
    let client = client_for(&[&server]);
    client.manifest(&reference(&server)).unwrap();
    for _ in 0..3 {
        assert_eq!(blob(&client, &server).unwrap(), b"blob");
    }
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    let asked = &server.seen_at("/token")[0];
    let pair = BASE64_STANDARD.encode(format!("user:{PASSWORD}"));
    assert_eq!(asked.header("authorization"), Some(format!("Basic {pair}").as_str()));
    assert!(asked.target.contains("scope=repository%3Ateam%2Fa%3Apull"), "{}", asked.target);
    assert!(asked.target.contains("service=reg%20%26%20co"), "{}", asked.target);
    // The password is sent to the token server only.
    for seen in server.seen_at("/v2/") {
        assert!(!seen.header("authorization").unwrap_or_default().starts_with("Basic"), "{seen:?}");
    }
}

#[test]
fn anonymous_tokens_need_no_login() {
    let (server, issued) = token_registry(|_, _| true);
    let client = connect(options()).unwrap();
    client.manifest(&reference(&server)).unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    assert_eq!(server.seen_at("/token")[0].header("authorization"), None);
}

#[test]
fn a_token_that_expires_between_requests_is_renewed() {
    let (server, issued) =
        token_registry(|seen, number| number >= usize::from(seen.path().contains("blobs")));
    let client = client_for(&[&server]);
    client.manifest(&reference(&server)).unwrap();
    assert_eq!(blob(&client, &server).unwrap(), b"blob");
    assert_eq!(blob(&client, &server).unwrap(), b"blob");
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[test]
fn an_expired_token_is_renewed() {
    let (server, issued) = registry_of_tokens(serde_json::json!(2), |_, _| true);
    let client = client_for(&[&server]);
    client.manifest(&reference(&server)).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(blob(&client, &server).unwrap(), b"blob"));
        }
    });
    assert!(issued.load(Ordering::SeqCst) > 1);
}

#[test]
fn a_token_with_an_odd_lifetime_is_used() {
    let one = serde_json::json!(1);
    let odd =
        [serde_json::json!(0), (-5).into(), 1e30.into(), "300".into(), "soon".into(), ().into()];
    for life in odd.into_iter().chain([one]) {
        let (server, _) = registry_of_tokens(life.clone(), |_, _| true);
        let client = client_for(&[&server]);
        client.manifest(&reference(&server)).unwrap_or_else(|error| panic!("{life}: {error}"));
        assert_eq!(blob(&client, &server).unwrap(), b"blob", "{life}");
    }
}

#[test]
fn a_token_that_expires_within_a_blob_is_renewed() {
    let (issued, counter) = {
        let issued = Arc::new(AtomicUsize::new(0));
        (issued.clone(), issued)
    };
    let server = FaultRegistry::start(move |seen| {
        let token = seen.header("authorization").unwrap_or_default();
        match (seen.path(), seen.header("range"), token) {
            ("/token", ..) => {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                Reply::status(200).body(format!("{{\"token\":\"t{number}\"}}"))
            }
            (_, None, "Bearer t0") => Reply::status(200)
                .header("Content-Length", "4")
                .pieces(vec![Piece::Bytes(b"bl".to_vec())]),
            (_, Some("bytes=2-"), "Bearer t1") => {
                Reply::status(206).header("Content-Range", "bytes 2-3/4").body("ob")
            }
            _ => bearer(seen),
        }
    });
    assert_eq!(blob(&client_for(&[&server]), &server).unwrap(), b"blob");
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[test]
fn threads_share_one_token() {
    let (server, issued) = token_registry(|_, _| true);
    let client = client_for(&[&server]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| blob(&client, &server).unwrap());
        }
    });
    assert_eq!(issued.load(Ordering::SeqCst), 1);
}

#[test]
fn a_registry_that_refuses_everything_gets_two_requests() {
    let (server, issued) = token_registry(|_, _| false);
    assert_error(client_for(&[&server]).manifest(&reference(&server)), "refuses the login");
    assert_eq!((server.seen_at("/v2/team").len(), issued.load(Ordering::SeqCst)), (2, 1));

    let basic = FaultRegistry::start(|_| challenge("Basic realm=x"));
    assert_error(client_for(&[&basic]).manifest(&reference(&basic)), "refuses the login");
    assert_eq!(basic.seen_at("/v2/team").len(), 2);
    let anonymous = connect(options()).unwrap().manifest(&reference(&basic));
    let error = assert_error(anonymous, "requires a login");
    assert!(error.hint_text().unwrap().contains("--authfile"), "{error:?}");
}

#[test]
fn credentials_stay_with_their_registry_on_a_redirect() {
    let storage = FaultRegistry::start(|_| Reply::status(200).body("blob"));
    let target = format!("http://{}/blob?signature=secret", storage.address());
    let server = FaultRegistry::start(move |seen| match seen.header("authorization") {
        None => challenge("Basic realm=x"),
        Some(_) => Reply::status(307).header("Location", &target).body("moved"),
    });
    // The login for the other server is not sent without a challenge either.
    let client = client_for(&[&server, &storage]);
    assert_eq!(blob(&client, &server).unwrap(), b"blob");
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
    assert_eq!(seen[0].target, "/blob?signature=secret");
}

#[test]
fn a_redirect_within_the_registry_keeps_credentials() {
    let server = FaultRegistry::start(|seen| match (seen.header("authorization"), seen.path()) {
        (None, _) => challenge("Basic realm=x"),
        (_, "/elsewhere") => good_manifest(),
        _ => Reply::status(302).header("Location", "/elsewhere").body(""),
    });
    client_for(&[&server]).manifest(&reference(&server)).unwrap();
}

#[test]
fn a_redirected_challenge_is_not_answered() {
    let other = FaultRegistry::start(|_| challenge("Basic realm=x"));
    let target = format!("http://{}/x?signature=secret", other.address());
    let server = FaultRegistry::start(move |_| Reply::status(307).header("Location", &target));
    let client = client_for(&[&server, &other]);
    let error = assert_error(client.manifest(&reference(&server)), "requires a login");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert!(other.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn bad_redirects_are_refused() {
    let cases = [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://127.0.0.1/x", "only http and https"),
        ("http://registry.invalid/x?signature=secret", "plain http only for loopback"),
        ("http://user:secret@127.0.0.1/x", "a user name"),
        ("http://", "no host"),
        ("/v2/team/a/manifests/1", "more than 8 times"),
        ("", "more than 8 times"),
    ];
    for (location, part) in cases {
        let server =
            FaultRegistry::start(move |_| Reply::status(307).header("Location", location).body(""));
        let started = Instant::now();
        let result = connect(options()).unwrap().manifest(&reference(&server));
        let error = result.err().unwrap();
        assert_eq!(error.kind(), Kind::Registry);
        let malformed = location == "http://" && error.to_string().contains("malformed");
        assert!(error.to_string().contains(part) || malformed, "{location}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(server.seen_at("/v2/team").len() <= 9);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    let nowhere = FaultRegistry::start(|_| Reply::status(307).body(""));
    let result = connect(options()).unwrap().manifest(&reference(&nowhere));
    assert_error(result, "without a Location");
}

#[test]
fn a_realm_elsewhere_gets_no_credentials_in_plain_text() {
    let cases = [
        ("http://auth.invalid/token", "plain http only for loopback"),
        ("file:///etc/passwd", "only http and https"),
        ("/token", "not an absolute URL"),
        ("http://u:p@127.0.0.1/token", "a user name"),
    ];
    for (realm, part) in cases {
        let server = FaultRegistry::start(move |_| challenge(&format!("Bearer realm=\"{realm}\"")));
        let error = assert_error(client_for(&[&server]).manifest(&reference(&server)), part);
        assert!(error.to_string().contains("does not contact"), "{error}");
        assert_eq!(server.seen_at("/v2/team").len(), 1);
    }
}

#[test]
fn misbehaving_token_servers_are_reported() {
    let cases: Vec<(fn(&Seen) -> Reply, &str, usize)> = vec![
        (|_| Reply::status(401).body(""), "refuses the login", 1),
        (|_| Reply::status(403).body(""), "refuses the login", 1),
        (|_| Reply::status(503).body(""), "status 503", 2),
        (|_| Reply::status(200).body("<html>"), "sends no token", 1),
        (|_| Reply::status(200).body("{}"), "sends no token", 1),
        (|_| Reply::status(200).body(r#"{"token":""}"#), "sends no token", 1),
        (|_| Reply::status(200).body(r#"{"token":"a\r\nX: y"}"#), "malformed", 1),
        (|_| Reply::status(200).header("Content-Length", "1073741824"), "more than 1048576", 1),
        (|_| Reply::status(307).header("Location", "http://auth.invalid/"), "plain http", 1),
    ];
    for (reply, part, requests) in cases {
        let server = FaultRegistry::start(move |seen| match seen.path() {
            "/token" => reply(seen),
            _ => bearer(seen),
        });
        assert_error(client_for(&[&server]).manifest(&reference(&server)), part);
        assert_eq!(server.seen_at("/token").len(), requests, "{part}");
    }
}

#[test]
fn an_identity_token_is_exchanged() {
    let server = FaultRegistry::start(|seen| match (seen.path(), seen.header("authorization")) {
        ("/token", _) => Reply::status(200).body(r#"{"access_token":"good"}"#),
        (_, Some("Bearer good")) => good_manifest(),
        _ => bearer(seen),
    });
    let client = client_with(&[&server], serde_json::json!({"identitytoken": "refresh/me"}));
    client.manifest(&reference(&server)).unwrap();
    let asked = &server.seen_at("/token")[0];
    assert_eq!(asked.method, "POST");
    assert!(asked.body.contains("refresh_token=refresh%2Fme"), "{}", asked.body);
    assert!(asked.body.contains("grant_type=refresh_token"), "{}", asked.body);
}
