//! The commands that svp suggests: each exists, has the options that it is suggested with, and works when it is typed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Stdio;

use super::common::{build, pack_with};
use super::run::{TWO_QUERY, TWO_RUN, code, instance};
use crate::support::ordinary_user::OrdinaryUser;
use crate::support::sources::rust_files;
use crate::support::{TestEnv, as_root, output, repo, run, success};

/// Returns the commands between backticks in a text that begin with `program`.
fn commands<'a>(text: &'a str, program: &str) -> Vec<&'a str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|command| command.split(' ').next() == Some(program)).collect()
}

/// Runs a suggested command line as a user types it into a shell.
fn typed(env: &TestEnv, line: &str) -> String {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_svp")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = env.command("sh");
    shell.args(["-euc", line]).env("PATH", path).current_dir(env.path("")).stdin(Stdio::null());
    success(&mut shell)
}

#[track_caller]
fn failure(env: &TestEnv, arguments: &[&str]) -> String {
    let done = output(env.svp(arguments).stdin(Stdio::null()).current_dir(env.path("")));
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success(), "{arguments:?}: {text}");
    text
}

#[test]
fn every_svp_command_in_a_message_exists_with_its_options() {
    let env = TestEnv::new();
    let mut help: BTreeMap<String, String> = BTreeMap::new();
    let mut count = 0;
    for file in rust_files(&repo().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        // Literals continue over lines that end with a backslash.
        let code = code.join("\n").replace("\\\n", "");
        for line in code.lines() {
            for command in commands(line, "svp") {
                let command = command.split('|').next().unwrap();
                let words: Vec<&str> = command.split(' ').skip(1).collect();
                let name = |word: &&&str| word.bytes().all(|b| b.is_ascii_lowercase());
                let nested = words.first() == Some(&"volume");
                let named: Vec<&str> =
                    words.iter().take(1 + usize::from(nested)).take_while(name).copied().collect();
                if named.is_empty() {
                    continue;
                }
                let help = help
                    .entry(named.join(" "))
                    .or_insert_with(|| env.ok(named.iter().copied().chain(["--help"])));
                for option in words.iter().take_while(|word| **word != "--") {
                    let option = option.split('=').next().unwrap();
                    let known = help.split([' ', ',', '\n', '[', '=']).any(|word| word == option);
                    let is_option = option.len() > 1 && option.starts_with('-');
                    assert!(!is_option || known, "{}: `{command}`: {option}", file.display());
                }
                count += 1;
            }
        }
    }
    assert!(count > 60, "only {count} commands were found");
}

#[test]
fn the_subordinate_ids_that_check_suggests_are_free_and_work() {
    // Only root can take a user's ids away.
    if !as_root() {
        return;
    }
    let user = OrdinaryUser::create();
    let name = user.name();
    let dir = tempfile::Builder::new().prefix("svp-hints").tempdir_in("/tmp").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), mode).unwrap();
    let svp = dir.path().join("svp");
    fs::copy(env!("CARGO_BIN_EXE_svp"), &svp).unwrap();
    // No other test may choose a range meanwhile.
    let lock = File::create("/run/lock/svp-ordinary-user").unwrap();
    lock.lock().unwrap();
    let ranges = |file: &str| -> Vec<(String, u64, u64)> {
        let text = fs::read_to_string(file).unwrap();
        let parse = |line: &str| {
            let mut fields = line.split(':');
            let owner = fields.next().unwrap().to_owned();
            let [start, count] = [(); 2].map(|()| fields.next().unwrap().parse().unwrap());
            (owner, start, start + count)
        };
        text.lines().map(parse).collect()
    };
    for kind in ["uid", "gid"] {
        for (owner, start, end) in ranges(&format!("/etc/sub{kind}")) {
            if owner == name {
                run(
                    "usermod",
                    [&format!("--del-sub{kind}s"), &format!("{start}-{}", end - 1), name],
                );
            }
        }
    }
    let check = || {
        let before = ["-u", name, "--", "env", "-i", "-C", "/", "PATH=/usr/bin:/bin"];
        let home = format!("HOME=/home/{name}");
        run("runuser", [&before[..], &[&home, svp.to_str().unwrap(), "check"]].concat())
    };
    let text = check();
    assert!(text.contains("as root, run `usermod "), "{text}");
    for command in commands(&text, "usermod") {
        run("sh", ["-c", command]);
    }
    for kind in ["uid", "gid"] {
        let all = ranges(&format!("/etc/sub{kind}"));
        let (_, start, end) =
            all.iter().find(|(owner, ..)| owner == name).expect("a range").clone();
        let others = all.iter().filter(|(owner, ..)| owner != name);
        for (owner, from, to) in others {
            assert!(*to <= start || *from >= end, "{kind}: {start}-{end} overlaps {owner}'s");
        }
    }
    drop(lock);
    let text = check();
    let line = text.lines().find(|line| line.contains("user ids")).unwrap();
    assert!(line.starts_with("ok") && line.contains("65537 in a container"), "{text}");
}

#[test]
fn suggested_commands_work_for_any_name_and_state() {
    let env = TestEnv::new();
    env.import_busybox();
    // A directory instead of a tar.
    let dir = "-it's $HOME; a dir";
    fs::create_dir(env.path(dir)).unwrap();
    fs::write(env.path(dir).join("file"), "x").unwrap();
    let text = failure(&env, &["import", "-t", "x", "--", dir]);
    let [command] = commands(&text, "tar")[..] else { panic!("{text}") };
    typed(&env, &command.replace("REF", "imported"));
    env.ok(["inspect", "imported"]);
    // A layout with two images in a directory with odd characters.
    let pack = pack_with(&env, "odd", "echo x >/x");
    let out = env.path("out dir's");
    for tag in ["one", "two"] {
        let mut arguments = build(&pack, tag);
        arguments.extend(["--oci-dir", out.to_str().unwrap()]);
        let done = output(&mut env.svp(arguments));
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        let found = commands(&text, "skopeo");
        assert_eq!(found.len(), usize::from(tag == "two"), "{text}");
        for command in found {
            let words = typed(&env, &command.replacen("skopeo", "printf '%s\\n'", 1));
            let source = words.lines().nth(1).unwrap();
            assert_eq!(source, format!("oci:{}:two:latest", out.display()));
        }
    }
    // A name that is taken, by a service that is stopped or runs.
    instance(&env, "taken", TWO_QUERY, "#!/bin/sh\n", TWO_RUN);
    env.ok(["run", "-d", "taken"]);
    let text = failure(&env, &["run", "-d", "taken"]);
    let [command] = commands(&text, "svp")[..] else { panic!("{text}") };
    env.ok(["stop", "taken"]);
    let stopped = failure(&env, &["run", "-d", "taken"]);
    let [start, remove] = commands(&stopped, "svp")[..] else { panic!("{stopped}") };
    typed(&env, start);
    typed(&env, command);
    env.ok(["run", "-d", "taken"]);
    env.ok(["stop", "taken"]);
    typed(&env, remove);
    // A damaged record.
    env.ok(["run", "-d", "taken"]);
    fs::write(env.store().join("services/taken/service.json"), "{").unwrap();
    let text = failure(&env, &["prune"]);
    let command = *commands(&text, "svp").last().unwrap_or_else(|| panic!("{text}"));
    assert_eq!(command, "svp rm --force taken");
    typed(&env, command);
    assert_eq!(code(&env, &["prune"]), 0);
    env.assert_nothing_left();
}
