//! svp under its caller's resource limits (`ulimit`): what fails names the limit.

use std::process::Output;

use super::common::pack_with;
use crate::support::ordinary_user::OrdinaryUser;
use crate::support::{TestEnv, as_root, output, transcript};

/// Runs a command of the shell, in which `$SVP` is svp.
fn shell(env: &TestEnv, script: &str) -> (Output, String) {
    let mut shell = env.command("sh");
    shell.args(["-uc", script]).env("SVP", env!("CARGO_BIN_EXE_svp"));
    let result = output(&mut shell);
    let text = transcript(&shell, &result);
    (result, text)
}

#[test]
fn a_limit_on_open_files_is_named() {
    let env = TestEnv::new();
    for limit in [8, 10, 12] {
        let (result, text) = shell(&env, &format!("ulimit -n {limit}; \"$SVP\" check"));
        // A program that can't be started is not one that is missing.
        assert!(!text.contains("newuidmap, such as") && !text.contains("install uidmap"), "{text}");
        assert_ne!(result.status.code(), Some(101), "{text}");
        if !result.status.success() && text.contains("Too many open files") {
            assert!(text.contains("RLIMIT_NOFILE") && text.contains("ulimit -n"), "{text}");
        }
    }
}

#[test]
fn a_limit_on_processes_is_named() {
    // The limit does not apply to root: run svp as a user who has no other process.
    if !as_root() {
        return;
    }
    let env = TestEnv::new();
    let dir = tempfile::Builder::new().prefix("svp-limits").tempdir_in("/tmp").unwrap();
    let svp = dir.path().join("svp");
    std::fs::copy(env!("CARGO_BIN_EXE_svp"), &svp).unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), readable).unwrap();
    let user = OrdinaryUser::create();
    let mut named = 0;
    for limit in 2..10 {
        let script = format!("ulimit -u {limit}; exec {} check", svp.display());
        let mut command = env.command("runuser");
        command.args(["-u", user.name(), "--", "env", "-i", "-C", "/", "PATH=/usr/bin:/bin"]);
        command.arg(format!("HOME=/home/{}", user.name())).args(["bash", "-c", &script]);
        let result = output(&mut command);
        let text = transcript(&command, &result);
        assert_ne!(result.status.code(), Some(101), "{limit}: {text}");
        assert!(
            !text.contains("panicked") && !text.contains("exit status: 101"),
            "{limit}: {text}"
        );
        assert!(!text.contains("newuidmap, such as"), "{text}");
        named += usize::from(text.contains("RLIMIT_NPROC") && text.contains("ulimit -u"));
    }
    assert!(named > 2, "{named}");
}

#[test]
fn a_limit_on_the_size_of_files_is_named_with_the_file() {
    let env = TestEnv::new();
    env.import_busybox();
    // Lower than svp's copy of itself, and than an archive.
    for (limit, command, part) in [
        (10, "check", "a sealed copy of svp in memory"),
        (200, "save busybox -o oci-archive:saved.tar", "saved.tar"),
        (200, "save busybox -o docker-archive:other.tar", "other.tar"),
    ] {
        let (result, text) = shell(&env, &format!("ulimit -f {limit}; \"$SVP\" {command}"));
        assert!([Some(74), Some(77)].contains(&result.status.code()), "{text}");
        assert!(text.contains(part) && text.contains("File too large"), "{text}");
        assert!(text.contains("RLIMIT_FSIZE") && text.contains("ulimit -f"), "{text}");
    }
}

#[test]
fn a_script_gets_the_signal_of_that_limit() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "pack", "echo \"ignored: $(grep SigIgn /proc/self/status)\"");
    let pack = pack.to_str().unwrap();
    let mut build = env.svp(["build", "-b", pack, "-t", "x", "--base", "busybox"]);
    build.args(["--network", "none", "--progress", "plain"]);
    let result = output(&mut build);
    let text = transcript(&build, &result);
    let (_, ignored) = text.split_once("ignored: SigIgn:\t").unwrap_or_else(|| panic!("{text}"));
    let ignored = u64::from_str_radix(ignored.split_whitespace().next().unwrap(), 16).unwrap();
    assert_eq!(ignored & 1 << (libc::SIGXFSZ - 1), 0, "{text}");
}
