//! Uploads to registries that limit what they accept, as GitHub's, AWS's, and those behind nginx do.

use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::fault_registry::{FaultRegistry, Piece, Reply, Seen};
use crate::support::registry::connect;
use svp::error::{Error, Kind};
use svp::oci::media_type::LAYER;
use svp::oci::{Descriptor, Reference};
use svp::registry::{ClientOptions, Pushed};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a registry does with an upload. The default accepts everything.
#[derive(Clone, Copy)]
struct Limits {
    /// The reply to a blob in one request, unless it is accepted; 0 cuts the connection, the first time only.
    whole: Option<(u16, &'static str)>,
    /// The largest and the smallest chunk, and the reply to others.
    largest: usize,
    smallest: usize,
    /// 0 cuts the connection.
    refusal: (u16, &'static str),
    /// A refused chunk ends the upload.
    ends: bool,
    /// The status of the answer to a request for the offset.
    offset: u16,
    /// The registry stores at most so much of a chunk.
    stores: usize,
    /// The registry accepts a PATCH only without a range.
    streams: bool,
}

const TOO_LARGE: &str =
    r#"{"errors":[{"code":"SIZE_INVALID","message":"upload chunk exceeds 1 MiB"}]}"#;
const PAGE: &str = "<html><head><title>413 Request Entity Too Large</title></head></html>";

const FREE: Limits = Limits {
    whole: None,
    largest: usize::MAX,
    smallest: 0,
    refusal: (413, ""),
    ends: false,
    offset: 204,
    stores: usize::MAX,
    streams: false,
};

/// A registry with one upload at a time, which keeps the bytes.
fn start(limits: Limits) -> FaultRegistry {
    let state = Mutex::new((0_usize, String::new(), false));
    FaultRegistry::start(move |seen| {
        let mut state = state.lock().unwrap();
        let (session, stored, cut) = &mut *state;
        let here = format!("/v2/up/{session}");
        let ours = seen.path() == here;
        match seen.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => {
                *session += 1;
                stored.clear();
                Reply::status(202).header("Location", &format!("/v2/up/{session}")).body("")
            }
            _ if !ours => Reply::status(404).body("upload unknown"),
            "GET" => {
                let range = format!("0-{}", stored.len().saturating_sub(1));
                Reply::status(limits.offset)
                    .header("Location", &here)
                    .header("Range", &range)
                    .body("")
            }
            "PATCH" => {
                let reply = patch(&limits, seen, stored, &here);
                if limits.ends && reply.is_none() {
                    *session += 1;
                }
                reply.unwrap_or_else(|| match limits.refusal {
                    (0, _) => Reply::raw(Vec::new()),
                    (status, words) => Reply::status(status).body(words),
                })
            }
            "PUT" => {
                if !seen.body.is_empty() {
                    match limits.whole {
                        Some((0, _)) if !*cut => {
                            *cut = true;
                            return Reply::raw(vec![]);
                        }
                        Some((status, words)) if status > 0 => {
                            return Reply::status(status).body(words);
                        }
                        _ => stored.push_str(&seen.body),
                    }
                }
                let digest = Descriptor::of(LAYER, stored.as_bytes()).digest.to_string();
                match seen.parameters("digest") == [digest] {
                    true => Reply::status(201).body(""),
                    false => Reply::status(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#),
                }
            }
            other => panic!("{other}"),
        }
    })
}

/// Stores a chunk; returns `None` if the limits refuse it.
fn patch(limits: &Limits, seen: &Seen, stored: &mut String, here: &str) -> Option<Reply> {
    let range = seen.header("content-range");
    let last = range.and_then(|range| range.split_once('-')).map(|(_, last)| last.parse::<usize>());
    let offset = range.map_or("0", |range| range.split_once('-').unwrap().0);
    if range.is_some() == limits.streams || seen.body.len() > limits.largest {
        return None;
    }
    // The last chunk may be short.
    if seen.body.len() < limits.smallest && last != Some(Ok(blob().len() - 1)) {
        return None;
    }
    if offset != stored.len().to_string() {
        return Some(Reply::status(416).body(""));
    }
    stored.push_str(&seen.body[..seen.body.len().min(limits.stores)]);
    let range = format!("0-{}", stored.len() - 1);
    Some(Reply::status(202).header("Location", here).header("Range", &range).body(""))
}

fn blob() -> Vec<u8> {
    (0..9 * MIB + 5).map(|n| b'a' + (n / 1000 % 26) as u8).collect()
}

fn push(server: &FaultRegistry) -> Result<Pushed, Error> {
    let options = ClientOptions {
        backoff: Duration::from_millis(2),
        idle_timeout: Duration::from_secs(60),
        ..ClientOptions::isolated()
    };
    let name: Reference = format!("{}/team/a:1", server.address()).parse().unwrap();
    let bytes = blob();
    let content = |at: u64| -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(std::io::Cursor::new(bytes[at as usize..].to_vec())))
    };
    connect(options).unwrap().push_blob(&name, &Descriptor::of(LAYER, &bytes), None, &content)
}

/// The sizes of the chunks that the server has seen.
fn chunks(server: &FaultRegistry) -> Vec<usize> {
    let seen = server.seen().into_iter().filter(|seen| seen.method == "PATCH");
    seen.map(|seen| seen.body.len()).collect()
}

#[test]
fn a_cut_upload_is_finished_whatever_the_registry_limits() {
    let cut = Limits { whole: Some((0, "")), ..FREE };
    let cases = [
        ("no limit", cut),
        (
            "ghcr.io: at most 4 MiB",
            Limits { largest: 4 * MIB, refusal: (416, "chunk exceeds 4 MiB"), ..cut },
        ),
        ("at most 1 MiB, 416", Limits { largest: MIB, refusal: (416, ""), ..cut }),
        ("at most 1 MiB, 413", Limits { largest: MIB, refusal: (413, "<html>too large"), ..cut }),
        (
            "at most 300 KiB, 400",
            Limits { largest: 300 * KIB, refusal: (400, "chunk too large"), ..cut },
        ),
        (
            "ECR: at least 5 MiB",
            Limits { smallest: 5 * MIB, refusal: (400, "must be at least 5 MiB"), ..cut },
        ),
        ("no chunks, 405", Limits { largest: 0, refusal: (405, ""), ..cut }),
        ("no chunks, 501", Limits { largest: 0, refusal: (501, "not implemented"), ..cut }),
        ("no chunks, 416", Limits { largest: 0, refusal: (416, ""), ..cut }),
        ("no chunks, UNSUPPORTED", Limits { largest: 0, refusal: (400, "unsupported"), ..cut }),
        ("no offset, at most 1 MiB", Limits { largest: MIB, offset: 404, ..cut }),
        ("a part of each chunk", Limits { stores: 700 * KIB, ..cut }),
        ("416 with words", Limits { refusal: (416, TOO_LARGE), largest: MIB, ..cut }),
        ("400 with words", Limits { refusal: (400, TOO_LARGE), largest: MIB, ..cut }),
        ("a cut connection", Limits { refusal: (0, ""), largest: MIB, ..cut }),
        (
            "416, and the upload is gone",
            Limits { refusal: (416, TOO_LARGE), largest: MIB, ends: true, ..cut },
        ),
    ];
    for (case, limits) in cases {
        let server = start(limits);
        let pushed = push(&server);
        assert!(matches!(pushed, Ok(Pushed::Sent)), "{case}: {pushed:?}");
        assert!(server.seen().len() < 60, "{case}: {} requests", server.seen().len());
    }
}

#[test]
fn chunks_shrink_far() {
    let limits =
        Limits { whole: Some((413, PAGE)), largest: 100_000, refusal: (413, PAGE), ..FREE };
    for limits in [limits, Limits { ends: true, ..limits }] {
        let server = start(limits);
        let pushed = push(&server);
        assert!(matches!(pushed, Ok(Pushed::Sent)), "{pushed:?}");
        assert!(server.seen().len() < 200, "{} requests", server.seen().len());
    }
}

#[test]
fn a_blob_that_is_refused_as_a_whole_goes_in_the_way_that_is_left() {
    let whole = |status, words| Limits { whole: Some((status, words)), ..FREE };
    let cases = [
        ("413", whole(413, "")),
        ("405", whole(405, "")),
        ("411", whole(411, "length required")),
        ("400 with words", whole(400, "{\"errors\":[{\"code\":\"BLOB_UPLOAD_INVALID\"}]}")),
        ("416", whole(416, "")),
        (
            "nginx with 1 MiB",
            Limits { largest: MIB, ..whole(413, "<html><title>413 Request Entity Too Large") },
        ),
        ("only a stream", Limits { streams: true, refusal: (416, ""), ..whole(405, "") }),
    ];
    for (case, limits) in cases {
        let server = start(limits);
        let pushed = push(&server);
        assert!(matches!(pushed, Ok(Pushed::Sent)), "{case}: {pushed:?}");
    }
}

#[test]
fn a_server_that_hangs_up_on_long_requests_gets_short_ones() {
    let server = start(FREE);
    server.hang_up_beyond(MIB);
    let pushed = push(&server);
    assert!(matches!(pushed, Ok(Pushed::Sent)), "{pushed:?}");
    assert!(chunks(&server).iter().all(|size| *size <= MIB));
}

#[test]
fn the_error_has_every_sentence_of_the_registry() {
    let cases = [
        (413, "blob larger than the plan allows", (416, "chunks of 1 KiB at most")),
        (
            405,
            "{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"one\",\"detail\":\"two\"}]}",
            (400, "no chunk"),
        ),
    ];
    for (status, whole, refusal) in cases {
        let server = start(Limits { whole: Some((status, whole)), largest: KIB, refusal, ..FREE });
        let error = push(&server).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(refusal.1), "{text}");
        let expected = if whole.starts_with('{') { "UNSUPPORTED: one: two" } else { whole };
        assert!(text.contains(expected), "{text}");
        assert!(error.hint_text().is_some(), "{error:?}");
        // Not for minutes, and not again and again.
        assert!(server.seen().len() < 60, "{}", server.seen().len());
    }
}

#[test]
fn a_refusal_that_is_not_about_the_request_is_final() {
    for (status, words) in [
        (
            400,
            r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}"#,
        ),
        (403, "storage quota exceeded"),
        (412, "it will exceed the configured upper limit"),
        (409, "conflict"),
    ] {
        let server = FaultRegistry::start(move |seen| match seen.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => Reply::status(202).header("Location", "/v2/up/1").body(""),
            _ => Reply::status(status).body(words),
        });
        let error = push(&server).unwrap_err().to_string();
        let part = words.split('"').nth(5).unwrap_or(words);
        assert!(error.contains(part), "{error}");
        let sent = server.seen().into_iter().filter(|seen| seen.method == "PUT").count();
        assert_eq!((sent, chunks(&server).len()), (1, 0), "{status}");
    }
}

#[test]
fn an_upload_that_the_registry_has_forgotten_starts_again() {
    let server = FaultRegistry::start(|seen| match (seen.method.as_str(), seen.path()) {
        ("HEAD", _) => Reply::status(404),
        ("POST", path) => {
            let location = format!("/v2/up/{}", seen.before);
            assert!(path.ends_with("/blobs/uploads/"), "{path}");
            Reply::status(202).header("Location", &location).body("")
        }
        ("PUT", "/v2/up/0") => Reply::raw(vec![Piece::Pause(Duration::from_millis(1))]),
        ("PUT", _) => Reply::status(201).body(""),
        // The second upload is lost midway, as behind a load balancer; the third stays.
        ("PATCH", "/v2/up/1") if seen.before == 1 => {
            Reply::status(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#)
        }
        ("GET", _) => Reply::status(404).body(""),
        ("PATCH", path) => Reply::status(202).header("Location", path).body(""),
        other => panic!("{other:?}"),
    });
    assert!(matches!(push(&server), Ok(Pushed::Sent)));
    let posts = server.seen().into_iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(posts, 3);
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
    let error = push(&server).unwrap_err();
    assert_eq!(error.kind(), Kind::Registry, "{error}");
    let requests = server.seen().len();
    assert!(requests < 100, "{requests} requests");
}

#[test]
fn a_refusal_says_what_the_registry_said() {
    let limits =
        Limits { whole: Some((413, PAGE)), largest: 10, refusal: (416, TOO_LARGE), ..FREE };
    let error = push(&start(limits)).unwrap_err();
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
        let error = push(&server).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}
