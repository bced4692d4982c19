//! What a push asks the token server for: `pull,push`, whatever the registry's challenge says, and the repository that
//! a blob is mounted from.

use std::io::Read;

use crate::support::fault_registry::{FaultRegistry, Reply, Seen};
use crate::support::registry::connect;
use crate::support::token_registry::{self, Asks};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use svp::error::Error;
use svp::oci::media_type::{LAYER, MANIFEST};
use svp::oci::{Descriptor, Digest, Reference};
use svp::registry::{AuthFiles, Client, ClientOptions, Pushed, RawManifest};

const BLOB: &[u8] = b"some bytes";

/// Returns the reply of a registry without blobs, which mounts any.
fn serve(seen: &Seen) -> Reply {
    match (seen.method.as_str(), seen.path()) {
        ("HEAD", _) => Reply::status(404),
        ("POST", _) if seen.target.contains("mount=") => Reply::status(201).body(""),
        ("POST", _) => Reply::status(202).header("Location", "/v2/up/1").body(""),
        ("PUT", _) => Reply::status(201).body(""),
        ("GET", _) => Reply::status(200).body(BLOB),
        other => panic!("{other:?}"),
    }
}

/// Returns a client with an entry in an auth file, which lives as long as the returned file.
fn client(server: &FaultRegistry, entry: serde_json::Value) -> (Client, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let auths = serde_json::json!({"auths": {(server.address()): entry}});
    std::fs::write(file.path(), auths.to_string()).unwrap();
    let options = ClientOptions {
        auth_files: AuthFiles::only(file.path()),
        retries: 0,
        ..ClientOptions::isolated()
    };
    (connect(options).unwrap(), file)
}

fn login() -> serde_json::Value {
    serde_json::json!({"auth": BASE64_STANDARD.encode("user:hunter2")})
}

fn name(server: &FaultRegistry, repository: &str) -> Reference {
    format!("{}/{repository}:1", server.address()).parse().unwrap()
}

fn push(client: &Client, to: &Reference, from: Option<&str>) -> Result<Pushed, Error> {
    let content = |at: u64| -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(std::io::Cursor::new(BLOB[at as usize..].to_vec())))
    };
    let pushed = client.push_blob(to, &Descriptor::of(LAYER, BLOB), from, &content)?;
    let bytes = b"{}".to_vec();
    let manifest = RawManifest { digest: Digest::of(&bytes), media_type: MANIFEST.into(), bytes };
    client.push_manifest(to, &manifest).map(|()| pushed)
}

#[test]
fn a_push_asks_for_pull_and_push_whatever_the_challenge_says() {
    let scopes = [
        None,
        Some(""),
        Some("repository:team/a:pull"),
        Some("repository:team/a:push"),
        Some("repository:team/a:*"),
        Some("repository:other/name:pull"),
        Some("registry:catalog:*"),
    ];
    for scope in scopes {
        for (forbids, open, silent) in [
            (false, false, false),
            (true, false, false),
            (true, true, false),
            (false, true, false),
            (true, true, true),
        ] {
            let asks = Asks { scope, forbids, open, silent };
            let server = token_registry::start(asks, serve);
            let (client, _file) = client(&server, login());
            let pushed = push(&client, &name(&server, "team/a"), None);
            let case = format!("{scope:?}, forbids {forbids}, open {open}, silent {silent}");
            assert!(matches!(pushed, Ok(Pushed::Sent)), "{case}: {pushed:?}");
            let tokens = server.seen_at("/token");
            assert_eq!(tokens.len(), 1, "{case}: {tokens:?}");
            let asked = tokens[0].parameters("scope");
            assert!(asked[0].starts_with("repository:team/a:pull,push"), "{case}: {asked:?}");
        }
    }
}

#[test]
fn an_identity_token_is_exchanged_for_pull_and_push() {
    let asks = Asks { scope: Some("repository:team/a:pull registry:catalog:*"), ..Asks::default() };
    let server = token_registry::start(asks, serve);
    let (client, _file) = client(&server, serde_json::json!({"identitytoken": "refresh"}));
    push(&client, &name(&server, "team/a"), None).unwrap();
    let asked = server.seen_at("/token")[0].parameters("scope");
    assert_eq!(asked, ["repository:team/a:pull,push registry:catalog:*"]);
}

#[test]
fn a_mount_asks_for_the_other_repository_too() {
    for scope in [None, Some("repository:team/a:pull"), Some("repository:team/a:pull,push")] {
        for forbids in [false, true] {
            let asks = Asks { scope, forbids, ..Asks::default() };
            let server = token_registry::start(asks, serve);
            let (client, _file) = client(&server, login());
            let to = name(&server, "team/a");
            let pushed = push(&client, &to, Some("base/image"));
            assert!(matches!(pushed, Ok(Pushed::Mounted)), "{scope:?} {forbids}: {pushed:?}");
            let asked: Vec<_> =
                server.seen_at("/token").iter().map(|seen| seen.parameters("scope")).collect();
            let both = ["repository:team/a:pull,push", "repository:base/image:pull"];
            assert!(asked.iter().any(|asked| asked == &both), "{asked:?}");
            // The token of one mount serves the next.
            let before = server.seen_at("/token").len();
            push(&client, &to, Some("base/image")).unwrap();
            assert_eq!(server.seen_at("/token").len(), before);
        }
    }
}

#[test]
fn a_blob_that_can_not_be_mounted_is_sent() {
    // The token server refuses the other repository, or the registry refuses to mount in its own way.
    for status in [401, 403, 404, 405, 500, 503] {
        let server = token_registry::start(Asks::default(), move |seen| {
            match seen.target.contains("mount=") {
                true => Reply::status(status).body(""),
                false => serve(seen),
            }
        });
        let (client, _file) = client(&server, login());
        let pushed = push(&client, &name(&server, "team/a"), Some("base/image"));
        assert!(matches!(pushed, Ok(Pushed::Sent)), "{status}: {pushed:?}");
    }
}

#[test]
fn each_repository_that_is_read_has_its_own_token() {
    for scope in [None, Some("repository:team/a:pull")] {
        let server = token_registry::start(Asks { scope, forbids: true, ..Asks::default() }, serve);
        let (client, _file) = client(&server, login());
        for repository in ["team/a", "team/b", "other", "team/a"] {
            let reader = client.blob(&name(&server, repository), &Digest::of(BLOB), 10);
            let mut bytes = Vec::new();
            reader.unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, BLOB, "{repository}");
        }
        assert_eq!(server.seen_at("/token").len(), 3);
        push(&client, &name(&server, "team/a"), None).unwrap();
    }
}

#[test]
fn a_login_that_may_not_push_is_not_called_wrong() {
    // The token server grants less than was asked for, and the registry says so in its own way.
    for (status, words) in
        [(401, "UNAUTHORIZED: no write access"), (403, "DENIED: no write access")]
    {
        let server = FaultRegistry::start(move |seen| match (seen.path(), seen.method.as_str()) {
            ("/token", _) => Reply::status(200).body("{\"token\":\"t\"}"),
            (_, "HEAD") if seen.header("authorization").is_some() => Reply::status(404),
            _ => {
                let realm = format!("http://{}/token", seen.header("host").unwrap());
                let challenge =
                    format!("Bearer realm=\"{realm}\",scope=\"repository:team/a:pull,push\"");
                let code = if status == 401 { "UNAUTHORIZED" } else { "DENIED" };
                let anonymous = seen.header("authorization").is_none();
                Reply::status(if anonymous { 401 } else { status })
                    .header("WWW-Authenticate", &challenge)
                    .body(format!(
                        "{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"no write access\"}}]}}"
                    ))
            }
        });
        let (client, _file) = client(&server, login());
        let error = push(&client, &name(&server, "team/a"), None).unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains(words), "{text}");
        assert!(!text.contains("refuses the login") && !text.contains("hunter2"), "{text}");
        assert!(error.hint_text().unwrap().contains("may write"), "{text}");
        assert!(server.seen().len() < 12, "{}", server.seen().len());
    }
    // A password that the registry itself refuses is wrong.
    let server = FaultRegistry::start(|_| {
        Reply::status(401).header("WWW-Authenticate", "Basic realm=x").body("no such user")
    });
    let (client, _file) = client(&server, login());
    let error = push(&client, &name(&server, "team/a"), None).unwrap_err().to_string();
    assert!(error.contains("refuses the login in"), "{error}");
    assert_eq!(server.seen_at("/v2/team").len(), 2);
}
