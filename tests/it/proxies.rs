//! Proxies: plain http to an insecure registry goes through the one of `HTTP_PROXY`.

use crate::support::fault_registry::{FaultRegistry, Reply, Seen};
use crate::support::{TestEnv, output};
use svp::oci::media_type::MANIFEST;

/// A host that does not exist: only the proxy knows it.
const REGISTRY: &str = "registry.invalid:5000";

/// Returns an environment with an image, and a proxy that answers for the registry, as plain proxies do: no tunnels.
fn world() -> (TestEnv, FaultRegistry) {
    let env = TestEnv::new();
    env.import_busybox();
    let manifest = env.ok(["inspect", "busybox", "--raw"]).into_bytes();
    let blobs = env.store().join("blobs/sha256");
    let proxy = FaultRegistry::start(move |seen| {
        let prefix = format!("http://{REGISTRY}/v2/");
        let Some(path) = seen.target.strip_prefix(&prefix) else {
            return Reply::status(405).body("no tunnels");
        };
        assert_eq!(seen.header("host"), Some(REGISTRY));
        match (seen.method.as_str(), path.rsplit_once('/')) {
            ("GET", Some(("team/a/manifests", _))) => {
                Reply::status(200).header("Content-Type", MANIFEST).body(&manifest)
            }
            ("GET", Some(("team/a/blobs", digest))) => {
                Reply::status(200).body(std::fs::read(blobs.join(&digest[7..])).unwrap())
            }
            ("HEAD", _) => Reply::status(404),
            ("POST", _) => Reply::status(202).header("Location", "/v2/team/a/up/1").body(""),
            ("PUT", _) => Reply::status(201).body(""),
            other => panic!("{other:?}"),
        }
    });
    (env, proxy)
}

/// Runs `svp ARGUMENTS` with these variables and no others of proxies; returns the exit code and stderr.
fn svp(env: &TestEnv, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut svp = env.svp(arguments);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        svp.env_remove(name);
    }
    let result = output(svp.envs(variables.iter().copied()));
    (result.status.code(), String::from_utf8_lossy(&result.stderr).into_owned())
}

fn forwarded(proxy: &FaultRegistry) -> Vec<Seen> {
    proxy.seen().into_iter().filter(|seen| seen.target.starts_with("http://")).collect()
}

#[test]
fn an_insecure_registry_is_reached_through_the_proxy_for_plain_http() {
    let (env, proxy) = world();
    let url = format!("http://{}", proxy.address());
    let with_login = format!("http://us%65r:hunter2@{}", proxy.address());
    let source = format!("docker://{REGISTRY}/team/a:1");
    let pull = ["pull", &source, "-t", "got", "--tls-verify=false"];
    for variables in [
        &[("HTTP_PROXY", url.as_str())][..],
        &[("http_proxy", url.as_str()), ("no_proxy", "other.invalid,10.0.0.0/8")],
        &[("ALL_PROXY", url.as_str())],
        &[("HTTP_PROXY", url.as_str()), ("HTTPS_PROXY", url.as_str())],
        &[("HTTP_PROXY", with_login.as_str())],
    ] {
        let before = forwarded(&proxy).len();
        let (code, printed) = svp(&env, &pull, variables);
        assert_eq!(code, Some(0), "{variables:?}: {printed}");
        assert!(forwarded(&proxy).len() > before, "{variables:?}");
    }
    let last = forwarded(&proxy).pop().unwrap();
    // "user:hunter2"
    assert_eq!(last.header("proxy-authorization"), Some("Basic dXNlcjpodW50ZXIy"));
    let push = ["push", "busybox", &source, "--tls-verify=false"];
    let (code, printed) = svp(&env, &push, &[("HTTP_PROXY", &url)]);
    assert_eq!(code, Some(0), "{printed}");
    let manifest = forwarded(&proxy).pop().unwrap();
    assert_eq!((manifest.method.as_str(), manifest.path().ends_with("manifests/1")), ("PUT", true));
}

#[test]
fn a_registry_of_registries_conf_goes_the_same_way() {
    let (env, proxy) = world();
    let dir = env.dir().join("home/.config/containers");
    std::fs::create_dir_all(&dir).unwrap();
    let text = format!("[[registry]]\nlocation = \"{REGISTRY}\"\ninsecure = true\n");
    std::fs::write(dir.join("registries.conf"), text).unwrap();
    let url = format!("http://{}", proxy.address());
    let source = format!("docker://{REGISTRY}/team/a:1");
    let (code, printed) = svp(&env, &["pull", &source], &[("HTTP_PROXY", &url)]);
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn exceptions_loopback_and_secure_registries_are_not_forwarded() {
    let (env, proxy) = world();
    let url = format!("http://{}", proxy.address());
    let source = format!("docker://{REGISTRY}/team/a:1");
    let insecure = ["pull", &source, "--tls-verify=false"];
    let (code, printed) =
        svp(&env, &insecure, &[("HTTP_PROXY", &url), ("NO_PROXY", "registry.invalid")]);
    assert!(code == Some(69) && printed.contains("host registry.invalid"), "{printed}");
    let (code, printed) = svp(&env, &["pull", &source], &[("HTTP_PROXY", &url)]);
    assert!(code == Some(69) && printed.contains("host registry.invalid"), "{printed}");
    let local = FaultRegistry::start(|_| Reply::status(404).body(""));
    let source = format!("docker://{}/team/a:1", local.address());
    svp(&env, &["pull", &source], &[("HTTP_PROXY", &url)]);
    assert!(!local.seen().is_empty());
    assert!(forwarded(&proxy).is_empty());
}

#[test]
fn a_failing_proxy_is_named() {
    let env = TestEnv::new();
    let source = format!("docker://{REGISTRY}/team/a:1");
    let pull = ["pull", &source, "--tls-verify=false"];
    let proxy = FaultRegistry::start(|_| Reply::status(407).body("who are you?"));
    let url = format!("http://{}", proxy.address());
    let (code, printed) = svp(&env, &pull, &[("HTTP_PROXY", &url)]);
    let told = printed.contains("proxy") && printed.contains("requires a login (who are you?)");
    assert!(code == Some(69) && told, "{printed}");
    drop(proxy);
    let (code, printed) = svp(&env, &pull, &[("HTTP_PROXY", &url)]);
    assert!(code == Some(69) && printed.contains("HTTP_PROXY"), "{printed}");
    let (code, printed) = svp(&env, &pull, &[("HTTP_PROXY", "socks9://user:hunter2@x")]);
    assert!(code == Some(2) && printed.contains("HTTP_PROXY"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_proxy_that_is_not_needed_need_not_be_understood() {
    let (env, _) = world();
    let local = FaultRegistry::start(|_| Reply::status(404).body(""));
    let source = format!("docker://{}/team/a:1", local.address());
    let (code, printed) = svp(&env, &["pull", &source], &[("HTTP_PROXY", "socks5h://x:1")]);
    assert_eq!(code, Some(69), "{printed}");
    assert!(!local.seen().is_empty() && !printed.contains("HTTP_PROXY"), "{printed}");
}
