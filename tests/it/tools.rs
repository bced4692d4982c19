//! The prerequisites of the other tests: the bases, the registry and the other tools work here.

use crate::support;
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::{TestEnv, busybox_base, check_schema, conformance, success};

/// Returns a layout made by umoci, with one image, `base`.
fn umoci_layout(env: &TestEnv) -> std::path::PathBuf {
    let layout = env.path("layout");
    let image = format!("{}:base", layout.display());
    success(env.command("umoci").args(["init", "--layout"]).arg(&layout));
    success(env.command("umoci").args(["new", "--image", &image]));
    let mut add = env.command("umoci");
    add.args(["raw", "add-layer", "--image", &image]).arg(busybox_base());
    success(&mut add);
    layout
}

#[test]
fn a_umoci_layout_passes_the_registry_and_the_checkers() {
    let env = TestEnv::new();
    let layout = umoci_layout(&env);
    let registry = Registry::start();
    let remote = format!("docker://{}/base:1", registry.host());
    let back = env.path("back");
    let local = format!("oci:{}:base", layout.display());
    let mut copy = env.skopeo();
    success(copy.args(["copy", "--dest-tls-verify=false", &local, &remote]));
    let mut copy = env.skopeo();
    let target = format!("oci:{}:base", back.display());
    success(copy.args(["copy", "--src-tls-verify=false", &remote, &target]));

    assert!(conformance(&back).contains("1 images, 1 layers"));
    check_schema("image-index-schema", &back.join("index.json"));
    check_schema("image-layout-schema", &back.join("oci-layout"));
}

#[test]
#[should_panic(expected = "not an image manifest")]
fn the_checker_rejects_an_invalid_layout() {
    let env = TestEnv::new();
    let layout = umoci_layout(&env);
    let index = layout.join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("image.manifest.v1", "image.other.v1")).unwrap();
    conformance(&layout);
}

#[test]
#[should_panic(expected = "schemaVersion")]
fn the_schema_rejects_an_invalid_document() {
    let env = TestEnv::new();
    let file = env.path("index.json");
    std::fs::write(&file, r#"{"schemaVersion": 1, "manifests": []}"#).unwrap();
    check_schema("image-index-schema", &file);
}

#[test]
fn a_registry_requires_a_login() {
    let env = TestEnv::new();
    let registry = Registry::start_with_login("tester", "right");
    let list = |credentials: &str| {
        let mut skopeo = env.skopeo();
        let image = format!("docker://{}/nothing", registry.host());
        skopeo.args(["list-tags", "--tls-verify=false", "--creds", credentials, &image]);
        String::from_utf8_lossy(&support::output(&mut skopeo).stderr).into_owned()
    };
    let refused = list("tester:wrong");
    assert!(
        refused.contains("authentication required") || refused.contains("unauthorized"),
        "{refused}"
    );
    let unknown = list("tester:right");
    assert!(unknown.contains("404"), "{unknown}");
}

#[test]
fn svp_starts() {
    let env = TestEnv::new();
    success(&mut env.svp(["--version"]));
    env.assert_nothing_left();
}

#[test]
fn podman_loads_and_runs() {
    let env = TestEnv::new();
    let layout = umoci_layout(&env);
    let archive = env.path("image.tar");
    let mut copy = env.skopeo();
    copy.arg("copy").arg(format!("oci:{}:base", layout.display()));
    success(copy.arg(format!("oci-archive:{}:localhost/base:1", archive.display())));

    let podman = Podman::new(&env);
    assert_eq!(podman.load(&archive), "localhost/base:1");
    assert_eq!(podman.run(&["--network=none", "localhost/base:1", "/bin/echo", "hi"]), "hi\n");
    let sleeper = podman.start(&["--network=host", "localhost/base:1", "/bin/sleep", "1000"]);
    let user = sleeper.exec_until_ok(std::time::Duration::from_secs(20), &["/bin/id", "-u"]);
    assert_eq!(user, "0\n");
}
