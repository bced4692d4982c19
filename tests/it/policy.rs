//! policy.json through the program, compared with skopeo.

use std::fs;

use crate::support;
use crate::support::TestEnv;
use crate::support::real_registry::{RealRegistry, Setup};
use serde_json::{Value, json};

/// Writes the user's policy.json, which skopeo reads too.
fn allow(place: &TestEnv, default: &str, transports: &Value) {
    let dir = place.dir().join("home/.config/containers");
    fs::create_dir_all(&dir).unwrap();
    let policy = json!({"default": [{"type": default}], "transports": transports});
    fs::write(dir.join("policy.json"), policy.to_string()).unwrap();
}

/// Returns whether svp accepts the image, after checking that skopeo agrees.
#[track_caller]
fn taken(place: &TestEnv, source: &str) -> bool {
    let target = place.path("of-skopeo");
    let _ = fs::remove_dir_all(&target);
    let mut skopeo = place.command("skopeo");
    skopeo.args(["copy", "--src-tls-verify=false", source, &format!("oci:{}:x", target.display())]);
    let theirs = support::output(&mut skopeo);
    let mut svp = place.svp(["pull", source, "-t", "x"]);
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
        assert!(
            printed.contains("rejected by the policy") && printed.contains("policy.json"),
            "{printed}"
        );
    }
    ours.status.success()
}

#[test]
fn what_is_rejected_is_not_brought_in() {
    let place = TestEnv::new();
    let registry = RealRegistry::start(&Setup::default());
    registry.push("team/app:1");
    registry.push("team/app:2");
    place.import_busybox();
    place.ok(["save", "busybox", "-o", "oci-archive:a.tar"]);
    place.ok(["save", "busybox", "-o", "docker-archive:d.tar"]);
    place.ok(["save", "busybox", "-o", "oci:layout"]);
    let work = fs::canonicalize(place.path("")).unwrap();
    let address = registry.address.clone();
    let (accept, reject) =
        (json!([{"type": "insecureAcceptAnything"}]), json!([{"type": "reject"}]));
    let image = |tag: &str| format!("docker://{address}/team/app:{tag}");

    allow(&place, "reject", &json!({"docker": {(format!("{address}/team/app:1")): accept}}));
    assert!(taken(&place, &image("1")));
    assert!(!taken(&place, &image("2")));
    assert!(!taken(&place, "oci-archive:a.tar"));
    assert!(!taken(&place, "docker-archive:d.tar"));
    assert!(!taken(&place, "oci:layout:busybox:latest"));

    let transports = json!({
        "docker": {"": accept, (format!("{address}/team")): reject},
        "oci": {(work.display().to_string()): accept},
        "oci-archive": {(work.join("a.tar").display().to_string()): accept, "": reject},
        "docker-archive": {"": accept},
    });
    allow(&place, "reject", &transports);
    assert!(!taken(&place, &image("1")));
    assert!(taken(&place, "oci:layout:busybox:latest"));
    assert!(taken(&place, "oci-archive:a.tar"));
    assert!(taken(&place, "docker-archive:d.tar"));
    fs::copy(place.path("a.tar"), place.path("b.tar")).unwrap();
    assert!(!taken(&place, "oci-archive:b.tar"));

    place.ok(["load", "-i", "a.tar"]);
    place.fails(65, ["load", "-i", "b.tar"]);
    place.ok(["load", "-i", "d.tar"]);
    // Images of the store are not judged again.
    place.ok(["push", "busybox", &format!("docker://{address}/other:1")]);
    let printed = place.fails(65, ["copy", &image("1"), "oci:out:x"]);
    assert!(printed.contains("its scope"), "{printed}");
    place.assert_nothing_left();
}

#[test]
fn a_policy_may_be_named_and_one_that_is_wrong_is_an_error() {
    let place = TestEnv::new();
    place.import_busybox();
    place.ok(["save", "busybox", "-o", "oci-archive:a.tar"]);
    allow(&place, "reject", &json!({}));
    let pull = ["pull", "oci-archive:a.tar", "-t", "x"];
    place.fails(65, pull);
    fs::write(place.path("mine.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
        .unwrap();
    place.ok([&pull[..], &["--policy", "mine.json"]].concat());
    place.ok(["load", "-i", "a.tar", "--policy", "mine.json"]);
    place.fails(74, [&pull[..], &["--policy", "none.json"]].concat());

    fs::write(place.path("mine.json"), "{\n\"default\": [{\"type\": \"reject\"}],\n\"dflt\": 1}")
        .unwrap();
    let printed = place.fails(65, [&pull[..], &["--policy", "mine.json"]].concat());
    assert!(printed.contains("mine.json") && printed.contains("line 3"), "{printed}");
    place.ok(["inspect", "busybox"]);
}

#[test]
fn a_signature_that_is_wanted_is_spoken_of_once() {
    let place = TestEnv::new();
    let registry = RealRegistry::start(&Setup::default());
    let image = registry.push("app:1");
    let signed = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}]);
    let address = &registry.address;
    allow(&place, "insecureAcceptAnything", &json!({"docker": {(address.as_str()): signed}}));
    let name = format!("docker://{address}/app:1");
    let mut svp = place.svp(["pull", &name, "-t", "x"]);
    let output = support::output(&mut svp);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), image.manifest.to_string());
    assert_eq!(printed.matches("does not verify signatures").count(), 1, "{printed}");
}
