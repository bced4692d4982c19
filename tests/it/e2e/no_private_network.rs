//! Hosts without pasta or without its device: the host's network is used only where the user has allowed it, or in a
//! container of CI.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::common::pack_with;
use super::run::instance;
use crate::support::{TestEnv, as_root, output, transcript};

const NO_PASTA: &str = "mount --bind /dev/null /usr/bin/pasta";
const NO_TUN: &str = "mount -t tmpfs tmpfs /dev/net";
const BROKEN_TUN: &str = "mount --bind /dev/null /dev/net/tun";

/// Returns `svp ARGUMENTS` in a mount namespace that `setup` has changed, with further options of unshare.
fn enclosed(env: &TestEnv, options: &[&str], setup: &str, arguments: &[&str]) -> Command {
    let mut command = env.command("unshare");
    if !as_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.args(["--mount"]).args(options);
    let script = format!("{setup}; exec \"$SVP\" \"$@\"");
    command.args(["sh", "-euc", &script, "sh"]).args(arguments);
    command.env("SVP", env!("CARGO_BIN_EXE_svp"));
    command
}

fn ran(command: &mut Command) -> (Output, String) {
    let result = output(command);
    let text = transcript(command, &result);
    (result, text)
}

fn configure(env: &TestEnv, text: &str) {
    let dir = env.dir().join("home/.config/svp");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), text).unwrap();
}

/// Whether the tests themselves run in a container, which svp recognises.
fn in_container() -> bool {
    let separate = !Path::new("/proc/sys/net/core/netdev_max_backlog").exists();
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists());
    separate && (marked || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some())
}

/// An environment with a pack that prints the network namespace of its script.
fn prepared() -> (TestEnv, PathBuf) {
    let env = TestEnv::new();
    env.import_busybox();
    configure(&env, "");
    let pack = pack_with(&env, "net", "echo namespace $(readlink /proc/self/ns/net)");
    (env, pack)
}

fn build<'a>(pack: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["build", "-b", pack.to_str().unwrap(), "-t", "net", "--base", "busybox"];
    start.into_iter().chain(more.iter().copied()).collect()
}

/// Returns the finding `network` of `svp check`, and its exit code.
fn check(env: &TestEnv, options: &[&str], setup: &str) -> (Value, i32) {
    let (result, text) = ran(&mut enclosed(env, options, setup, &["check", "--format", "json"]));
    let all: Value = serde_json::from_slice(&result.stdout).unwrap_or_else(|_| panic!("{text}"));
    let found = all.as_array().unwrap().iter().find(|one| one["what"] == "network").unwrap();
    (found.clone(), result.status.code().unwrap())
}

#[test]
fn without_pasta_a_build_fails_until_the_user_chooses_a_network() {
    if in_container() {
        return;
    }
    let (env, pack) = prepared();
    let cases = [
        (NO_PASTA, "no private network: pasta is not installed", "passt"),
        (NO_TUN, "no private network: /dev/net/tun is missing", "modprobe tun"),
        (BROKEN_TUN, "no private network: pasta", "--network host"),
    ];
    for (setup, cause, remedy) in cases {
        for more in [&[][..], &["-q"][..], &["--progress", "json"][..]] {
            let (result, text) = ran(&mut enclosed(&env, &[], setup, &build(&pack, more)));
            assert_eq!(result.status.code(), Some(77), "{text}");
            assert!(text.contains(cause) && text.contains(remedy), "{text}");
            for way in ["--network host", "--network none", "[network] fallback = ", "config.toml"]
            {
                assert!(text.contains(way), "{way}: {text}");
            }
            // Only where that is the cause.
            assert_eq!(text.contains("modprobe tun"), setup == NO_TUN, "{text}");
            env.assert_nothing_left();
        }
        let (finding, code) = check(&env, &[], setup);
        assert!(code == 77 && finding["ok"] == false && finding["required"] == true, "{finding}");
        assert!(finding["detail"].as_str().unwrap().contains(cause), "{finding}");
    }
    // The ways out.
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    for (network, is_host) in [("host", true), ("none", false)] {
        let (result, text) =
            ran(&mut enclosed(&env, &[], NO_PASTA, &build(&pack, &["--network", network])));
        assert!(result.status.success(), "{text}");
        assert_eq!(text.contains(&format!("namespace {}", host.display())), is_host, "{text}");
    }
}

#[test]
fn the_configuration_names_the_network_that_replaces_a_private_one() {
    let (env, pack) = prepared();
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    for (fallback, is_host, words) in
        [("host", true, "using the host's network"), ("none", false, "there is no network")]
    {
        configure(&env, &format!("[network]\nfallback = \"{fallback}\"\n"));
        for setup in [NO_PASTA, BROKEN_TUN] {
            let (result, text) = ran(&mut enclosed(&env, &[], setup, &build(&pack, &[])));
            assert!(result.status.success() && text.contains(words), "{text}");
            assert_eq!(text.contains(&format!("namespace {}", host.display())), is_host, "{text}");
            let (finding, code) = check(&env, &[], setup);
            assert!(
                code == 0 && finding["ok"] == false && finding["required"] == false,
                "{finding}"
            );
        }
        // A private network comes first.
        let text = env.ok(["check"]);
        assert!(!text.contains(words), "{text}");
    }
    for bad in ["[network]\nfallback = \"auto\"\n", "[network]\nfallbak = \"host\"\n"] {
        configure(&env, bad);
        assert!(env.fails(2, build(&pack, &[])).contains("config.toml"));
    }
}

#[test]
fn the_network_of_a_container_around_svp_is_used_and_said() {
    let (env, pack) = prepared();
    for variable in ["container=podman", "KUBERNETES_SERVICE_HOST=10.0.0.1"] {
        let setup = format!("export {variable}; ip link set lo up; {NO_PASTA}");
        for more in [&[][..], &["-q"]] {
            let (result, text) = ran(&mut enclosed(&env, &["--net"], &setup, &build(&pack, more)));
            assert!(result.status.success(), "{text}");
            assert_eq!(text.matches("using the network of the container").count(), 1, "{text}");
        }
        let (finding, code) = check(&env, &["--net"], &setup);
        assert!(code == 0 && finding["required"] == false, "{finding}");
        // The evidence counts for nothing in the host's network.
        let setup = format!("export {variable}; {NO_PASTA}");
        let (result, text) = ran(&mut enclosed(&env, &[], &setup, &build(&pack, &[])));
        assert_eq!(result.status.success(), in_container(), "{text}");
    }
    env.assert_nothing_left();
}

#[test]
fn a_service_without_pasta_has_the_network_that_was_chosen() {
    if in_container() {
        return;
    }
    let (env, _) = prepared();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; ports) echo 8127;; esac\n";
    instance(&env, "web", query, "#!/bin/sh\n", "#!/bin/sh\nexec sleep 1000\n");
    let (result, text) = ran(&mut enclosed(&env, &[], NO_PASTA, &["run", "-d", "web"]));
    assert!(result.status.code() == Some(125) && text.contains("no private network"), "{text}");
    // No record is left: the name is free.
    assert_eq!(env.ok(["ps", "-a", "--format", "json"]).trim(), "[]");
    for (fallback, is_host) in [("host", true), ("none", false)] {
        configure(&env, &format!("[network]\nfallback = \"{fallback}\"\n"));
        let setup = format!(
            "{NO_PASTA}; \"$SVP\" run -d web; \"$SVP\" exec web readlink /proc/self/ns/net; \"$SVP\" rm -f web"
        );
        let (result, text) = ran(&mut enclosed(&env, &[], &setup, &["ps"]));
        assert!(result.status.success(), "{text}");
        let host = std::fs::read_link("/proc/self/ns/net").unwrap();
        let out = String::from_utf8_lossy(&result.stdout).into_owned();
        assert_eq!(out.contains(&host.display().to_string()), is_host, "{text}");
    }
    env.assert_nothing_left();
}
