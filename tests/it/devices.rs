//! Device nodes that a script creates are in the layer, although mknod is not permitted in a user namespace.

use crate::support::{TestEnv, run};

const QUERY: &str = "#!/bin/sh\nif [ \"$1\" = os ]; then echo busybox/1; fi\n";

const BUILD: &str = r#"#!/bin/sh
set -e
umask 077
mkdir -p /d/e
mknod /d/null c 1 3
mknod -m 4666 /d/zero c 1 5
cd /d/e
mknod ../sda b 8 0
chown 12:34 ../sda
mknod far c 511 1048575
mknod fifo p
mv /d/zero /d/moved
ln -s /d/e /link
mknod /link/through c 10 229
rm /d/e/far
refused() { ! "$@" 2>/dev/null; }
refused mknod /d/null c 1 3
refused mknod /d/whiteout c 0 0
refused mknod /nodir/x c 1 3
refused mknod /d/new/ c 1 3
refused mknod /link/ c 1 3
refused su nobody -s /bin/sh -c 'mknod /tmp/x c 1 3'
[ ! -e /tmp/x ] && [ ! -e /d/whiteout ]
"#;

#[test]
fn devices_created_by_a_script_are_in_the_layer() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = env.write_pack("p", &[("bin/query", QUERY), ("bin/build", BUILD)]);
    let out = env.path("out");
    let (pack, layout) = (pack.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    let network = ["--base", "busybox", "--network", "none"];
    env.ok(["build", "-b", pack, "-t", "p", "--oci-dir", layout].into_iter().chain(network));
    env.assert_nothing_left();
    let json = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).expect("a blob")).expect("JSON")
    };
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        out.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("sha256"))
    };
    let manifest = json(&blob(&json(&out.join("index.json"))["manifests"][0]));
    let layer = blob(manifest["layers"].as_array().expect("layers").last().expect("a layer"));
    let listing = run("tar", ["--numeric-owner", "-tvzf", layer.to_str().expect("UTF-8")]);
    let mut found: Vec<String> = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, size, _, _, path, ..] = words[..] else { panic!("{line}") };
        if !mode.starts_with(['d', 'l']) {
            found.push(format!("{mode} {owner} {size} {path}"));
        }
    }
    found.sort();
    let expected = [
        "brw------- 12/34 8,0 d/sda",
        "crw------- 0/0 1,3 d/null",
        "crw------- 0/0 10,229 d/e/through",
        "crwSrw-rw- 0/0 1,5 d/moved",
        "prw------- 0/0 0 d/e/fifo",
    ];
    assert_eq!(found, expected, "{listing}");
}
