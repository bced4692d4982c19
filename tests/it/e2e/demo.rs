//! `make demo` works as root and as an ordinary user, and leaves nothing behind.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::{TestEnv, debian_base, output, repo, transcript};

/// Returns the demo with this svp and the Debian base of the other tests, not yet started.
fn demo(env: &TestEnv) -> Command {
    let mut demo = env.command("bash");
    demo.arg(repo().join("scripts/demo.sh"));
    demo.args(["--svp", env!("CARGO_BIN_EXE_svp"), "--base"]).arg(debian_base());
    // Root's demo runs as another user, who must be able to enter these directories.
    for dir in [env.dir(), &env.tmp()] {
        std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    demo.process_group(0);
    demo
}

#[test]
fn the_demo_restores_the_data_of_two_services() {
    let env = TestEnv::new();
    let mut demo = demo(&env);
    let result = output(&mut demo);
    assert!(result.status.success(), "{}", transcript(&demo, &result));
    let text = String::from_utf8_lossy(&result.stdout);
    for line in ["hello from inside", "Dubliners"] {
        assert_eq!(text.lines().filter(|found| *found == line).count(), 2, "{line}: {text}");
    }
    let user = text.lines().find_map(|line| line.trim().strip_prefix("As "));
    assert!(!user.unwrap().starts_with("root,"), "{text}");
    env.assert_nothing_left();
}

#[test]
#[ignore = "minutes"]
fn an_interrupted_demo_leaves_nothing() {
    for moment in ["build -b packs/mariadb", "run -d --wait books", "restore books"] {
        let env = TestEnv::new();
        let mut child = demo(&env).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains(moment)), "{moment}");
        std::thread::sleep(Duration::from_millis(500));
        kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{moment}");
        env.assert_nothing_left();
    }
}
