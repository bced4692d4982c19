//! What setup knew is what run has: the host name, and what depends on it.

use serde_json::Value;

use crate::e2e::run::{code, info, instance};
use crate::support::TestEnv;

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; esac\n";
/// Records the host name as a service does, in its data.
const BUILD: &str = "#!/bin/sh\nset -e\n\
    echo \"$1 $(hostname) $(grep -c \"$(hostname)\" /etc/hosts)\" >>/host\n";
const RUN: &str = "#!/bin/sh\nexec sleep 1000\n";

fn hosts(env: &TestEnv, service: &str) -> Vec<String> {
    let text = env.ok(["exec", service, "--", "sh", "-c", "cat /host; hostname; uname -n"]);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn setup_and_run_have_the_instances_host_name() {
    let env = TestEnv::new();
    instance(&env, "shop", QUERY, BUILD, RUN);
    env.ok(["run", "-d", "shop", "--network", "none"]);
    assert_eq!(hosts(&env, "shop"), ["base svp-build 1", "setup shop 1", "shop", "shop"]);
    // Also under another name, and from another tag: its data is that of setup.
    env.ok(["run", "-d", "shop", "--name", "two", "--network", "none"]);
    assert_eq!(hosts(&env, "two")[1..], ["setup shop 1", "shop", "shop"]);
    env.ok(["tag", "shop", "kiosk:2"]);
    env.ok(["run", "-d", "kiosk:2", "--network", "none"]);
    assert_eq!(hosts(&env, "kiosk-2")[1..], ["setup shop 1", "shop", "shop"]);
    // A restart and a restored copy keep it.
    env.ok(["restart", "two"]);
    assert_eq!(hosts(&env, "two")[2], "shop");
    // Unless the user wants another one.
    env.ok([
        "run",
        "-d",
        "shop",
        "--name",
        "three",
        "--hostname",
        "a.example.org",
        "--network",
        "none",
    ]);
    assert_eq!(hosts(&env, "three")[2..], ["a.example.org", "a.example.org"]);
    let entry = env.ok(["exec", "three", "--", "tail", "-n1", "/etc/hosts"]);
    assert_eq!(entry, "127.0.0.1\ta.example.org a\n");
    assert_eq!(info(&env, "three")["hostname"], "a.example.org");
    assert_eq!(info(&env, "two")["hostname"], "shop");
    for bad in ["", "a b", "-x", "a..b", &"x".repeat(65)] {
        assert_eq!(
            code(&env, &["run", "-d", "shop", "--name", "no", "--hostname", bad]),
            2,
            "{bad}"
        );
    }
}

#[test]
fn a_host_name_given_at_setup_goes_with_the_image() {
    let env = TestEnv::new();
    instance(&env, "shop", QUERY, BUILD, RUN);
    env.ok([
        "setup",
        "-i",
        "shop-base",
        "-t",
        "mail:1",
        "--hostname",
        "mx.example.org",
        "--network",
        "none",
    ]);
    env.ok(["save", "mail:1", "--allow-secrets", "-o", "oci-archive:mail.tar"]);
    env.ok(["rmi", "mail:1"]);
    env.ok(["load", "-i", "mail.tar"]);
    env.ok(["run", "-d", "mail:1", "--network", "none"]);
    let found = hosts(&env, "mail-1");
    assert_eq!(found[1..], ["setup mx.example.org 1", "mx.example.org", "mx.example.org"]);
    // An instance on the same base without the option does not inherit it.
    env.ok(["setup", "-i", "shop-base", "-t", "plain", "--network", "none"]);
    let config: Value = serde_json::from_str(&env.ok(["inspect", "plain", "--config"])).unwrap();
    assert_eq!(config["config"]["Labels"]["dev.servicepack.hostname"], Value::Null);
}

#[test]
fn a_build_of_all_phases_has_the_instances_host_name() {
    let env = TestEnv::new();
    env.import_busybox();
    let files = [("bin/query", QUERY), ("bin/build", BUILD), ("bin/run", RUN)];
    let pack = env.write_pack("pack", &files);
    let pack = pack.to_str().unwrap();
    let common = ["build", "-b", pack, "--base", "busybox", "--network", "none"];
    let name = "x".repeat(60);
    let long = format!("{name}:abcdefgh");
    env.ok([&common[..], &["-t", &long, "--phase", "all"]].concat());
    env.ok(["run", "-d", &long, "--name", "one", "--network", "none"]);
    let host = format!("{name}-abc");
    assert_eq!(hosts(&env, "one"), [format!("all {host} 1"), host.clone(), host]);
    let base = [&common[..], &["-t", "b", "--hostname", "x"]].concat();
    assert_eq!(code(&env, &base), 2);
}
