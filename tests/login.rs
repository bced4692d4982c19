//! `svp login` and `logout`, with Debian's docker-registry, side by side with skopeo.

#[path = "support/real_registry.rs"]
mod real_registry;
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use real_registry::{RealRegistry, Setup};
use support::Place;

fn with_input(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that fails early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn login(place: &Place, registry: &RealRegistry, password: &str) -> Output {
    let ca = registry.ca_file();
    let mut svp = place.svp(["login", "-u", RealRegistry::USER, "--password-stdin"]);
    svp.arg(&registry.address).arg("--cacert").arg(ca);
    with_input(svp, password)
}

#[test]
fn a_login_serves_svp_and_skopeo_and_goes_again() {
    let place = Place::new();
    let registry = RealRegistry::start(&Setup { password: true, tls: true, client: false });
    let ca = registry.ca_file().display().to_string();
    place.import_busybox();
    let to = format!("docker://{}/team/base:1", registry.address);
    let push = ["push", "busybox", &to, "--cacert", &ca];
    place.fails(69, push);

    let file = place.dir().join("run/containers/auth.json");
    let output = login(&place, &registry, "wrong secret\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("refuses this user name and password"), "{told}");
    assert!(!told.contains("wrong secret"), "{told}");
    assert!(!file.exists());

    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, r#"{"auths":{"other.example":{"auth":"eDp5"}},"unknown":[1]}"#).unwrap();
    let output = login(&place, &registry, &format!("{}\n", RealRegistry::PASSWORD));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("other.example") && text.contains("unknown"), "{text}");
    assert!(!text.contains(RealRegistry::PASSWORD));

    let digest = place.ok(push);
    let mut skopeo = place.command("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to]);
    assert_eq!(support::success(&mut skopeo), digest);

    place.ok(["logout", &registry.address]);
    assert!(fs::read_to_string(&file).unwrap().contains("other.example"));
    place.fails(69, push);
    let told = place.fails(2, ["logout", &registry.address]);
    assert!(told.contains("no login"), "{told}");
    place.assert_nothing_left();
}

#[test]
fn skopeos_login_serves_svp_and_an_authfile_may_be_new() {
    let place = Place::new();
    let registry = RealRegistry::start(&Setup { password: true, tls: false, client: false });
    let authfile = place.path("new/auth.json");
    let mut skopeo = place.command("skopeo");
    skopeo.args(["login", "--tls-verify=false", "-u", RealRegistry::USER, "--password-stdin"]);
    skopeo.arg("--authfile").arg(place.path("skopeo.json")).arg(&registry.address);
    let output = with_input(skopeo, RealRegistry::PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place.import_busybox();
    let to = format!("docker://{}/team/base:1", registry.address);
    let file = place.path("skopeo.json");
    place.ok(["push", "busybox", &to, "--authfile", file.to_str().unwrap()]);

    let mut svp = place.svp(["login", "-u", RealRegistry::USER, "--password-stdin"]);
    svp.arg("--authfile").arg(&authfile).arg(&registry.address);
    let output = with_input(svp, RealRegistry::PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place.ok(["pull", &to, "-t", "again", "--authfile", authfile.to_str().unwrap()]);
    place.ok(["logout", "--all", "--authfile", authfile.to_str().unwrap()]);
    place.fails(69, ["pull", &to, "-t", "x", "--authfile", authfile.to_str().unwrap()]);
}

#[test]
fn what_can_not_be_is_refused() {
    let place = Place::new();
    let file = place.path("auth.json");
    let authfile = file.to_str().unwrap();
    let cases: [(i32, &[&str], &str); 4] = [
        (2, &["login", "-u", "u", "localhost:1"], "--password-stdin"),
        (2, &["login", "--password-stdin", "localhost:1"], "--username"),
        (2, &["logout", "debian"], "docker.io"),
        (2, &["logout", "localhost:1", "--authfile", authfile], "no login"),
    ];
    for (code, arguments, said) in cases {
        let told = place.fails(code, arguments);
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
    for text in ["[]", "{", r#"{"auths":[]}"#, r#"{"auths":{},"credsStore":"x"}"#] {
        fs::write(&file, text).unwrap();
        let registry = RealRegistry::start(&Setup::default());
        let mut svp = place.svp(["login", "-u", "u", "--password-stdin", "--authfile", authfile]);
        svp.arg(&registry.address);
        let output = with_input(svp, "p");
        assert_eq!(
            output.status.code(),
            Some(65),
            "{text}: {}",
            support::told(&Command::new("svp"), &output)
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}
