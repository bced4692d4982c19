//! What a service prints on the caller's terminal: escaped, except where the terminal is the service's.

use std::process::{Command, Stdio};

use super::common::{build, pack_with};
use super::run::instance;
use crate::support::{TestEnv, output, success, wait_until};

const QUERY: &str = "#!/bin/sh\n[ $1 != os ] || echo busybox/1\n";
/// Sets the title, clears the screen, asks the terminal to type, and an 8-bit terminal too; colours are harmless.
const PRINTS: &str = r"printf '\033]0;title\007\033[2J\033[31mred\033[0m \033[6n over\rwritten \302\2332J \2332J end\n'";
const ESCAPED: &str = "\\u{1b}]0;title\\u{7}\\u{1b}[2J\x1b[31mred\x1b[0m \\u{1b}[6n over\\rwritten \
    \\u{9b}2J \\x9b2J end\x1b[0m\r\n";
const BYTES: &[u8] =
    b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m \x1b[6n over\rwritten \xc2\x9b2J \x9b2J end\n";

/// Runs a line of shell, in which `svp ` is the tested program, on a pseudo-terminal; returns the bytes that the
/// terminal gets.
fn on_terminal(env: &TestEnv, line: &str) -> Vec<u8> {
    let line = line.replace("svp ", concat!(env!("CARGO_BIN_EXE_svp"), " "));
    let mut script = env.command("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    let done = output(&mut script);
    assert!(done.status.success(), "{line}: {done:?}");
    done.stdout
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn printer(env: &TestEnv, end: &str) {
    let run = format!("#!/bin/sh\n{PRINTS}\n{PRINTS} >&2\n{end}\n");
    instance(env, "s", QUERY, "#!/bin/sh\n", &run);
}

#[test]
fn logs_are_escaped_on_a_terminal_and_unchanged_elsewhere() {
    let env = TestEnv::new();
    printer(&env, "trap 'exit 0' TERM\nsleep 1000 & wait");
    env.ok(["run", "-d", "--network", "none", "s"]);
    let all = |command: &mut Command| {
        let done = command.stdin(Stdio::null()).output().unwrap();
        (done.stdout, done.stderr)
    };
    wait_until("both lines are in the log", || {
        let (out, err) = all(&mut env.svp(["logs", "s"]));
        out == BYTES && err == BYTES
    });
    let printed = shown(&on_terminal(&env, "svp logs s"));
    assert_eq!(printed, ESCAPED.repeat(2), "{printed:?}");
    // One stream is a terminal, the other one a file.
    let printed = on_terminal(&env, "svp logs s 2>errors");
    assert_eq!(shown(&printed), ESCAPED);
    assert_eq!(std::fs::read(env.path("errors")).unwrap(), BYTES);
    let printed = on_terminal(&env, "svp logs --raw s 2>/dev/null");
    assert_eq!(printed, [&BYTES[..BYTES.len() - 1], b"\r\n"].concat());
    // JSON escapes them itself, those of 8-bit terminals on a terminal.
    let printed = shown(&on_terminal(&env, "svp logs --format json s"));
    assert!(!printed.contains('\x1b') && !printed.contains('\u{9b}'), "{printed:?}");
    let line: serde_json::Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert!(line["text"].as_str().unwrap().contains("\x1b]0;title\x07"), "{line}");
    assert!(line["text"].as_str().unwrap().contains('\u{9b}'), "{line}");
    // The terminal of these commands is the service's own, as their help says.
    let printed =
        on_terminal(&env, &format!("svp exec s sh -c \"{}\"", PRINTS.replace('\\', "\\\\")));
    assert!(printed.windows(6).any(|bytes| bytes == b"\x1b]0;ti"), "{}", shown(&printed));
    for command in ["client", "extra", "exec", "shell"] {
        assert!(env.ok([command, "--help"]).contains("its output is not escaped"), "{command}");
    }
    env.ok(["rm", "--force", "s"]);
}

#[test]
fn a_service_in_the_foreground_and_a_build_are_escaped() {
    let env = TestEnv::new();
    printer(&env, "exit 0");
    let printed = shown(&on_terminal(&env, "svp run --rm --network none s"));
    assert_eq!(printed.matches(ESCAPED).count(), 2, "{printed:?}");
    let mut svp = env.svp(["run", "--rm", "--network", "none", "s"]);
    let done = svp.stdin(Stdio::null()).output().unwrap();
    assert_eq!(done.stdout, BYTES);
    let pack = pack_with(&env, "loud", PRINTS);
    let line = format!("svp --progress plain {}", build(&pack, "x").join(" "));
    let printed = shown(&on_terminal(&env, &line));
    assert!(printed.contains("2J end"), "{printed:?}");
    assert!(!printed.contains("\x1b") && !printed.contains('\u{9b}'), "{printed:?}");
    env.assert_nothing_left();
}

#[test]
fn the_messages_of_a_backup_script_are_escaped() {
    let env = TestEnv::new();
    env.import_busybox();
    let run = "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 1000 & wait\n";
    let backup = format!("#!/bin/sh\n{PRINTS} >&2\necho data\n");
    let files = [
        ("bin/query", QUERY),
        ("bin/build", "#!/bin/sh\n"),
        ("bin/run", run),
        ("bin/backup", &backup),
    ];
    let pack = env.write_pack("pack", &files);
    env.ok(build(&pack, "base"));
    env.ok(["setup", "-i", "base", "-t", "s", "--network", "none"]);
    env.ok(["run", "-d", "--network", "none", "s"]);
    let printed = shown(&on_terminal(&env, "svp --progress plain backup s -o file"));
    assert!(printed.contains(ESCAPED), "{printed:?}");
    let mut svp = env.svp(["--progress", "plain", "backup", "s", "-o", "other"]);
    let done = svp.stdin(Stdio::null()).output().unwrap();
    assert!(
        done.stderr.windows(BYTES.len()).any(|bytes| bytes == BYTES),
        "{}",
        shown(&done.stderr)
    );
    env.ok(["rm", "--force", "s"]);
    success(env.command("rm").args(["file", "other"]));
    env.assert_nothing_left();
}
