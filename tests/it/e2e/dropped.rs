//! What a build changes and an image can't keep is said once.

use crate::e2e::common::{build, build_layout, last_layer, pack_with};
use crate::support::{TestEnv, debian_base, output, transcript};

/// Builds a pack on an image and returns what svp says, without the script's output.
#[track_caller]
fn notes(env: &TestEnv, script: &str, base: &str, prefix: &[&str]) -> (bool, String) {
    let pack = pack_with(env, "pack", script);
    let mut svp = match prefix {
        [] => env.svp(["--progress", "plain"]),
        [program, rest @ ..] => {
            let mut command = env.command(program);
            command.args(rest).args([env!("CARGO_BIN_EXE_svp"), "--progress", "plain"]);
            command
        }
    };
    let arguments = build(&pack, "it");
    svp.args(arguments.iter().map(|one| if *one == "busybox" { base } else { *one }));
    let output = output(&mut svp);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let own: Vec<&str> = text.lines().filter(|line| line.starts_with("svp: ")).collect();
    println!("{}", transcript(&svp, &output));
    (output.status.success(), own.join("\n"))
}

#[test]
fn changes_to_files_that_svp_provides_are_reported() {
    let env = TestEnv::new();
    env.import_busybox();
    for (script, paths) in [
        ("echo 10.0.0.1 db >>/etc/hosts", "/etc/hosts"),
        (
            "echo nameserver 10.0.0.1 >/etc/resolv.conf; : >/etc/hosts",
            "/etc/hosts, /etc/resolv.conf",
        ),
        ("mkdir /dev/net; ln -s null /dev/log", "/dev/log, /dev/net"),
    ] {
        let (built, text) = notes(&env, script, "busybox", &[]);
        assert!(built);
        assert!(text.contains(&format!("in each container: {paths}; ")), "{script}: {text}");
        assert_eq!(text.matches("not in the image").count(), 1, "{script}: {text}");
    }
    for script in [
        "cat /etc/hosts /etc/resolv.conf >/copy; touch /etc/hosts; echo x >/etc/hostname",
        "echo x >>/etc/hosts; sed '$d' /etc/hosts >/h; cat /h >/etc/hosts; echo >/dev/null",
    ] {
        let (built, text) = notes(&env, script, "busybox", &[]);
        assert!(built && !text.contains("not in the image"), "{script}: {text}");
    }
    let layout = build_layout(&env, "echo x >/etc/hostname; echo y >>/etc/hosts", "named");
    let names = last_layer(&layout, "named:latest");
    assert!(names.iter().any(|name| name.ends_with("etc/hostname")), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("etc/hosts")), "{names:?}");
}

/// A user without subordinate ids: containers have a single one.
const SINGLE: [&str; 3] = ["unshare", "--user", "--map-root-user"];

#[test]
fn users_without_an_id_are_reported() {
    let env = TestEnv::new();
    env.import_busybox();
    let user = "echo app:x:1000:1000::/home/app:/bin/sh >>/etc/passwd";
    let group = "echo staff:x:50: >>/etc/group";
    for (script, names) in [
        (user.to_owned(), "app (1000)"),
        (group.to_owned(), "staff (50)"),
        (format!("{user}; {group}; echo app:x:1000: >>/etc/group"), "app (1000), staff (50)"),
    ] {
        let (built, text) = notes(&env, &script, "busybox", &SINGLE);
        assert!(built, "{text}");
        assert!(text.contains(&format!("have their ids: {names}; ")), "{script}: {text}");
        assert_eq!(text.matches("no file can belong").count(), 1, "{script}: {text}");
        // With a range of ids there is nothing to say.
        let (built, text) = notes(&env, &script, "busybox", &[]);
        assert!(built && !text.contains("no file can belong"), "{script}: {text}");
    }
    // An id beyond every range.
    let (built, text) =
        notes(&env, "echo far:x:4000000000:1::/:/bin/sh >>/etc/passwd", "busybox", &[]);
    assert!(built && text.contains("far (4000000000)"), "{text}");
    // A script that fails for the same reason.
    let (built, text) = notes(&env, "chown 33 /etc/passwd", "busybox", &SINGLE);
    assert!(!built && text.contains("containers have a single id here"), "{text}");
    let (built, text) = notes(&env, "exit 1", "busybox", &[]);
    assert!(!built && !text.contains("single id"), "{text}");
}

#[test]
fn useradd_that_can_give_nothing_to_its_user_is_reported() {
    let env = TestEnv::new();
    let debian = debian_base();
    env.import_busybox();
    let mut import = env.command(SINGLE[0]);
    import.args(&SINGLE[1..]).arg(env!("CARGO_BIN_EXE_svp"));
    import.args(["import", debian.to_str().unwrap(), "-t", "debian"]);
    let imported = output(&mut import);
    assert!(imported.status.success(), "{}", transcript(&import, &imported));
    let script = "useradd -M app || echo useradd failed with $?; grep app /etc/passwd";
    let (built, text) = notes(&env, script, "debian", &SINGLE);
    assert!(built && text.contains("app (1000)"), "{text}");
}
