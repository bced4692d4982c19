//! Packs and helpers that several of these tests share.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{TestEnv, pack, run};

/// A query script that answers only `os`.
pub const QUERY: &str = "#!/bin/sh\nif [ \"$1\" = os ]; then echo busybox/1; fi\n";

/// Creates a pack whose `bin/build` is the shell script `script`.
pub fn pack_with(env: &TestEnv, name: &str, script: &str) -> PathBuf {
    let build = format!("#!/bin/sh\n{script}\n");
    env.write_pack(name, &[("bin/query", QUERY), ("bin/build", &build)])
}

/// Returns the arguments of `svp build` for a pack on the busybox base, without network.
pub fn build<'a>(pack: &'a Path, tag: &'a str) -> Vec<&'a str> {
    let pack = pack.to_str().expect("UTF-8");
    vec!["build", "-b", pack, "-t", tag, "--base", "busybox", "--network", "none"]
}

/// Builds an image `tag` with `script` on busybox into the layout `out`.
#[track_caller]
pub fn build_layout(env: &TestEnv, script: &str, tag: &str) -> PathBuf {
    env.import_busybox();
    let pack = pack_with(env, &format!("pack-{tag}"), script);
    let out = env.path("out");
    let mut arguments = build(&pack, tag);
    arguments.extend(["--oci-dir", out.to_str().expect("UTF-8")]);
    env.ok(arguments);
    out
}

/// Reads the blob of a descriptor.
pub fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let hex = digest.strip_prefix("sha256:").expect("sha256");
    layout.join("blobs/sha256").join(hex)
}

/// Reads a JSON file.
pub fn json(file: &Path) -> Value {
    let text = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// Reads the manifest of `name` (`REPO:TAG`) in a layout.
pub fn manifest(layout: &Path, name: &str) -> Value {
    let index = json(&layout.join("index.json"));
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
    let entries = index["manifests"].as_array().expect("manifests");
    let entry = entries.iter().find(named).unwrap_or_else(|| panic!("no {name} in {index:#}"));
    json(&blob(layout, entry))
}

/// Reads the config of `name` in a layout.
pub fn config(layout: &Path, name: &str) -> Value {
    json(&blob(layout, &manifest(layout, name)["config"]))
}

/// Returns the paths in the last layer of `name`, as tar lists them.
pub fn last_layer(layout: &Path, name: &str) -> Vec<String> {
    let manifest = manifest(layout, name);
    let layer = manifest["layers"].as_array().and_then(|all| all.last()).expect("a layer");
    let file = blob(layout, layer);
    let listing = run("tar", ["--list", "--file", file.to_str().expect("UTF-8")]);
    listing.lines().map(String::from).collect()
}

/// Returns every file in a directory with its length and time, to detect changes.
pub fn snapshot(dir: &Path) -> String {
    if !dir.exists() {
        return String::new();
    }
    let arguments = ["-xdev", "-printf", "%P %y %s %T@\n"].map(std::ffi::OsStr::new);
    let found = run("find", std::iter::once(dir.as_os_str()).chain(arguments));
    let mut lines: Vec<_> = found.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Builds the hello pack, and runs an instance of it as the service h.
pub fn hello_service(env: &TestEnv) {
    env.import_busybox();
    let hello = pack("hello");
    let hello = hello.to_str().unwrap();
    env.ok(["build", "-b", hello, "-t", "hello", "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", "hello", "-t", "h", "--network", "none"]);
    env.ok(["run", "-d", "--wait", "h"]);
}
