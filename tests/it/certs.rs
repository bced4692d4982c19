//! certs.d through the program: registries with their own authority, and registries that require client certificates.

use std::fs;
use std::path::PathBuf;

use crate::support;
use crate::support::TestEnv;
use crate::support::real_registry::{RealRegistry, Setup};

/// Creates the user's certs.d directory of the registry.
fn directory(env: &TestEnv, registry: &RealRegistry) -> PathBuf {
    let dir = env.dir().join("home/.config/containers/certs.d").join(&registry.address);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn an_authority_is_trusted_for_its_registry_only() {
    let env = TestEnv::new();
    let setup = Setup { tls: true, ..Setup::default() };
    let (one, two) = (RealRegistry::start(&setup), RealRegistry::start(&setup));
    let image = one.push("app:1");
    two.push("app:1");
    let name = format!("docker://{}/app:1", one.address);
    let printed = env.fails(69, ["pull", &name, "-t", "x"]);
    assert!(
        printed.contains("is not trusted") && printed.contains("certs.d/HOST:PORT"),
        "{printed}"
    );

    let dir = directory(&env, &one);
    fs::copy(one.ca_file(), dir.join("ca.crt")).unwrap();
    assert_eq!(env.ok(["pull", &name, "-t", "x"]).trim(), image.manifest.to_string());
    let mut skopeo = env.skopeo();
    skopeo.args(["inspect", "--format", "{{.Digest}}", &name]);
    assert_eq!(support::success(&mut skopeo).trim(), image.manifest.to_string());
    // The first registry's authority must not vouch for the second.
    let other = format!("docker://{}/app:1", two.address);
    directory(&env, &two);
    env.fails(69, ["pull", &other, "-t", "x"]);
    fs::remove_dir_all(dir).unwrap();
    env.fails(69, ["pull", &name, "-t", "x"]);
}

#[test]
fn a_self_signed_certificate_is_trusted_once_configured() {
    let env = TestEnv::new();
    let setup = Setup { tls: true, self_signed: true, ..Setup::default() };
    let (one, two) = (RealRegistry::start(&setup), RealRegistry::start(&setup));
    let image = one.push("app:1");
    let name = format!("docker://{}/app:1", one.address);
    let (own, other) = (one.ca_file(), two.ca_file());
    for trusted in [&[][..], &["--cacert", other.to_str().unwrap()]] {
        let printed = env.fails(69, ["pull", &name, "-t", "x"].iter().chain(trusted));
        assert!(printed.contains("is not trusted"), "{printed}");
    }
    let cacert = own.to_str().unwrap();
    let pulled = env.ok(["pull", &name, "-t", "x", "--cacert", cacert]);
    assert_eq!(pulled.trim(), image.manifest.to_string());
    // Under a name that is not in the certificate.
    let port = one.address.rsplit_once(':').unwrap().1;
    let elsewhere = format!("docker://localhost:{port}/app:1");
    let printed = env.fails(69, ["pull", &elsewhere, "-t", "y", "--cacert", cacert]);
    assert!(printed.contains("not valid for name"), "{printed}");

    fs::copy(&own, directory(&env, &one).join("ca.crt")).unwrap();
    env.ok(["pull", &name, "-t", "y"]);
}

#[test]
fn the_client_presents_the_certificate_for_the_registry() {
    let env = TestEnv::new();
    let registry =
        RealRegistry::start(&Setup { tls: true, client: true, password: true, ..Setup::default() });
    registry.push("app:1");
    let name = format!("docker://{}/app:1", registry.address);
    let auth = registry.auth_file(RealRegistry::PASSWORD).display().to_string();
    let dir = directory(&env, &registry);
    fs::copy(registry.ca_file(), dir.join("ca.crt")).unwrap();
    let pull = ["pull", &name, "-t", "x", "--authfile", &auth];
    for _ in 0..5 {
        let printed = env.fails(69, pull);
        assert!(
            printed.contains("client certificate") && printed.contains("--cert-dir"),
            "{printed}"
        );
    }
    let (cert, key) = registry.client_files();
    fs::copy(&cert, dir.join("client.cert")).unwrap();
    let printed = env.fails(65, pull);
    assert!(printed.contains("client.key"), "{printed}");
    fs::copy(&key, dir.join("client.key")).unwrap();
    env.ok(pull);
    env.ok(["push", "x", &format!("docker://{}/again:1", registry.address), "--authfile", &auth]);

    // With several certificates, svp picks the one that the registry's authority signed.
    let stranger = dir.join("a-stranger.cert").display().to_string();
    let its_key = dir.join("a-stranger.key").display().to_string();
    let make =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let of = ["-subj", "/CN=stranger", "-days", "2", "-out", &stranger, "-keyout", &its_key];
    support::run("openssl", make.iter().chain(&of));
    env.ok(pull);
    fs::remove_file(dir.join("client.key")).unwrap();
    fs::remove_file(dir.join("client.cert")).unwrap();
    for _ in 0..5 {
        let printed = env.fails(69, pull);
        assert!(printed.contains("client certificate"), "{printed}");
    }
    fs::remove_file(&stranger).unwrap();
    fs::remove_file(&its_key).unwrap();

    // A key that does not match the certificate.
    fs::copy(&cert, dir.join("client.cert")).unwrap();
    fs::copy(registry.ca_file().with_file_name("server.key"), dir.join("client.key")).unwrap();
    let printed = env.fails(65, pull);
    assert!(printed.contains("client.cert"), "{printed}");
    // --cert-dir replaces certs.d.
    let named = env.path("certs");
    fs::create_dir(&named).unwrap();
    fs::copy(registry.ca_file(), named.join("a.crt")).unwrap();
    fs::copy(&cert, named.join("b.cert")).unwrap();
    fs::copy(&key, named.join("b.key")).unwrap();
    env.ok([&pull[..], &["--cert-dir", named.to_str().unwrap()]].concat());
    fs::remove_file(named.join("a.crt")).unwrap();
    let printed = env.fails(69, [&pull[..], &["--cert-dir", named.to_str().unwrap()]].concat());
    assert!(printed.contains("is not trusted"), "{printed}");
    env.ok([&pull[..], &["--cert-dir", named.to_str().unwrap(), "--tls-verify=false"]].concat());
    let missing = env.path("none").display().to_string();
    env.fails(74, [&pull[..], &["--cert-dir", &missing]].concat());
    env.assert_nothing_left();
}
