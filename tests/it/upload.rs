//! Uploads to registries that limit the size of a request, each in its own way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::fault_registry::{FaultRegistry, Reply, Seen};
use svp::error::{Error, Kind};
use svp::oci::Descriptor;
use svp::registry::{Client, ClientOptions, Pushed};

const MIB: u64 = 1 << 20;

/// The answer to a chunk that is too large.
type Refusal = fn(&Seen) -> Reply;

/// A registry that refuses requests of more than `largest` bytes.
#[derive(Clone, Copy)]
struct Limited {
    largest: u64,
    chunk: Refusal,
    whole: Refusal,
    /// Whether an upload ends when a chunk is refused.
    ends: bool,
}

/// The bytes that the registry has of its upload number `.0`.
#[derive(Default)]
struct Upload(usize, String);

impl Limited {
    fn start(self) -> (FaultRegistry, Arc<Mutex<Upload>>) {
        let upload = Arc::new(Mutex::new(Upload::default()));
        let kept = upload.clone();
        (FaultRegistry::start(move |seen| self.answer(seen, &mut kept.lock().unwrap())), upload)
    }

    fn answer(self, seen: &Seen, upload: &mut Upload) -> Reply {
        let length = seen.body.len() as u64;
        let location = format!("/v2/up/{}", upload.0);
        let known = seen.path() == location;
        match seen.method.as_str() {
            "HEAD" => Reply::status(404).body(""),
            "POST" => {
                *upload = Upload(upload.0 + 1, String::new());
                Reply::status(202).header("Location", &format!("/v2/up/{}", upload.0)).body("")
            }
            _ if !known => Reply::status(404).body(""),
            "GET" => {
                let last = upload.1.len().saturating_sub(1);
                let reply = Reply::status(204).header("Location", &location);
                reply.header("Range", &format!("0-{last}")).body("")
            }
            "PATCH" if length > self.largest => {
                if self.ends {
                    upload.0 += 1000;
                }
                (self.chunk)(seen)
            }
            "PATCH" => {
                let first = upload.1.len();
                let range = format!("{first}-{}", first as u64 + length - 1);
                if seen.header("content-range") != Some(&range) {
                    return Reply::status(416).body("");
                }
                upload.1 += &seen.body;
                Reply::status(202).header("Location", &location).body("")
            }
            "PUT" if length > self.largest => (self.whole)(seen),
            "PUT" => {
                upload.1 += &seen.body;
                Reply::status(201).body("")
            }
            other => panic!("{other}"),
        }
    }
}

fn content() -> String {
    (0..700_000u32).map(|number| format!("{number:08}")).collect()
}

fn push(server: &FaultRegistry, text: &str) -> Result<Pushed, Error> {
    let options = ClientOptions {
        backoff: Duration::from_millis(5),
        longest_wait: Duration::from_millis(100),
        ..ClientOptions::isolated()
    };
    let name = format!("{}/team/base:1", server.address()).parse().unwrap();
    let blob = Descriptor::of(svp::oci::media_type::LAYER, text.as_bytes());
    let content = |from: u64| -> Result<Box<dyn std::io::Read + Send>, Error> {
        Ok(Box::new(std::io::Cursor::new(text.as_bytes()[from as usize..].to_vec())))
    };
    Client::for_push(options, &name).unwrap().push_blob(&name, &blob, None, &content)
}

fn cut(_: &Seen) -> Reply {
    Reply::raw(Vec::new())
}

fn page(_: &Seen) -> Reply {
    let page = "<html><head><title>413 Request Entity Too Large</title></head></html>";
    Reply::status(413).header("Content-Type", "text/html").body(page)
}

fn words(status: u16) -> Reply {
    let errors = r#"{"errors":[{"code":"SIZE_INVALID","message":"upload chunk exceeds 1 MiB"}]}"#;
    Reply::status(status).header("Content-Type", "application/json").body(errors)
}

#[test]
fn chunks_shrink_until_the_registry_accepts_them() {
    let text = content();
    let cases: [(&str, Limited); 7] = [
        (
            "416 with words",
            Limited { largest: MIB, chunk: |_| words(416), whole: page, ends: false },
        ),
        (
            "416 alone",
            Limited {
                largest: MIB,
                chunk: |_| Reply::status(416).body(""),
                whole: cut,
                ends: false,
            },
        ),
        ("413 by a proxy", Limited { largest: MIB, chunk: page, whole: page, ends: false }),
        (
            "400 with words",
            Limited { largest: MIB, chunk: |_| words(400), whole: |_| words(400), ends: false },
        ),
        ("a cut connection", Limited { largest: MIB, chunk: cut, whole: cut, ends: false }),
        (
            "416, and the upload is gone",
            Limited { largest: MIB, chunk: |_| words(416), whole: page, ends: true },
        ),
        (
            "a cap below a megabyte",
            Limited { largest: 100_000, chunk: page, whole: page, ends: true },
        ),
    ];
    for (name, limited) in cases {
        let (server, upload) = limited.start();
        let pushed = push(&server, &text);
        assert!(matches!(pushed, Ok(Pushed::Sent)), "{name}: {pushed:?}");
        assert!(upload.lock().unwrap().1 == text, "{name}: other bytes");
        let requests = server.seen().len() as u64;
        assert!(requests < 150, "{name}: {requests} requests");
    }
}

#[test]
fn a_registry_without_chunks_gets_the_blob_whole_after_a_cut() {
    let text = content();
    let first = Mutex::new(true);
    let accepted = Arc::new(Mutex::new(false));
    let done = accepted.clone();
    let whole = text.len();
    let server = FaultRegistry::start(move |seen| match seen.method.as_str() {
        "PUT" if std::mem::take(&mut *first.lock().unwrap()) => Reply::raw(Vec::new()),
        "PUT" => {
            *done.lock().unwrap() = seen.body.len() == whole;
            Reply::status(201).body("")
        }
        "PATCH" => Reply::status(405).body(""),
        "POST" => Reply::status(202).header("Location", "/v2/up/1").body(""),
        _ => Reply::status(404).body(""),
    });
    let pushed = push(&server, &text);
    assert!(matches!(pushed, Ok(Pushed::Sent)), "{pushed:?}");
    assert!(*accepted.lock().unwrap());
}

#[test]
fn a_registry_that_loses_what_it_has_received_is_given_up() {
    let server = FaultRegistry::start(|seen| match seen.method.as_str() {
        "POST" => Reply::status(202).header("Location", "/v2/up/1").body(""),
        "PUT" => Reply::status(413).body(""),
        // Only first chunks arrive, and are forgotten.
        "PATCH" if seen.header("content-range").is_some_and(|range| range.starts_with("0-")) => {
            Reply::status(202).header("Location", "/v2/up/1").body("")
        }
        "PATCH" => Reply::raw(Vec::new()),
        "GET" => {
            let reply = Reply::status(204).header("Location", "/v2/up/1");
            reply.header("Range", "0-0").body("")
        }
        _ => Reply::status(404).body(""),
    });
    let error = push(&server, &content()).unwrap_err();
    assert_eq!(error.kind(), Kind::Registry, "{error}");
    let requests = server.seen().len();
    assert!(requests < 100, "{requests} requests");
}

#[test]
fn a_refusal_says_what_the_registry_said() {
    let text = content();
    let (server, _) =
        Limited { largest: 10, chunk: |_| words(416), whole: page, ends: false }.start();
    let error = push(&server, &text).unwrap_err();
    assert_eq!(error.kind(), Kind::Registry);
    assert!(error.to_string().contains("SIZE_INVALID: upload chunk exceeds 1 MiB"), "{error}");

    // Words of software before the registry, and of registries that know no error codes.
    for (media_type, body, said) in [
        ("text/html", "<html><h1>Blocked by <b>policy</b> 7</h1></html>", "(Blocked by policy 7)"),
        ("text/plain", "quota of team used up\n", "(quota of team used up)"),
        (
            "application/json",
            r#"{"message":"read-only for maintenance"}"#,
            "(read-only for maintenance)",
        ),
        (
            "application/json",
            r#"{"errors":[{"code":"DENIED","detail":"team is locked"}]}"#,
            "(DENIED: team is locked)",
        ),
        (
            "application/json",
            r#"{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}"#,
            r#"(DENIED: no: {"a":1})"#,
        ),
    ] {
        let server = FaultRegistry::start(move |seen| match seen.method.as_str() {
            "HEAD" => Reply::status(404).body(""),
            _ => Reply::status(400).header("Content-Type", media_type).body(body),
        });
        let error = push(&server, &text).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}
