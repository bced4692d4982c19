//! Instances: the output of setup, its state, and its refusals.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::e2e::common::pack_with;
use crate::support::{TestEnv, busybox_base, pack};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo ONE_PASSWORD; echo TWO;;\n\
                     env) echo MY_PORT=3306; echo MY_HOST=%IP; echo MY_USER=user;; esac\n";
const BUILD: &str = "#!/bin/sh\nset -eu\ncase $1 in\nbase) [ -z \"${ONE_PASSWORD-}\" ]; echo base >/base;;\n\
                     setup) echo \"$ONE_PASSWORD\" >/password; echo \"$MY_PORT ${MY_HOST-unset}\" >/env;;\nesac\n";

/// Returns an environment with the image `base` built of a pack with two secrets, and the pack.
fn built() -> (TestEnv, String) {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = env.write_pack("pack", &[("bin/query", QUERY), ("bin/build", BUILD)]);
    let pack = pack.to_str().unwrap().to_string();
    env.ok(["build", "-b", &pack, "-t", "base", "--base", "busybox", "--network", "none"]);
    (env, pack)
}

fn setup<'a>(pack: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["setup", "-b", pack, "-i", "base", "-t", "mine", "--network", "none"];
    all.extend(more);
    all
}

#[test]
fn setup_prints_secrets_first_and_ip_unexpanded() {
    let (env, pack) = built();
    let printed = env.ok(setup(&pack, &[]));
    let lines: Vec<_> = printed.lines().collect();
    let names: Vec<_> = lines.iter().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["ONE_PASSWORD", "TWO", "MY_PORT", "MY_HOST", "MY_USER"]);
    assert_eq!(lines[2..], ["MY_PORT=3306", "MY_HOST=%IP", "MY_USER=user"]);
    let secret = lines[0].strip_prefix("ONE_PASSWORD=").unwrap();
    assert_eq!(secret.len(), 24);
    assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{secret}");
    assert_ne!(secret, lines[1].strip_prefix("TWO=").unwrap());

    let root = env.path("root");
    env.ok(["unpack", "mine", root.to_str().unwrap()]);
    let inside = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    assert_eq!(inside("password").trim(), secret);
    assert_eq!(inside("env"), "3306 unset\n");
    assert_eq!(inside("base"), "base\n");
    // The secret is in the image's file and the instance's state, and nowhere else.
    let kept = files_with(&env.store(), secret);
    assert!(
        kept.iter().all(|file| file.contains("/instances/") || file.contains("/trees/")),
        "{kept:?}"
    );
    let state: Vec<_> = kept.iter().filter(|file| file.contains("/instances/")).collect();
    assert_eq!(state.len(), 1, "{kept:?}");
    let mode = std::fs::metadata(state[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    env.assert_nothing_left();
}

/// Returns the files below `dir` that contain `text` literally.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let output =
        std::process::Command::new("grep").args(["-rlaF", "--", text]).arg(dir).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

#[test]
fn a_failing_setup_prints_nothing_and_leaves_nothing() {
    let (env, _) = built();
    let build = "#!/bin/sh\n[ $1 = base ] || { echo \"$ONE_PASSWORD\"; exit 3; }\n";
    let bad = env.write_pack("bad", &[("bin/query", QUERY), ("bin/build", build)]);
    let bad = bad.to_str().unwrap();
    env.ok(["build", "-b", bad, "-t", "base", "--base", "busybox", "--network", "none"]);
    let images = env.ok(["images"]);
    let printed = env.fails(1, setup(bad, &[]));
    assert!(printed.contains('3'), "{printed}");
    assert_eq!(env.ok(["images"]), images);
    let instances = env.store().join("instances");
    assert!(!instances.is_dir() || instances.read_dir().unwrap().next().is_none());
    env.assert_nothing_left();
}

#[test]
fn an_existing_name_is_refused_without_an_option() {
    let (env, pack) = built();
    let first = env.ok(setup(&pack, &[]));
    let images = env.ok(["images"]);
    let printed = env.fails(2, setup(&pack, &[]));
    assert!(
        printed.contains("mine")
            && printed.contains("--force")
            && printed.contains("--keep-secrets"),
        "{printed}"
    );
    assert_eq!(env.ok(["images"]), images);
    assert_eq!(env.ok(setup(&pack, &["--keep-secrets"])), first);
    assert_ne!(env.ok(setup(&pack, &["--force"])), first);
}

#[test]
fn given_secrets_and_other_formats() {
    let (env, pack) = built();
    let file = env.path("secret");
    std::fs::write(&file, "my own $word'\n").unwrap();
    let given = format!("ONE_PASSWORD=@{}", file.display());
    let printed = env.ok(setup(&pack, &["--secret", &given, "--env-format", "json"]));
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["ONE_PASSWORD"], "my own $word'");
    assert_eq!(json["MY_HOST"], "%IP");
    let printed = env.ok(setup(&pack, &["--keep-secrets", "--env-format", "shell"]));
    let shell = format!("{printed}\nprintf '%s' \"$ONE_PASSWORD\"");
    assert_eq!(crate::support::run("sh", ["-c", &shell]), "my own $word'");
    let printed = env.fails(2, setup(&pack, &["--force", "--secret", "UNKNOWN=@/dev/null"]));
    assert!(printed.contains("UNKNOWN"), "{printed}");
}

#[test]
fn the_specifications_example_order_is_understood() {
    let (env, pack) = built();
    let arguments = ["setup", "-i", "mysvc", "-b", &pack, "-t", "base", "--network", "none"];
    let mut command = env.svp(arguments);
    let output = crate::support::output(&mut command);
    assert!(output.status.success(), "{}", crate::support::transcript(&command, &output));
    assert!(!output.stderr.is_empty(), "svp warns about the order");
    let images = env.ok(["images"]);
    assert!(images.contains("mysvc"), "{images}");
}

#[test]
fn both_phases_at_once() {
    let env = TestEnv::new();
    env.import_busybox();
    let build = "#!/bin/sh\necho \"$1 $ONE_PASSWORD\" >/all\n";
    let pack = env.write_pack("pack", &[("bin/query", QUERY), ("bin/build", build)]);
    let pack = pack.to_str().unwrap();
    let printed = env.ok([
        "build",
        "-b",
        pack,
        "-t",
        "one",
        "--base",
        "busybox",
        "--network",
        "none",
        "--phase",
        "all",
    ]);
    let secret = printed.lines().next().unwrap().strip_prefix("ONE_PASSWORD=").unwrap();
    let root = env.path("root");
    env.ok(["unpack", "one", root.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(root.join("all")).unwrap(), format!("all {secret}\n"));
}

#[test]
fn another_pack_is_warned_about_and_update_pack_accepts_it() {
    let (env, _) = built();
    let build = "#!/bin/sh\necho new >/who\n";
    let other = env.write_pack("other", &[("bin/query", QUERY), ("bin/build", build)]);
    let other = other.to_str().unwrap();
    let mut command = env.svp(setup(other, &[]));
    let output = crate::support::output(&mut command);
    assert!(output.status.success(), "{}", crate::support::transcript(&command, &output));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("--update-pack"), "{printed}");
    env.ok(setup(other, &["--force", "--update-pack"]));
    let root = env.path("root");
    env.ok(["unpack", "mine", root.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(root.join("who")).unwrap(), "new\n");
}

#[test]
fn every_image_command_works_with_the_hello_pack() {
    let env = TestEnv::new();
    env.ok(["import", busybox_base().to_str().unwrap(), "-t", "busybox:1.36"]);
    let hello = pack("hello");
    let hello = hello.to_str().unwrap();
    assert_eq!(env.ok(["query", "-b", hello, "os"]).lines().count(), 1);
    env.ok(["lint", hello]);
    env.ok(["build", "-b", hello, "-t", "hello", "--base", "busybox:1.36", "--network", "none"]);
    let printed = env.ok(["setup", "-b", hello, "-i", "hello", "-t", "h1", "--network", "none"]);
    assert!(printed.contains("=%IP\n"), "{printed}");
    for name in ["hello", "h1"] {
        let inspected = env.ok(["inspect", name, "--format", "json"]);
        let _: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
        assert!(env.ok(["images"]).contains(name));
    }
    env.ok(["tag", "h1", "h2:x"]);
    env.ok(["rmi", "h1"]);
    let images = env.ok(["images"]);
    assert!(images.contains("h2") && !images.contains("h1"), "{images}");
}

#[test]
fn a_new_pack_builds_unchanged() {
    let env = TestEnv::new();
    env.import_debian();
    env.ok(["new", "fresh"]);
    let pack = env.path("fresh");
    let pack = pack.to_str().unwrap();
    env.ok(["lint", pack]);
    env.ok(["build", "-b", pack, "-t", "fresh", "--base", "debian:bookworm", "--network", "none"]);
    env.fails(2, ["new", "fresh"]);
    let odd = pack_with(&env, "odd", "true\r");
    let mut lint = env.svp(["lint", odd.to_str().unwrap()]);
    let output = crate::support::output(&mut lint);
    let printed = crate::support::transcript(&lint, &output);
    assert!(output.status.code() == Some(65) && printed.contains("CRLF"), "{printed}");
}
