//! Pulls from a real registry: Debian's docker-registry on loopback, filled by skopeo.

use std::io::Read;

use crate::support::real_registry::{RealRegistry, Setup};
use crate::support::registry::connect;
use svp::error::Kind;
use svp::oci::{Digest, DigestReader, Reference};
use svp::registry::{AuthFiles, Client, ClientOptions, read_error};

fn options() -> ClientOptions {
    ClientOptions { retries: 0, ..ClientOptions::isolated() }
}

fn reference(registry: &RealRegistry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.address).parse().unwrap()
}

/// Pulls manifest, config and layers, and verifies them.
fn pull(client: &Client, reference: &Reference) -> svp::error::Result<Vec<u8>> {
    let manifest = client.manifest(reference)?;
    let parsed: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let mut last = Vec::new();
    let layers = parsed["layers"].as_array().unwrap();
    for descriptor in std::iter::once(&parsed["config"]).chain(layers) {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let size = descriptor["size"].as_u64().unwrap();
        let blob = client.blob(reference, &digest, size)?;
        last.clear();
        DigestReader::expecting(blob, digest, Some(size))
            .read_to_end(&mut last)
            .map_err(read_error)?;
    }
    Ok(last)
}

#[test]
fn plain_on_loopback() {
    let registry = RealRegistry::start(&Setup::default());
    let image = registry.push("team/a:1");
    let client = connect(options()).unwrap();
    assert_eq!(pull(&client, &reference(&registry, "team/a:1")).unwrap(), image.layer);
    let by_digest = reference(&registry, &format!("team/a@{}", image.manifest));
    assert_eq!(client.manifest(&by_digest).unwrap().digest, image.manifest);

    let error = client.manifest(&reference(&registry, "team/a:2")).unwrap_err();
    assert_eq!(error.kind(), Kind::Registry);
    assert!(error.to_string().contains("no tag 2 in team/a"), "{error}");
    assert_eq!(error.hint_text(), Some("its tags: 1"));
    let error = client.manifest(&reference(&registry, "team/b:1")).unwrap_err();
    assert!(error.to_string().contains("no repository team/b"), "{error}");
    let missing = Digest::of("missing");
    let error = client.blob(&reference(&registry, "team/a:1"), &missing, 7).err().unwrap();
    assert!(error.to_string().contains("does not have the blob"), "{error}");
}

#[test]
fn a_password_is_required_and_used() {
    let registry = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    let image = registry.push("a:1");
    let reference = reference(&registry, "a:1");

    let error = connect(options()).unwrap().manifest(&reference).unwrap_err();
    assert!(error.to_string().contains("requires a login"), "{error}");
    assert!(error.hint_text().unwrap().contains("--authfile"), "{error:?}");

    let with = |password: &str| {
        let auth_files = AuthFiles::only(registry.auth_file(password));
        connect(ClientOptions { auth_files, ..options() }).unwrap()
    };
    assert_eq!(pull(&with(RealRegistry::PASSWORD), &reference).unwrap(), image.layer);
    let error = pull(&with("hunter2"), &reference).unwrap_err();
    assert!(error.to_string().contains("refuses the login in"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn tls_needs_a_trusted_authority() {
    let registry = RealRegistry::start(&Setup { tls: true, ..Setup::default() });
    let image = registry.push("a:1");
    let reference = reference(&registry, "a:1");

    let error = connect(options()).unwrap().manifest(&reference).unwrap_err();
    assert!(error.to_string().contains("is not trusted"), "{error}");
    assert!(error.hint_text().unwrap().contains("--cacert"), "{error:?}");

    let trusting = ClientOptions { cacert: vec![registry.ca_file()], ..options() };
    let client = connect(trusting).unwrap();
    assert_eq!(pull(&client, &reference).unwrap(), image.layer);
}

#[test]
fn threads_share_a_client() {
    let registry = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    let image = registry.push("a:1");
    let reference = reference(&registry, "a:1");
    let auth_files = AuthFiles::only(registry.auth_file(RealRegistry::PASSWORD));
    let client = connect(ClientOptions { auth_files, ..options() }).unwrap();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..8).map(|_| scope.spawn(|| pull(&client, &reference))).collect();
        for result in pulls {
            assert_eq!(result.join().unwrap().unwrap(), image.layer);
        }
    });
}
