//! Damaged layouts and registries, and targets that are not layouts.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::e2e::common::{blob, build, json as read_json, manifest, pack_with, snapshot};
use crate::support::registry::{Registry, free_port};
use crate::support::{TestEnv, busybox_base, run, success};

/// Returns the busybox base as a layout made by umoci, tag `base`.
fn base_layout(env: &TestEnv) -> PathBuf {
    let layout = env.path("base");
    let image = format!("{}:base", layout.display());
    run("umoci", ["init", "--layout", layout.to_str().unwrap()]);
    run("umoci", ["new", "--image", &image]);
    run("umoci", ["raw", "add-layer", "--image", &image, busybox_base().to_str().unwrap()]);
    layout
}

/// Builds on `source`, which must fail with `code` and leave store and layout unchanged; returns svp's message.
#[track_caller]
fn refused(env: &TestEnv, code: i32, source: &str) -> String {
    let pack = pack_with(env, "pack", "true");
    let before = env.ok(["images"]);
    let layout = snapshot(&env.path("base"));
    let mut arguments = build(&pack, "x");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = source;
    let printed = env.fails(code, arguments);
    assert_eq!(env.ok(["images"]), before);
    assert_eq!(snapshot(&env.path("base")), layout);
    env.assert_nothing_left();
    printed
}

#[track_caller]
fn refused_layout(env: &TestEnv, layout: &Path) -> String {
    refused(env, 65, &format!("oci:{}:base", layout.display()))
}

/// Returns the files of `base`: the layer, the config and the manifest.
fn blobs(layout: &Path) -> [PathBuf; 3] {
    let image = manifest(layout, "base");
    let index = read_json(&layout.join("index.json"));
    [
        blob(layout, &image["layers"][0]),
        blob(layout, &image["config"]),
        blob(layout, &index["manifests"][0]),
    ]
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_valid_layout_is_accepted() {
    let env = TestEnv::new();
    let layout = base_layout(&env);
    let pack = pack_with(&env, "pack", "true");
    let source = format!("oci:{}:base", layout.display());
    let mut arguments = build(&pack, "x");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = &source;
    env.ok(arguments);
}

#[test]
fn a_flipped_bit_is_found() {
    for which in 0..3 {
        let env = TestEnv::new();
        let layout = base_layout(&env);
        let file = &blobs(&layout)[which];
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
        let printed = refused_layout(&env, &layout);
        assert!(printed.contains(&name(file)[..12]), "blob {which}: {printed}");
    }
}

#[test]
fn a_missing_blob_is_named() {
    for which in 0..3 {
        let env = TestEnv::new();
        let layout = base_layout(&env);
        let file = &blobs(&layout)[which];
        std::fs::remove_file(file).unwrap();
        let printed = refused_layout(&env, &layout);
        assert!(printed.contains(&name(file)[..12]), "blob {which}: {printed}");
    }
}

#[test]
fn a_symlinked_blob_is_not_followed() {
    for which in 0..3 {
        let env = TestEnv::new();
        let layout = base_layout(&env);
        let file = &blobs(&layout)[which];
        let aside = env.path("aside");
        std::fs::rename(file, &aside).unwrap();
        symlink(&aside, file).unwrap();
        let printed = refused_layout(&env, &layout);
        assert!(printed.contains(&name(file)[..12]), "blob {which}: {printed}");
    }
}

#[test]
fn an_unknown_media_type_is_named() {
    let env = TestEnv::new();
    let layout = base_layout(&env);
    let index = layout.join("index.json");
    let mut list = read_json(&index);
    list["manifests"][0]["mediaType"] = json!("application/vnd.made.up+json");
    std::fs::write(&index, list.to_string()).unwrap();
    let printed = refused_layout(&env, &layout);
    assert!(printed.contains("application/vnd.made.up+json"), "{printed}");
}

#[test]
fn a_missing_ref_lists_the_existing_ones() {
    let env = TestEnv::new();
    let layout = base_layout(&env);
    let printed = refused(&env, 65, &format!("oci:{}:other", layout.display()));
    assert!(printed.contains("other") && printed.contains("base"), "{printed}");
}

#[test]
fn a_missing_platform_lists_the_existing_ones() {
    let env = TestEnv::new();
    let layout = base_layout(&env);
    let index = layout.join("index.json");
    let mut list = read_json(&index);
    let mut entry = list["manifests"][0].clone();
    entry["platform"] = json!({"architecture": "s390x", "os": "linux"});
    let inner = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    let text = inner.to_string();
    let hex = sha256(text.as_bytes());
    std::fs::write(layout.join("blobs/sha256").join(&hex), &text).unwrap();
    list["manifests"] = json!([{
        "mediaType": "application/vnd.oci.image.index.v1+json", "size": text.len(),
        "digest": format!("sha256:{hex}"), "annotations": {"org.opencontainers.image.ref.name": "base"},
    }]);
    std::fs::write(&index, list.to_string()).unwrap();
    let printed = refused_layout(&env, &layout);
    assert!(printed.contains("linux/s390x"), "{printed}");
}

#[test]
fn a_directory_that_is_not_a_layout_is_not_written_to() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "pack", "true");
    let target = env.path("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("precious"), "data").unwrap();
    let before = snapshot(&target);
    let images = env.ok(["images"]);
    let mut arguments = build(&pack, "x");
    arguments.extend(["--oci-dir", target.to_str().unwrap()]);
    let printed = env.fails(65, arguments);
    assert!(printed.contains(target.to_str().unwrap()), "{printed}");
    assert_eq!(snapshot(&target), before);
    assert_eq!(env.ok(["images"]), images);
}

#[test]
fn garbage_is_not_imported() {
    let env = TestEnv::new();
    let file = env.path("garbage.tar");
    for content in
        [&b"not a tar"[..], &[0xff; 4096], b"\x1f\x8b\x08\x00broken", b"\x28\xb5\x2f\xfdbroken"]
    {
        std::fs::write(&file, content).unwrap();
        env.fails(65, ["import", file.to_str().unwrap(), "-t", "x"]);
        env.assert_nothing_left();
    }
    let printed = env.fails(65, ["import", env.path("absent").to_str().unwrap(), "-t", "x"]);
    assert!(printed.contains("absent"), "{printed}");
}

/// Serves `layout` as the repository `base` with one fault, until the test ends; returns `host:port`.
fn faulty_registry(layout: &Path, fault: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let layout = layout.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            // A TLS handshake begins with this byte; hanging up signals that there is no TLS.
            while !request.starts_with(&[0x16])
                && !request.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|read| read == 1)
            {
                request.push(byte[0]);
            }
            if request.starts_with(&[0x16]) {
                continue;
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let _ = stream.write_all(&answer(&layout, path, fault));
        }
    });
    host
}

fn answer(layout: &Path, path: &str, fault: &str) -> Vec<u8> {
    let whole = |status: &str, kind: &str, body: &[u8], length: usize| {
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    };
    match fault {
        "401" => {
            let basic = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"";
            return whole(basic, "text/plain", b"", 0);
        }
        "404" => return whole("404 Not Found", "application/json", b"{}", 2),
        "500" => return whole("500 Internal Server Error", "text/plain", b"oops", 4),
        _ => {}
    }
    let index = read_json(&layout.join("index.json"));
    if path.contains("/manifests/") {
        let body = std::fs::read(blob(layout, &index["manifests"][0])).unwrap();
        return whole("200 OK", "application/vnd.oci.image.manifest.v1+json", &body, body.len());
    }
    let Some((_, hex)) = path.split_once("/blobs/sha256:") else {
        return whole("200 OK", "application/json", b"{}", 2);
    };
    let mut body = std::fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    let length = body.len();
    let layer = name(&blobs(layout)[0]) == hex;
    match fault {
        "wrong" if layer => body[length / 2] ^= 1,
        "truncated" if layer => body.truncate(length / 2),
        _ => {}
    }
    whole("200 OK", "application/octet-stream", &body, length)
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"))
}

#[test]
fn registry_faults_are_reported_and_leave_nothing() {
    for (fault, word) in [
        ("401", "login"),
        ("404", "base"),
        ("500", "500"),
        ("truncated", "base"),
        ("wrong", "sha256:"),
    ] {
        let env = TestEnv::new();
        let layout = base_layout(&env);
        let host = faulty_registry(&layout, fault);
        let printed = refused(&env, 69, &format!("docker://{host}/base:1"));
        assert!(printed.contains(word) && printed.contains(&host), "{fault}: {printed}");
    }
}

#[test]
fn the_same_registry_without_a_fault_works() {
    let env = TestEnv::new();
    let layout = base_layout(&env);
    let host = faulty_registry(&layout, "none");
    let pack = pack_with(&env, "pack", "true");
    let source = format!("docker://{host}/base:1");
    let mut arguments = build(&pack, "x");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = &source;
    env.ok(arguments);
}

#[test]
fn a_registry_that_is_down_is_reported() {
    let env = TestEnv::new();
    let host = format!("127.0.0.1:{}", free_port());
    let printed = refused(&env, 69, &format!("docker://{host}/base:1"));
    assert!(printed.contains(&host), "{printed}");
}

#[test]
fn setup_does_not_fetch_its_image() {
    let env = TestEnv::new();
    let layout = base_layout(&env);
    let registry = Registry::start();
    let remote = format!("{}/base:1", registry.host());
    let mut copy = env.skopeo();
    copy.args(["copy", "--quiet", "--dest-tls-verify=false"]);
    success(copy.arg(format!("oci:{}:base", layout.display())).arg(format!("docker://{remote}")));
    let pack = pack_with(&env, "pack", "true");
    let pack = pack.to_str().unwrap();
    for image in ["nothing", "nothing:9", remote.as_str()] {
        let printed = env.fails(65, ["setup", "-b", pack, "-i", image, "-t", "x"]);
        assert!(printed.contains(image), "{printed}");
    }
    env.fails(2, ["setup", "-b", pack, "-i", "BAD NAME", "-t", "x"]);
    env.assert_nothing_left();
}
