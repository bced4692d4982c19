//! policy.json through the program, compared with skopeo.

use std::fs;

use crate::support;
use crate::support::TestEnv;
use crate::support::real_registry::{RealRegistry, Setup};
use serde_json::{Value, json};

/// Writes the user's policy.json, which skopeo reads too.
fn allow(env: &TestEnv, default: &str, transports: &Value) {
    let dir = env.dir().join("home/.config/containers");
    fs::create_dir_all(&dir).unwrap();
    let policy = json!({"default": [{"type": default}], "transports": transports});
    fs::write(dir.join("policy.json"), policy.to_string()).unwrap();
}

#[track_caller]
fn taken(env: &TestEnv, source: &str) -> bool {
    taken_as(env, source, "rejected by the policy")
}

/// Returns whether svp accepts the image, after checking that skopeo agrees; svp's refusal must contain `why`.
#[track_caller]
fn taken_as(env: &TestEnv, source: &str, why: &str) -> bool {
    let target = env.path("of-skopeo");
    let _ = fs::remove_dir_all(&target);
    let mut skopeo = env.skopeo();
    skopeo.args(["copy", "--src-tls-verify=false", source, &format!("oci:{}:x", target.display())]);
    let theirs = support::output(&mut skopeo);
    let mut svp = env.svp(["pull", source, "-t", "x"]);
    let ours = support::output(&mut svp);
    assert_eq!(
        ours.status.success(),
        theirs.status.success(),
        "{}",
        support::transcript(&skopeo, &theirs)
    );
    if !ours.status.success() {
        let printed = support::transcript(&svp, &ours);
        assert_eq!(ours.status.code(), Some(65), "{printed}");
        assert!(printed.contains(why) && printed.contains("policy.json"), "{printed}");
    }
    ours.status.success()
}

#[test]
fn rejected_images_are_not_pulled() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup::default());
    registry.push("team/app:1");
    registry.push("team/app:2");
    env.import_busybox();
    env.ok(["save", "busybox", "-o", "oci-archive:a.tar"]);
    env.ok(["save", "busybox", "-o", "docker-archive:d.tar"]);
    env.ok(["save", "busybox", "-o", "oci:layout"]);
    let work = fs::canonicalize(env.path("")).unwrap();
    let address = registry.address.clone();
    let (accept, reject) =
        (json!([{"type": "insecureAcceptAnything"}]), json!([{"type": "reject"}]));
    let image = |tag: &str| format!("docker://{address}/team/app:{tag}");

    allow(&env, "reject", &json!({"docker": {(format!("{address}/team/app:1")): accept}}));
    assert!(taken(&env, &image("1")));
    assert!(!taken(&env, &image("2")));
    assert!(!taken(&env, "oci-archive:a.tar"));
    assert!(!taken(&env, "docker-archive:d.tar"));
    assert!(!taken(&env, "oci:layout:busybox:latest"));

    let transports = json!({
        "docker": {"": accept, (format!("{address}/team")): reject},
        "oci": {(work.display().to_string()): accept},
        "oci-archive": {(work.join("a.tar").display().to_string()): accept, "": reject},
        "docker-archive": {"": accept},
    });
    allow(&env, "reject", &transports);
    assert!(!taken(&env, &image("1")));
    assert!(taken(&env, "oci:layout:busybox:latest"));
    assert!(taken(&env, "oci-archive:a.tar"));
    assert!(taken(&env, "docker-archive:d.tar"));
    fs::copy(env.path("a.tar"), env.path("b.tar")).unwrap();
    assert!(!taken(&env, "oci-archive:b.tar"));

    env.ok(["load", "-i", "a.tar"]);
    env.fails(65, ["load", "-i", "b.tar"]);
    env.ok(["load", "-i", "d.tar"]);
    // Images in the store are not checked again.
    env.ok(["push", "busybox", &format!("docker://{address}/other:1")]);
    let printed = env.fails(65, ["copy", &image("1"), "oci:out:x"]);
    assert!(printed.contains("its scope"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn a_policy_may_be_given_and_an_invalid_one_is_an_error() {
    let env = TestEnv::new();
    env.import_busybox();
    env.ok(["save", "busybox", "-o", "oci-archive:a.tar"]);
    allow(&env, "reject", &json!({}));
    let pull = ["pull", "oci-archive:a.tar", "-t", "x"];
    env.fails(65, pull);
    fs::write(env.path("mine.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    env.ok([&pull[..], &["--policy", "mine.json"]].concat());
    env.ok(["load", "-i", "a.tar", "--policy", "mine.json"]);
    env.fails(74, [&pull[..], &["--policy", "none.json"]].concat());

    fs::write(env.path("mine.json"), "{\n\"default\": [{\"type\": \"reject\"}],\n\"dflt\": 1}")
        .unwrap();
    let printed = env.fails(65, [&pull[..], &["--policy", "mine.json"]].concat());
    assert!(printed.contains("mine.json") && printed.contains("line 3"), "{printed}");
    env.ok(["inspect", "busybox"]);
}

/// The requirements that only a verifier of signatures can meet.
fn signatures() -> [Value; 3] {
    [
        json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}]),
        json!([{"type": "sigstoreSigned", "keyPath": "/x"}]),
        json!([{"type": "insecureAcceptAnything"}, {"type": "signedBy", "keyType": "GPGKeys", "keyData": ""}]),
    ]
}

#[test]
fn an_image_that_must_be_signed_is_refused_as_by_skopeo() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup::default());
    registry.push("team/app:1");
    env.import_busybox();
    env.ok(["save", "busybox", "-o", "oci-archive:a.tar"]);
    env.ok(["save", "busybox", "-o", "docker-archive:d.tar"]);
    env.ok(["save", "busybox", "-o", "oci:layout"]);
    let pack = env.write_pack(
        "pack",
        &[
            ("bin/query", "#!/bin/sh\n[ $1 != os ] || echo busybox/1\n"),
            ("bin/build", "#!/bin/sh\n"),
        ],
    );
    let pack = pack.to_str().unwrap();
    let address = registry.address.clone();
    let image = format!("docker://{address}/team/app:1");
    let sources =
        [&image[..], "oci:layout:busybox:latest", "oci-archive:a.tar", "docker-archive:d.tar"];
    let images = env.ok(["images"]);
    for signed in signatures() {
        let transports = json!({
            "docker": {(format!("{address}/team")): signed}, "oci": {"": signed},
            "oci-archive": {"": signed}, "docker-archive": {"": signed},
        });
        allow(&env, "insecureAcceptAnything", &transports);
        for source in sources {
            assert!(!taken_as(&env, source, "svp can't verify"), "{signed} {source}");
        }
        for arguments in [
            &["copy", &image, "oci:copied:x"][..],
            &["unpack", &image, "tree"],
            &["build", "-b", pack, "-t", "b", "--base", &image, "--network", "none"],
            &["load", "-i", "a.tar"],
            &["load", "-i", "d.tar"],
        ] {
            let printed = env.fails(65, arguments);
            for part in
                ["requires a signature", "policy.json", "its ", "--allow-unverified", "--policy"]
            {
                assert!(printed.contains(part), "{arguments:?}: {part}: {printed}");
            }
        }
        let printed = env.fails(65, ["pull", &image, "-t", "x"]);
        let scope = format!("its scope {address}/team");
        assert!(printed.contains(&scope), "{printed}");
        assert!(printed.contains(&format!("skopeo copy {image} oci:DIR:NAME")), "{printed}");
    }
    assert_eq!(env.ok(["images"]), images);
    assert!(!env.path("copied").exists() && !env.path("tree").exists());
    env.assert_nothing_left();
}

#[test]
fn the_user_waives_a_signature_but_no_rejection() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup::default());
    let image = registry.push("app:1");
    registry.push("bad:1");
    env.import_busybox();
    env.ok(["save", "busybox", "-o", "oci-archive:a.tar"]);
    let [signed, ..] = signatures();
    let address = &registry.address;
    let both =
        json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}, {"type": "reject"}]);
    let scopes = json!({(address.as_str()): signed, (format!("{address}/bad")): both});
    allow(&env, "insecureAcceptAnything", &json!({"docker": scopes, "oci-archive": {"": signed}}));
    let name = format!("docker://{address}/app:1");
    let mut svp = env.svp(["pull", &name, "-t", "x", "--allow-unverified"]);
    let output = support::output(&mut svp);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), image.manifest.to_string());
    assert_eq!(printed.matches("svp does not verify it").count(), 1, "{printed}");
    env.ok(["load", "-i", "a.tar", "--allow-unverified"]);
    env.ok(["copy", &name, "oci:out:x", "--allow-unverified"]);
    env.ok(["unpack", &name, "tree", "--allow-unverified"]);
    fs::write(env.path("mine.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let mut svp = env.svp(["pull", &name, "-t", "y", "--policy", "mine.json"]);
    let output = support::output(&mut svp);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !printed.contains("verify"), "{printed}");
    let bad = format!("docker://{address}/bad:1");
    let printed = env.fails(65, ["pull", &bad, "-t", "z", "--allow-unverified"]);
    assert!(printed.contains("rejected by the policy"), "{printed}");
    // What is in the store has been judged.
    env.ok(["save", "x", "-o", "oci:saved"]);
}
