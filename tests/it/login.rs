//! `svp login` and `logout`, with Debian's docker-registry, compared with skopeo.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::TestEnv;
use crate::support::real_registry::{RealRegistry, Setup};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::LocalModes;

fn with_input(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn login(env: &TestEnv, registry: &RealRegistry, password: &str) -> Output {
    let ca = registry.ca_file();
    let mut svp = env.svp(["login", "-u", RealRegistry::USER, "--password-stdin"]);
    svp.arg(&registry.address).arg("--cacert").arg(ca);
    with_input(svp, password)
}

#[test]
fn svp_and_skopeo_use_a_login_until_the_logout() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup { password: true, tls: true, ..Setup::default() });
    let ca = registry.ca_file().display().to_string();
    env.import_busybox();
    let to = format!("docker://{}/team/base:1", registry.address);
    let push = ["push", "busybox", &to, "--cacert", &ca];
    env.fails(69, push);

    let file = env.dir().join("run/containers/auth.json");
    let output = login(&env, &registry, "wrong secret\n");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{printed}");
    assert!(printed.contains("refuses this user name and password"), "{printed}");
    assert!(!printed.contains("wrong secret"), "{printed}");
    assert!(!file.exists());

    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, r#"{"auths":{"other.example":{"auth":"eDp5"}},"unknown":[1]}"#).unwrap();
    let output = login(&env, &registry, &format!("{}\n", RealRegistry::PASSWORD));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("other.example") && text.contains("unknown"), "{text}");
    assert!(!text.contains(RealRegistry::PASSWORD));

    let digest = env.ok(push);
    let mut skopeo = env.skopeo();
    skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to]);
    assert_eq!(support::success(&mut skopeo), digest);

    env.ok(["logout", &registry.address]);
    assert!(fs::read_to_string(&file).unwrap().contains("other.example"));
    env.fails(69, push);
    let printed = env.fails(2, ["logout", &registry.address]);
    assert!(printed.contains("no login"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn svp_uses_skopeos_login_and_an_authfile_may_be_new() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup { password: true, tls: false, ..Setup::default() });
    let authfile = env.path("new/auth.json");
    let mut skopeo = env.skopeo();
    skopeo.args(["login", "--tls-verify=false", "-u", RealRegistry::USER, "--password-stdin"]);
    skopeo.arg("--authfile").arg(env.path("skopeo.json")).arg(&registry.address);
    let output = with_input(skopeo, RealRegistry::PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    env.import_busybox();
    let to = format!("docker://{}/team/base:1", registry.address);
    let file = env.path("skopeo.json");
    env.ok(["push", "busybox", &to, "--authfile", file.to_str().unwrap()]);

    let mut svp = env.svp(["login", "-u", RealRegistry::USER, "--password-stdin"]);
    svp.arg("--authfile").arg(&authfile).arg(&registry.address);
    let output = with_input(svp, RealRegistry::PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    env.ok(["pull", &to, "-t", "again", "--authfile", authfile.to_str().unwrap()]);
    env.ok(["logout", "--all", "--authfile", authfile.to_str().unwrap()]);
    env.fails(69, ["pull", &to, "-t", "x", "--authfile", authfile.to_str().unwrap()]);
}

#[test]
fn invalid_logins_are_refused() {
    let env = TestEnv::new();
    let file = env.path("auth.json");
    let authfile = file.to_str().unwrap();
    let cases: [(i32, &[&str], &str); 4] = [
        (2, &["login", "-u", "u", "localhost:1"], "--password-stdin"),
        (2, &["login", "--password-stdin", "localhost:1"], "--username"),
        (2, &["logout", "debian"], "docker.io"),
        (2, &["logout", "localhost:1", "--authfile", authfile], "no login"),
    ];
    for (code, arguments, expected) in cases {
        let printed = env.fails(code, arguments);
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
    }
    for text in ["[]", "{", r#"{"auths":[]}"#, r#"{"auths":{},"credsStore":"x"}"#] {
        fs::write(&file, text).unwrap();
        let registry = RealRegistry::start(&Setup::default());
        let mut svp = env.svp(["login", "-u", "u", "--password-stdin", "--authfile", authfile]);
        svp.arg(&registry.address);
        let output = with_input(svp, "p");
        assert_eq!(
            output.status.code(),
            Some(65),
            "{text}: {}",
            support::transcript(&Command::new("svp"), &output)
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

/// Installs the credential helper `docker-credential-NAME` in the environment; returns the `PATH` with it, and its file
/// of logins.
fn install_helper(env: &TestEnv, name: &str) -> (String, PathBuf) {
    const HELPER: &str = r#"#!/bin/sh
kept=${0%/*}/kept
at() { echo "$kept/$(echo "$1" | tr / _)"; }
echo "$1" >> "${0%/*}/asked"
case $1 in
store)
    cat > "$kept/new"
    mv "$kept/new" "$(at "$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' "$kept/new")")" ;;
get)
    read -r server
    [ -f "$(at "$server")" ] || { echo "credentials not found in native keychain"; exit 1; }
    cat "$(at "$server")" ;;
erase)
    read -r server
    rm "$(at "$server")" ;;
esac
"#;
    let dir = env.path(&format!("helper-{name}"));
    let kept = dir.join("kept");
    fs::create_dir_all(&kept).unwrap();
    let program = dir.join(format!("docker-credential-{name}"));
    // The writing process must have ended before the helper runs (ETXTBSY).
    let script = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    support::run("sh", ["-c", script, "sh", HELPER, program.to_str().unwrap()]);
    let path = std::env::var("PATH").unwrap();
    (format!("{}:{path}", dir.display()), kept)
}

#[test]
fn a_login_is_kept_by_the_configured_credential_helper() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    let (address, (path, kept)) = (&registry.address, install_helper(&env, "mine"));
    env.import_busybox();
    let to = format!("docker://{address}/team/base:1");
    let auth = env.dir().join("run/containers/auth.json");
    let docker = env.dir().join("home/.docker/config.json");
    let conf = env.dir().join("home/.config/containers/registries.conf");
    for file in [&auth, &docker, &conf] {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
    }
    let stale = format!(
        r#"{{"auths":{{"{address}":{{"auth":"eDp5"}},"other.example":{{"auth":"eDp5"}}}}}}"#
    );
    let own = format!(r#"{{"credHelpers":{{"{address}":"mine"}},"auths":{{"{address}":{{}}}}}}"#);
    let cases = [
        (docker.clone(), own.clone()),
        (docker.clone(), r#"{"credsStore":"mine"}"#.into()),
        (conf, "credential-helpers = [\"mine\", \"containers-auth.json\"]".into()),
        (auth.clone(), own),
    ];
    for (file, text) in cases {
        fs::write(&auth, &stale).unwrap();
        fs::write(&file, &text).unwrap();
        let svp = |arguments: &[&str]| {
            let mut svp = env.svp(arguments);
            svp.env("PATH", &path);
            svp
        };
        let login = ["login", "-u", RealRegistry::USER, "--password-stdin", address];
        let output = with_input(svp(&login), RealRegistry::PASSWORD);
        let printed = support::transcript(&svp(&login), &output);
        assert!(
            output.status.success() && printed.contains("saved in docker-credential-mine"),
            "{printed}"
        );
        let entry: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(kept.join(address)).unwrap()).unwrap();
        let expected = serde_json::json!({
            "ServerURL": address, "Username": RealRegistry::USER, "Secret": RealRegistry::PASSWORD,
        });
        assert_eq!(entry, expected);
        let text_of_auth = fs::read_to_string(&auth).unwrap();
        assert!(
            !text_of_auth.contains("eDp5") || !text_of_auth.contains(address.as_str()),
            "{text_of_auth}"
        );
        assert_eq!(file == auth, !text_of_auth.contains("other.example"));

        support::success(&mut svp(&["push", "busybox", &to]));
        if !text.contains("credsStore") {
            let mut skopeo = env.skopeo();
            skopeo.args(["inspect", "--tls-verify=false", &to]).env("PATH", &path);
            support::success(&mut skopeo);
        }

        support::success(&mut svp(&["logout", address]));
        assert!(!kept.join(address).exists());
        let again = support::output(&mut svp(&["logout", address]));
        assert_eq!(again.status.code(), Some(2), "{}", support::transcript(&svp(&[]), &again));
        assert_eq!(support::output(&mut svp(&["push", "busybox", &to])).status.code(), Some(69));
        fs::remove_file(&file).unwrap();
    }
    env.assert_nothing_left();
}

#[test]
fn a_failing_credential_helper_is_reported() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    let address = &registry.address;
    let (path, kept) = install_helper(&env, "mine");
    let file = env.path("auth.json");
    let text = format!(r#"{{"credHelpers":{{"{address}":"mine"}}}}"#);
    fs::write(&file, &text).unwrap();
    let run = |arguments: &[&str], path: &str| {
        let mut svp = env.svp(arguments);
        svp.args(["--authfile", "auth.json"]).env("PATH", path);
        let output = with_input(svp, RealRegistry::PASSWORD);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let login = ["login", "-u", RealRegistry::USER, "--password-stdin", address];
    let (code, printed) = run(&login, "/usr/bin:/bin");
    assert!(
        code == 65 && printed.contains("not installed") && printed.contains("auth.json"),
        "{printed}"
    );
    let namespace = format!("{address}/team");
    let (code, printed) = run(&["login", "-u", "u", "--password-stdin", &namespace], &path);
    assert!(code == 2 && printed.contains("namespaces"), "{printed}");
    fs::remove_dir(&kept).unwrap();
    let (code, printed) = run(&login, &path);
    assert!(code == 69 && printed.contains("docker-credential-mine failed"), "{printed}");
    assert!(!printed.contains(RealRegistry::PASSWORD), "{printed}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    fs::create_dir(&kept).unwrap();
    assert_eq!(run(&login, &path).0, 0);
    let (code, printed) = run(&["logout", "--all"], &path);
    assert!(code == 0 && fs::read_dir(&kept).unwrap().next().is_none(), "{printed}");
}

/// A terminal: the user's end, and the program's end.
fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(person), program)
}

/// Reads the terminal's output until it contains `text`, for at most half a minute: the terminal outlives svp.
#[track_caller]
fn shown_until(person: &mut File, shown: &mut String, text: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !shown.contains(text) {
        assert!(Instant::now() < until, "no {text:?} in {shown}");
        let step = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut [PollFd::new(person, PollFlags::IN)], Some(&step)).unwrap() == 0 {
            continue;
        }
        let mut buffer = [0; 1000];
        let n = person.read(&mut buffer).unwrap_or_else(|error| panic!("{error}: {shown}"));
        shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

fn echoes(terminal: &File) -> bool {
    rustix::termios::tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
}

#[test]
fn a_terminal_shows_no_password() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    for interrupted in [false, true] {
        let (mut person, program) = terminal();
        let mut svp = env.svp(["login", &registry.address]);
        svp.stdin(program.try_clone().unwrap()).stdout(Stdio::piped());
        svp.stderr(program.try_clone().unwrap());
        let mut child = svp.spawn().unwrap();
        let mut shown = String::new();
        shown_until(&mut person, &mut shown, "User name at ");
        assert!(echoes(&program));
        writeln!(person, "{}", RealRegistry::USER).unwrap();
        shown_until(&mut person, &mut shown, "Password of user at ");
        assert!(!echoes(&program));
        if interrupted {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(130), "{shown}");
        } else {
            writeln!(person, "{}", RealRegistry::PASSWORD).unwrap();
            shown_until(&mut person, &mut shown, "logged in to");
            assert!(child.wait().unwrap().success(), "{shown}");
            assert!(shown.contains(RealRegistry::USER) && !shown.contains("pass:"), "{shown}");
        }
        assert!(echoes(&program), "{shown}");
    }
    let to = format!("docker://{}/team/base:1", registry.address);
    env.import_busybox();
    env.ok(["push", "busybox", &to]);
    env.assert_nothing_left();
}

#[test]
fn a_failing_helper_is_quoted() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    let address = &registry.address;
    let dir = env.path("helpers");
    fs::create_dir_all(&dir).unwrap();
    let auth = env.path("auth.json");
    let text =
        format!(r#"{{"auths":null,"credHelpers":{{"{address}":"broken"}},"credsStore":null}}"#);
    fs::write(&auth, text).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let source = format!("docker://{address}/team/a:1");
    for (script, words) in [
        ("echo 'no such profile'; exit 1", "failed: no such profile"),
        ("echo 'gpg: decryption failed' >&2; exit 2", "failed: gpg: decryption failed"),
        ("echo half; echo other >&2; exit 1", "failed: half; other"),
        ("exit 4", "failed without a message (exit status: 4)"),
        ("echo 'Warning: log in first' >&2", "violates the protocol: Warning: log in first"),
        ("cat; cat >&2; exit 1", "failed"),
    ] {
        let program = dir.join("docker-credential-broken");
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        support::run("sh", ["-c", write, "sh", script, program.to_str().unwrap()]);
        let mut pull = env.svp(["pull", &source, "--authfile", "auth.json"]);
        let output = support::output(pull.env("PATH", &path));
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(69) && printed.contains(words), "{printed}");
        assert!(printed.contains("docker-credential-broken"), "{printed}");
        // A helper that repeats its input does not make svp print a password.
        let mut login = env.svp(["login", "-u", "u", "--password-stdin", address]);
        login.args(["--authfile", "auth.json"]).env("PATH", &path);
        let output = with_input(login, "hunter2");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    }
}

#[test]
fn an_auth_file_of_nulls_is_empty() {
    let env = TestEnv::new();
    let open = RealRegistry::start(&Setup::default());
    let closed = RealRegistry::start(&Setup { password: true, ..Setup::default() });
    env.import_busybox();
    let address = &closed.address;
    let nulls = [
        String::new(),
        "null".into(),
        r#"{"auths":null}"#.into(),
        r#"{"auths":null,"credHelpers":null,"credsStore":null}"#.into(),
        format!(r#"{{"auths":{{"{address}":null}},"credHelpers":{{"{address}":null}}}}"#),
        format!(r#"{{"auths":{{"{address}":{{"auth":null}}}},"credsStore":""}}"#),
    ];
    for text in nulls {
        fs::write(env.path("auth.json"), &text).unwrap();
        let push = |registry: &RealRegistry| {
            let to = format!("docker://{}/team/base:1", registry.address);
            env.svp(["push", "busybox", &to, "--authfile", "auth.json"])
        };
        support::success(&mut push(&open));
        let output = support::output(&mut push(&closed));
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(printed.contains("requires a login"), "{text}: {printed}");
        let logout = support::output(&mut env.svp(["logout", address, "--authfile", "auth.json"]));
        assert_ne!(logout.status.code(), Some(65), "{text}: it is not damaged");
        let mut login = env.svp(["login", "-u", RealRegistry::USER, "--password-stdin", address]);
        login.args(["--authfile", "auth.json"]);
        let output = with_input(login, RealRegistry::PASSWORD);
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        support::success(&mut push(&closed));
    }
}
