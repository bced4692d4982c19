//! Pulls from a faulty registry (wrong data, stalls, cuts, redirects): each ends in bounded time, with the right bytes
//! or an error that describes the fault.

use std::io::Read;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::fault_registry::{FaultRegistry, Piece, Reply, Seen};
use crate::support::registry::connect;
use svp::error::{Error, Kind};
use svp::oci::media_type::MANIFEST;
use svp::oci::{Digest, DigestReader, Reference};
use svp::registry::{Client, ClientOptions, RawManifest, read_error};

/// Options with timeouts for a busy machine and short waits between attempts.
fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        rate_window: Duration::from_secs(10),
        retries: 2,
        backoff: Duration::from_millis(5),
        longest_wait: Duration::from_millis(300),
        ..ClientOptions::isolated()
    }
}

/// Options that give up on a stalled server within a second or two.
fn hasty() -> Client {
    let options = ClientOptions {
        idle_timeout: Duration::from_millis(400),
        request_timeout: Duration::from_millis(1200),
        minimum_rate: 100_000,
        rate_window: Duration::from_millis(400),
        retries: 1,
        ..options()
    };
    connect(options).unwrap()
}

fn client() -> Client {
    connect(options()).unwrap()
}

fn reference(server: &FaultRegistry) -> Reference {
    format!("{}/team/a:1", server.address()).parse().unwrap()
}

fn manifest_text() -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{}},"layers":[]}}"#)
}

fn good_manifest() -> Reply {
    Reply::status(200).header("Content-Type", MANIFEST).body(manifest_text())
}

/// 3 MiB without repetition, so that a resumed download can't be right by chance.
fn blob_bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| (0..3 << 18).flat_map(|n: u32| n.to_le_bytes()).collect())
}

fn get_manifest(server: &FaultRegistry) -> Result<RawManifest, Error> {
    bounded(|| client().manifest(&reference(server)))
}

fn get_blob(server: &FaultRegistry) -> Result<Vec<u8>, Error> {
    bounded(|| get_blob_with(&client(), server))
}

fn get_blob_with(client: &Client, server: &FaultRegistry) -> Result<Vec<u8>, Error> {
    let bytes = blob_bytes();
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    let blob = client.blob(&reference(server), &digest, size)?;
    let mut found = Vec::new();
    DigestReader::expecting(blob, digest, Some(size))
        .read_to_end(&mut found)
        .map_err(read_error)?;
    Ok(found)
}

/// Fails the test if the operation hangs.
fn bounded<T>(work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    result
}

#[track_caller]
fn assert_error<T>(result: Result<T, Error>, part: &str) -> Error {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), Kind::Registry, "{error}");
    assert!(error.to_string().contains(part), "{error:?} lacks {part:?}");
    assert!(error.hint_text().is_some(), "{error:?} has no hint");
    error
}

/// Returns the start of a Range request.
fn start_of(seen: &Seen) -> usize {
    let range = seen.header("range").map(|r| r.strip_prefix("bytes=").unwrap());
    range.map_or(0, |range| range.strip_suffix('-').unwrap().parse().unwrap())
}

/// Returns the blob from the requested offset on, cut after `most` bytes.
fn cut_blob(seen: &Seen, most: usize) -> Reply {
    let bytes = blob_bytes();
    let start = start_of(seen);
    let rest = &bytes[start..];
    let reply = match start {
        0 => Reply::status(200),
        _ => Reply::status(206)
            .header("Content-Range", &format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
    };
    reply
        .header("Content-Length", &rest.len().to_string())
        .pieces(vec![Piece::Bytes(rest[..most.min(rest.len())].to_vec())])
}

#[test]
fn a_correct_answer_is_accepted() {
    let server = FaultRegistry::start(|seen| match seen.path() {
        "/v2/team/a/manifests/1" => good_manifest(),
        _ => cut_blob(seen, usize::MAX),
    });
    let manifest = get_manifest(&server).unwrap();
    assert_eq!(manifest.digest, Digest::of(manifest_text()));
    assert_eq!(manifest.media_type, MANIFEST);
    assert_eq!(get_blob(&server).unwrap(), blob_bytes());
    let seen = &server.seen_at("manifests")[0];
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert!(seen.header("accept").unwrap().contains(MANIFEST));
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn a_cut_download_is_resumed() {
    let server = FaultRegistry::start(|seen| {
        cut_blob(seen, if seen.before == 0 { 100_000 } else { usize::MAX })
    });
    assert_eq!(get_blob(&server).unwrap(), blob_bytes());
    let seen = server.seen_at("blobs");
    assert_eq!((seen.len(), start_of(&seen[1])), (2, 100_000));
}

#[test]
fn a_server_without_ranges_sends_the_whole_blob_again() {
    let server = FaultRegistry::start(|seen| match seen.before {
        0 => cut_blob(seen, 100_000),
        _ => Reply::status(200).body(blob_bytes()),
    });
    assert_eq!(get_blob(&server).unwrap(), blob_bytes());
    assert_eq!(server.seen_at("blobs").len(), 2);
}

#[test]
fn many_cuts_are_tolerated_while_each_connection_makes_progress() {
    // Two cuts, where only one consecutive failure is allowed.
    let client = connect(ClientOptions { retries: 1, ..options() }).unwrap();
    let server = FaultRegistry::start(|seen| cut_blob(seen, 1 << 20));
    assert_eq!(get_blob_with(&client, &server).unwrap(), blob_bytes());
    assert_eq!(server.seen_at("blobs").len(), 3);
    let failing = FaultRegistry::start(|seen| cut_blob(seen, 1 << 19));
    assert_error(get_blob_with(&client, &failing), "given up after 2 attempts");
    assert_eq!(failing.seen_at("blobs").len(), 2);
}

#[test]
fn a_blob_that_is_always_cut_is_given_up() {
    let server = FaultRegistry::start(|seen| cut_blob(seen, 1));
    let error = assert_error(get_blob(&server), "cut the connection");
    assert!(error.to_string().contains("after 3 of 3145728 bytes"), "{error}");
    let server = FaultRegistry::start(|_| Reply::raw(vec![]));
    assert_error(get_blob(&server), "cut the connection");
    assert_error(get_manifest(&server), "cut the connection");
}

#[test]
fn a_wrong_range_is_refused() {
    let total = blob_bytes().len();
    let ranges = [
        format!("bytes 0-{}/{total}", total - 1),
        format!("bytes 100000-{}/{total}", total - 2),
        format!("bytes 100000-{}/{}", total - 1, total + 1),
        "bytes */3145728".to_owned(),
        "nonsense".to_owned(),
    ];
    for range in ranges {
        let header = range.clone();
        let server = FaultRegistry::start(move |seen| match seen.before {
            0 => cut_blob(seen, 100_000),
            _ => Reply::status(206).header("Content-Range", &header).body(&blob_bytes()[100_000..]),
        });
        assert_error(get_blob(&server), "a different range of the blob");
        assert_eq!(server.seen_at("blobs").len(), 2, "{range}");
    }
    let unasked = FaultRegistry::start(|_| Reply::status(206).body(blob_bytes()));
    assert_error(get_blob(&unasked), "status 206");
}

#[test]
fn wrong_bytes_are_detected_by_their_digest() {
    let server = FaultRegistry::start(|_| {
        let mut bytes = blob_bytes().to_vec();
        bytes[1_000_000] ^= 1;
        Reply::status(200).body(bytes)
    });
    let error = assert_error(get_blob(&server), "wrong blob");
    assert!(error.to_string().contains(&Digest::of(blob_bytes()).to_string()), "{error}");
}

#[test]
fn too_many_bytes_are_refused() {
    let longer = |declared: bool| {
        FaultRegistry::start(move |_| {
            let bytes = [blob_bytes(), b"x"].concat();
            match declared {
                true => Reply::status(200).body(bytes),
                false => Reply::status(200).pieces(vec![Piece::Bytes(bytes)]),
            }
        })
    };
    assert_error(get_blob(&longer(true)), "3145729 bytes instead of 3145728");
    assert_error(get_blob(&longer(false)), "more than the expected 3145728 bytes");
    let endless = FaultRegistry::start(|_| {
        Reply::status(200).pieces(vec![Piece::Forever(vec![b'x'; 1 << 16], Duration::ZERO)])
    });
    assert_error(get_blob(&endless), "more than the expected 3145728 bytes");
    let shorter = FaultRegistry::start(|_| Reply::status(200).body("short"));
    assert_error(get_blob(&shorter), "5 bytes instead of 3145728");
}

#[test]
fn a_transient_failure_is_retried() {
    for status in [429, 500, 502, 503, 504] {
        let server = FaultRegistry::start(move |seen| match seen.before {
            0 => Reply::status(status).body("busy"),
            _ if seen.path().contains("manifests") => good_manifest(),
            _ => cut_blob(seen, usize::MAX),
        });
        get_manifest(&server).unwrap();
        assert_eq!(server.seen_at("manifests").len(), 2, "{status}");
        assert_eq!(get_blob(&server).unwrap(), blob_bytes());
    }
}

#[test]
fn a_short_retry_after_is_honoured() {
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    for value in ["0", "0.05", past, "nonsense"] {
        let server = FaultRegistry::start(move |seen| match seen.before {
            0 => Reply::status(429).header("Retry-After", value).body(""),
            _ => good_manifest(),
        });
        let more = ClientOptions { longest_wait: Duration::from_secs(2), ..options() };
        let got = connect(more).unwrap().manifest(&reference(&server));
        assert!(got.is_ok(), "{value}: {got:?}");
    }
}

#[test]
fn a_long_retry_after_fails_at_once_with_the_reason() {
    // Seconds, and dates in each form, by this machine's clock or the server's.
    let cases = [
        (429, "3600", "", "60 min"),
        (503, "86400", "", "24 h"),
        (429, "99999999999999999999", "", "days"),
        (429, "Fri, 01 Jan 2100 00:00:00 GMT", "", "days"),
        (429, "Friday, 01-Jan-99 00:00:00 GMT", "Thu, 31 Dec 1998 23:50:00 GMT", "10 min"),
        (503, "Fri Jan  1 00:00:00 1999", "Thu, 31 Dec 1998 23:58:20 GMT", "100 s"),
    ];
    for (status, value, date, part) in cases {
        let server = FaultRegistry::start(move |_| {
            let reply = Reply::status(status).header("Retry-After", value);
            let reply = if date.is_empty() { reply } else { reply.header("Date", date) };
            reply.body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#)
        });
        let error = assert_error(get_manifest(&server), part);
        assert!(error.to_string().contains("You have reached your limit"), "{error}");
        assert_eq!(server.seen_at("manifests").len(), 1, "{value}");
    }
}

#[test]
fn persistent_failures_are_described() {
    let cases = [
        (429, "limits the rate", "wait", 3),
        (500, "status 500", "registry's", 3),
        (503, "status 503 (DENIED: not today)", "registry's", 3),
        (403, "forbids", "log in", 1),
        (404, "no repository team/a", "name", 1),
        (401, "authentication scheme", "basic and bearer", 1),
        (418, "status 418", "at fault", 1),
        (304, "status 304", "at fault", 1),
        (204, "status 204", "at fault", 1),
    ];
    for (status, part, hint, requests) in cases {
        let server = FaultRegistry::start(move |_| {
            let body = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not \\u001b today\"}]}";
            match status {
                204 | 304 => Reply::status(status),
                _ => Reply::status(status).body(body),
            }
        });
        let error = assert_error(get_manifest(&server), part);
        assert!(!error.to_string().contains('\x1b'), "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
        assert_eq!(server.seen_at("manifests").len(), requests, "{status}");
    }
}

#[test]
fn an_unreachable_registry_is_reported() {
    let server = FaultRegistry::start(|_| good_manifest());
    let reference = reference(&server);
    drop(server);
    // The listener closes a moment after its stop request.
    std::thread::sleep(Duration::from_millis(100));
    let error = assert_error(client().manifest(&reference), "refuses the connection");
    assert!(error.hint_text().unwrap().contains("running"), "{error:?}");
}

#[test]
fn a_stalled_transfer_ends() {
    let cases: Vec<fn() -> Reply> = vec![
        || Reply::raw(vec![Piece::Hang]),
        || Reply::raw(vec![Piece::Bytes(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), Piece::Hang]),
        || Reply::status(200).header("Content-Length", "3145728").pieces(vec![Piece::Hang]),
        || {
            Reply::status(200)
                .header("Content-Length", "3145728")
                .pieces(vec![Piece::Bytes(vec![b'{'; 1000]), Piece::Hang])
        },
    ];
    for reply in cases {
        let server = FaultRegistry::start(move |_| reply());
        let manifest = bounded(|| hasty().manifest(&reference(&server)));
        assert_error(manifest, "stopped answering");
        assert_error(bounded(|| get_blob_with(&hasty(), &server)), "stopped answering");
    }
}

#[test]
fn a_slow_transfer_ends() {
    let drip = || Piece::Forever(vec![b'x'], Duration::from_millis(20));
    let body = FaultRegistry::start(move |_| {
        Reply::status(200).header("Content-Length", "3145728").pieces(vec![drip()])
    });
    let head = FaultRegistry::start(move |_| {
        Reply::raw(vec![Piece::Bytes(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), drip()])
    });
    let cases =
        [(&body, "too slowly", "in time"), (&head, "stopped answering", "stopped answering")];
    for (server, of_manifest, of_blob) in cases {
        let manifest = bounded(|| hasty().manifest(&reference(server)));
        assert_error(manifest, of_manifest);
        assert_error(bounded(|| get_blob_with(&hasty(), server)), of_blob);
    }
}

#[test]
fn a_slow_reader_is_not_reported_as_a_slow_server() {
    let server = FaultRegistry::start(|seen| cut_blob(seen, usize::MAX));
    let bytes = blob_bytes();
    let client = connect(ClientOptions { rate_window: Duration::from_millis(100), ..options() });
    let size = bytes.len() as u64;
    let mut blob = client.unwrap().blob(&reference(&server), &Digest::of(bytes), size).unwrap();
    let mut found = vec![0; 1000];
    blob.read_exact(&mut found).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    blob.read_to_end(&mut found).unwrap();
    assert_eq!(found, bytes);
    assert_eq!(server.seen_at("blobs").len(), 1);
}

#[test]
fn huge_answers_are_not_read() {
    let declared = FaultRegistry::start(|_| {
        Reply::status(200).header("Content-Length", "1073741824").pieces(vec![Piece::Hang])
    });
    assert_error(get_manifest(&declared), "more than 4194304 bytes");
    let fast = || Piece::Forever(vec![b' '; 1 << 16], Duration::ZERO);
    let endless = FaultRegistry::start(move |_| Reply::status(200).pieces(vec![fast()]));
    assert_error(get_manifest(&endless), "more than 4194304 bytes");
    let headers = FaultRegistry::start(move |_| {
        Reply::raw(vec![Piece::Bytes(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), fast()])
    });
    assert_error(get_manifest(&headers), "valid HTTP");
    let error = FaultRegistry::start(move |_| Reply::status(403).pieces(vec![fast()]));
    assert_error(get_manifest(&error), "forbids");
}

#[test]
fn other_documents_than_manifests_are_refused() {
    let cases: Vec<(fn() -> Reply, &str)> = vec![
        (|| Reply::status(200).header("Content-Type", "text/html").body("<html>"), "a web page"),
        (
            || Reply::status(200).header("Content-Type", MANIFEST).body("<html>"),
            "not a JSON object",
        ),
        (|| Reply::status(200).body("[]"), "not a JSON object"),
        (|| good_manifest().header("Content-Encoding", "gzip"), "content encoding \"gzip\""),
        (|| Reply::raw(vec![Piece::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())]), "valid HTTP"),
    ];
    for (reply, part) in cases {
        let server = FaultRegistry::start(move |_| reply());
        assert_error(get_manifest(&server), part);
        assert_eq!(server.seen_at("manifests").len(), 1, "{part}");
    }
    let html = FaultRegistry::start(|_| {
        Reply::status(200).header("Content-Type", "text/html; charset=utf-8").body("<html>")
    });
    assert_error(get_blob(&html), "a web page");
    let encoded = FaultRegistry::start(|_| {
        Reply::status(200).header("Content-Encoding", "zstd").body(blob_bytes())
    });
    assert_error(get_blob(&encoded), "content encoding \"zstd\"");
}

#[test]
fn the_digest_is_computed_and_not_trusted() {
    let server = FaultRegistry::start(|_| {
        let claimed = Digest::of("something else").to_string();
        Reply::status(200)
            .header("Content-Type", MANIFEST)
            .header("Docker-Content-Digest", &claimed)
            .body(manifest_text())
    });
    let manifest = get_manifest(&server).unwrap();
    assert_eq!(manifest.digest, Digest::of(manifest_text()));
    let asked = reference(&server).at_digest(Digest::of("something else"));
    let error = assert_error(client().manifest(&asked), "a different manifest");
    assert!(error.to_string().contains(&manifest.digest.to_string()), "{error}");
}

#[test]
fn incomplete_tls_handshakes_end() {
    // The header of a handshake record of 16 KiB.
    let head = || Piece::Bytes(vec![0x16, 3, 3, 0x40, 0]);
    let stalling: Vec<fn() -> Piece> =
        vec![|| Piece::Hang, || Piece::Forever(vec![2], Duration::from_millis(50))];
    let options = ClientOptions { connect_timeout: Duration::from_millis(600), ..options() };
    for piece in stalling {
        let server =
            FaultRegistry::with_greeting(move || vec![head(), piece()], |_| good_manifest());
        let client = connect(options.clone()).unwrap();
        let result = bounded(|| client.manifest(&reference(&server)));
        assert_error(result, "can't be reached in time");
        assert!(server.seen().is_empty());
    }
    // A server that hangs up during the TLS handshake speaks plain http, or nothing.
    let server = FaultRegistry::with_greeting(Vec::new, |_| good_manifest());
    get_manifest(&server).unwrap();
    // A TLS alert proves TLS: no plain http after it.
    let alert = || vec![Piece::Bytes(vec![0x15, 3, 3, 0, 2, 2, 40])];
    let server = FaultRegistry::with_greeting(alert, |_| good_manifest());
    assert_error(get_manifest(&server), "TLS with");
    assert!(server.seen().is_empty());
}

#[test]
fn no_plain_http_beyond_loopback() {
    // A proxy makes a name that isn't loopback reachable, without leaving loopback.
    let proxy = FaultRegistry::start(|_| {
        Reply::status(200).pieces(vec![
            Piece::Pause(Duration::from_millis(50)),
            Piece::Bytes(b"HTTP/1.0 400 Bad Request\r\n\r\n".to_vec()),
        ])
    });
    let proxies =
        svp::registry::Proxies::new(Some(format!("http://user:hunter2@{}", proxy.address())), "");
    let client = connect(ClientOptions { proxies, ..options() }).unwrap();
    let reference: Reference = "registry.invalid/a:1".parse().unwrap();
    let error = assert_error(bounded(|| client.manifest(&reference)), "does not speak TLS");
    assert!(error.hint_text().unwrap().contains("loopback"), "{error:?}");
    assert!(!format!("{error:?} {client:?}").contains("hunter2"));
    let seen = proxy.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("CONNECT", "registry.invalid:443")
    );

    // Loopback is not proxied.
    let server = FaultRegistry::start(|_| good_manifest());
    client.manifest(&self::reference(&server)).unwrap();
    assert_eq!(proxy.seen().len(), 1);

    let refusing = FaultRegistry::start(|_| Reply::status(407));
    let proxies = svp::registry::Proxies::new(Some(format!("http://{}", refusing.address())), "");
    let client = connect(ClientOptions { proxies, ..options() }).unwrap();
    assert_error(bounded(|| client.manifest(&reference)), "the proxy does not connect");
}
