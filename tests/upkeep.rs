//! The commands that keep the store in order, through the binary.

mod support;

use serde_json::Value;
use support::{Place, busybox_base};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn import(place: &Place, name: &str) -> String {
    let file = busybox_base();
    place.ok(["import", file.to_str().unwrap(), "-t", name]).trim().to_owned()
}

#[test]
fn an_image_is_inspected_whole_in_parts_and_by_a_field() {
    let place = Place::new();
    let digest = import(&place, "a");
    let told = json(&place.ok(["inspect", "a", "--format", "json"]));
    let manifest = place.ok(["inspect", "a", "--raw"]);
    let config = place.ok(["inspect", "a", "--config", "--raw"]);
    for (name, raw) in [(&digest, &manifest), (&field(&place, "configDigest"), &config)] {
        let blob = place.store().join("blobs/sha256").join(name.trim().replace("sha256:", ""));
        assert_eq!(raw.as_bytes(), std::fs::read(blob).unwrap());
    }
    assert_eq!(json(&place.ok(["inspect", "a", "--manifest"])), json(&manifest));
    assert_eq!(json(&place.ok(["inspect", "a", "--config"])), json(&config));
    assert_eq!(json(&config), told["config"]);
    assert_eq!(field(&place, "digest"), format!("{digest}\n"));
    assert_eq!(field(&place, "layers.0.digest").trim(), told["layers"][0]["digest"]);
    assert_eq!(place.ok(["inspect", "a", "--config", "--field", "os"]), "linux\n");
    assert!(place.fails(65, ["inspect", "a", "--field", "nope"]).contains("configDigest"));
    place.fails(2, ["inspect", "a", "--manifest", "--config"]);
    place.fails(2, ["inspect", "a", "--raw", "--field", "digest"]);

    let history = json(&place.ok(["history", "a", "--format", "json"]));
    assert_eq!(history[0]["layer"], told["layers"][0]["digest"]);
    assert_eq!(history[0]["size"], told["size"]);
    assert!(place.ok(["history", "a"]).contains("import"), "{history}");
    assert!(place.fails(65, ["history", "nothing"]).contains("nothing:latest"));
}

fn field(place: &Place, name: &str) -> String {
    place.ok(["inspect", "a", "--field", name])
}
