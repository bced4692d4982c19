//! A service's tag and its image drift apart: shown, named by its digest, exported, removed.

use serde_json::Value;

use super::run::info;
use crate::support::{TestEnv, output, success};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; volumes) echo /data;; \
    secrets) echo APP_PASSWORD;; esac\n";
const BUILD: &str = "#!/bin/sh\nset -eu\n[ \"$1\" = setup ] || exit 0\nmkdir -p /data\n\
    echo \"$APP_PASSWORD\" >/data/password\ncp /service/version /etc/version\n";
const RUN: &str = "#!/bin/sh\nexec sleep 100000\n";

/// Builds the base `app` of this version.
pub fn build(env: &TestEnv, version: &str) {
    let files =
        [("bin/query", QUERY), ("bin/build", BUILD), ("bin/run", RUN), ("version", version)];
    let pack = env.write_pack(&format!("pack-{}", version.replace(' ', "-")), &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "app", "--base", "busybox", "--network", "none"]);
}

/// Sets `shop` up again on the current base, with the same secrets.
pub fn set_up_again(env: &TestEnv) {
    env.ok(["setup", "-i", "app", "-t", "shop", "--network", "none", "--keep-secrets"]);
}

/// A running service `shop` of version 1, whose tag names version 2.
pub fn drifted() -> TestEnv {
    let env = TestEnv::new();
    env.import_busybox();
    build(&env, "1");
    env.ok(["setup", "-i", "app", "-t", "shop", "--network", "none"]);
    env.ok(["run", "-d", "--wait", "--network", "none", "shop"]);
    build(&env, "2");
    set_up_again(&env);
    env
}

fn said(env: &TestEnv, arguments: &[&str]) -> String {
    let mut command = env.svp(arguments);
    let output = output(&mut command);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

#[test]
fn a_moved_tag_is_shown_and_a_start_says_so_once() {
    let env = drifted();
    let shown = info(&env, "shop");
    let tagged = env.ok(["inspect", "shop", "--field", "digest"]);
    assert_eq!(shown["outdated"], true);
    assert_eq!(shown["tagDigest"], tagged.trim());
    assert_ne!(shown["digest"], tagged.trim());
    let list: Value = serde_json::from_str(&env.ok(["ps", "--format", "json"])).unwrap();
    assert_eq!(list[0]["outdated"], true);
    assert!(env.ok(["ps"]).contains("shop:latest (outdated)"));
    assert!(env.ok(["info", "shop"]).contains("svp upgrade shop"));
    env.ok(["stop", "shop"]);
    for arguments in [&["start", "shop"][..], &["restart", "shop"]] {
        let text = said(&env, arguments);
        assert_eq!(text.matches("svp upgrade shop").count(), 1, "{text}");
    }
    // A tag that is gone, or is back at the service's image, is no drift.
    env.ok(["rmi", "shop"]);
    assert_eq!(info(&env, "shop")["outdated"], false);
    assert_eq!(info(&env, "shop")["tagDigest"], Value::Null);
    env.ok(["tag", shown["digest"].as_str().unwrap(), "shop"]);
    assert_eq!(info(&env, "shop")["outdated"], false);
    assert!(!said(&env, &["restart", "shop"]).contains("upgrade"));
}

#[test]
fn a_digest_without_a_tag_names_the_image_of_a_service() {
    let env = drifted();
    let digest = info(&env, "shop")["digest"].as_str().unwrap().to_owned();
    let hex = &digest[7..];
    let exact = format!("shop@{digest}");
    for name in [&digest, &digest[..19], hex, &hex[..12], &hex[..7], &exact] {
        let found = env.ok(["inspect", name, "--field", "digest"]);
        assert_eq!(found.trim(), digest, "{name}");
        env.ok(["history", name]);
        env.ok(["diff", name, "shop"]);
    }
    let saved = env.path("saved.tar");
    let to = format!("oci-archive:{}", saved.display());
    let refused = env.fails(2, ["save", &digest, "-o", &to]);
    assert!(refused.contains("--allow-secrets"), "{refused}");
    assert_eq!(env.ok(["save", &digest, "-o", &to, "--allow-secrets"]).trim(), digest);
    let docker = format!("docker-archive:{}", env.path("docker.tar").display());
    env.ok(["save", &hex[..12], "-o", &docker, "--allow-secrets"]);
    let layout = format!("oci:{}:mine:1", env.path("layout").display());
    assert_eq!(env.ok(["copy", &digest[..19], &layout, "--allow-secrets"]).trim(), digest);
    let unpacked = env.path("unpacked");
    env.ok(["unpack", &digest, unpacked.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(unpacked.join("etc/version")).unwrap(), "1");
    // The saved name is that of the digest, not the tag's, which names another image.
    env.ok(["load", "-i", saved.to_str().unwrap()]);
    assert_ne!(env.ok(["inspect", "shop", "--field", "digest"]).trim(), digest);
    let tags = env.ok(["inspect", &digest, "--field", "tags"]);
    assert!(tags.contains(&format!("shop:sha256-{hex}")), "{tags}");
    env.ok(["tag", &hex[..12], "old:1"]);
    assert_eq!(env.ok(["inspect", "old:1", "--field", "digest"]).trim(), digest);
}

#[test]
fn an_ambiguous_or_unknown_digest_is_refused_and_a_tag_comes_first() {
    let env = TestEnv::new();
    env.import_busybox();
    let digest = env.ok(["inspect", "busybox", "--field", "digest"]);
    let hex = digest.trim()[7..].to_owned();
    assert!(env.fails(65, ["inspect", &hex[..3]]).contains("no image"));
    assert!(env.fails(65, ["inspect", "sha256:0000"]).contains("no image"));
    let (file, tar) = (env.path("file"), env.path("other.tar"));
    std::fs::write(&file, "other").unwrap();
    let work = env.path("");
    success(env.command("tar").arg("-C").arg(&work).arg("-cf").arg(&tar).arg("file"));
    // The tag has the digits of another image's digest.
    env.ok(["import", tar.to_str().unwrap(), "-t", &hex[..4]]);
    assert_ne!(env.ok(["inspect", &hex[..4], "--field", "digest"]), digest);
    assert_eq!(env.ok(["inspect", &format!("sha256:{}", &hex[..4]), "--field", "digest"]), digest);
    // Two digests with the same first four digits need many images: tag files of made-up digests stand for them.
    let files: Vec<_> = std::fs::read_dir(env.store().join("tags")).unwrap().flatten().collect();
    let file = files
        .into_iter()
        .map(|f| f.path())
        .find(|f| f.display().to_string().contains("busybox"))
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let twin = format!("{}{}", &hex[..10], "0".repeat(54));
    let text = text.replace(&hex, &twin).replace("busybox:", "twin:");
    let name = file.file_name().unwrap().to_str().unwrap().replace("busybox", "twin");
    std::fs::write(file.with_file_name(name), text).unwrap();
    let refused = env.fails(2, ["inspect", &format!("sha256:{}", &hex[..8])]);
    assert!(refused.contains(&hex) && refused.contains(&twin), "{refused}");
    assert_eq!(env.ok(["inspect", &format!("sha256:{hex}"), "--field", "digest"]), digest);
}

#[test]
fn rmi_names_the_services_that_have_the_image() {
    let env = drifted();
    let digest = info(&env, "shop")["digest"].as_str().unwrap().to_owned();
    let refused = env.fails(2, ["rmi", &digest]);
    assert!(refused.contains("shop") && refused.contains("no tag"), "{refused}");
    let exact = format!("shop@{digest}");
    env.fails(2, ["rmi", &exact]);
    // The tag, which names another image, is still there.
    assert_ne!(env.ok(["inspect", "shop", "--field", "digest"]).trim(), digest);
    assert!(!said(&env, &["rmi", "shop"]).contains("services"));
    env.ok(["tag", &digest, "mine"]);
    let text = said(&env, &["rmi", &digest[..19]]);
    assert!(text.contains("mine:latest") && text.contains("services have it: shop"), "{text}");
    env.ok(["restart", "shop"]);
}

#[test]
fn an_export_names_the_digest_of_the_service() {
    let env = drifted();
    let digest = info(&env, "shop")["digest"].as_str().unwrap().to_owned();
    for format in ["quadlet", "kube"] {
        let text = said(&env, &["export", "shop", "--format", format]);
        let command = format!("svp copy {digest} oci-archive:-:localhost/shop:latest");
        assert!(text.contains(&command), "{text}");
    }
    let name = "localhost/shop:latest";
    let file = format!("oci-archive:{}:{name}", env.path("x.tar").display());
    assert_eq!(env.ok(["copy", &digest, &file, "--allow-secrets"]).trim(), digest);
    env.ok(["tag", &digest, "shop", "--force"]);
    let text = said(&env, &["export", "shop", "--format", "quadlet"]);
    assert!(text.contains("svp save shop:latest") && text.contains(&digest), "{text}");
}
