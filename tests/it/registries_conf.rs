//! registries.conf through the program, with several instances of Debian's docker-registry, compared with skopeo.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::support;
use crate::support::TestEnv;
use crate::support::real_registry::{Pushed, RealRegistry, Setup};
use svp::oci::Digest;

const PLAIN: Setup = Setup { password: false, tls: false, client: false, self_signed: false };

/// Returns a port on which nothing listens.
fn unused_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Writes the user's registries.conf, which skopeo reads too.
fn configure(env: &TestEnv, text: &str) {
    let dir = env.dir().join("home/.config/containers");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("registries.conf"), text).unwrap();
}

fn pull(env: &TestEnv, name: &str) -> String {
    env.ok(["pull", name, "-t", "got"]).trim().to_owned()
}

/// Returns skopeo's digest of the same name with the same files.
fn skopeo(env: &TestEnv, arguments: &[&str], name: &str) -> std::process::Output {
    let mut skopeo = env.skopeo();
    skopeo.args(["inspect", "--no-tags", "--format", "{{.Digest}}"]).args(arguments);
    skopeo.arg(format!("docker://{name}"));
    support::output(&mut skopeo)
}

#[track_caller]
fn both_give(env: &TestEnv, name: &str, image: &Pushed) {
    assert_eq!(pull(env, name), image.manifest.to_string());
    let output = skopeo(env, &[], name);
    let printed = String::from_utf8_lossy(&output.stderr);
    let digest = String::from_utf8_lossy(&output.stdout);
    assert_eq!(digest.trim(), image.manifest.to_string(), "{printed}");
}

#[track_caller]
fn both_fail(env: &TestEnv, name: &str) -> String {
    assert!(!skopeo(env, &[], name).status.success());
    env.fails(69, ["pull", name, "-t", "none"])
}

#[test]
fn names_are_rewritten_and_the_longest_prefix_wins() {
    let env = TestEnv::new();
    let (one, two) = (RealRegistry::start(&PLAIN), RealRegistry::start(&PLAIN));
    let image = one.push("internal/bar/app:1");
    let other = two.push("app:1");
    // skopeo speaks plain http only where it is configured, even to loopback.
    configure(
        &env,
        &format!(
            "[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"{one}/internal/bar\"\ninsecure = true\n\
             [[registry]]\nprefix = \"example.com\"\nlocation = \"{two}\"\ninsecure = true\n\
             [[registry]]\nprefix = \"*.example.org\"\nlocation = \"{two}\"\ninsecure = true\n",
            one = one.address,
            two = two.address
        ),
    );
    both_give(&env, "example.com/foo/app:1", &image);
    both_give(&env, &format!("example.com/foo/app@{}", image.manifest), &image);
    both_give(&env, "example.com/app:1", &other);
    both_give(&env, "a.b.example.org/app:1", &other);
    let printed = both_fail(&env, "example.com/foo/none:1");
    assert!(
        printed.contains(&one.address) && printed.contains("no repository internal/bar/none"),
        "{printed}"
    );
    // The store has it under the requested name.
    env.ok(["pull", "example.com/foo/app:1"]);
    assert!(env.ok(["images"]).contains("example.com/foo/app"));
    env.assert_nothing_left();
}

#[test]
fn mirrors_are_tried_in_order_each_with_its_own_login() {
    let env = TestEnv::new();
    let guarded = RealRegistry::start(&Setup { password: true, tls: true, ..Setup::default() });
    let empty = RealRegistry::start(&PLAIN);
    let itself = RealRegistry::start(&PLAIN);
    let image = guarded.push("mirror/team/app:1");
    let only_there = itself.push("team/late:1");
    let dead = unused_port();
    let text = |of_mirrors: &str| {
        format!(
            "[[registry]]\nprefix = \"registry.example\"\nlocation = \"{}\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{dead}\"\n\
             [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{}/mirror\"\n{of_mirrors}\n",
            itself.address, empty.address, guarded.address
        )
    };
    // Without a login and a trusted certificate, the mirror is skipped.
    configure(&env, &text("insecure = true"));
    let printed = both_fail(&env, "registry.example/team/app:1");
    for (part, why) in [
        (&dead, "refuses the connection"),
        (&empty.address, "no repository team/app"),
        (&guarded.address, "requires a login"),
        (&itself.address, "no repository team/app"),
    ] {
        assert!(
            printed.contains(part.as_str()) && printed.contains(why),
            "{part} {why}: {printed}"
        );
    }
    both_give(&env, "registry.example/team/late:1", &only_there);

    let auth = fs::read(guarded.auth_file(RealRegistry::PASSWORD)).unwrap();
    let run = env.dir().join("run/containers");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("auth.json"), auth).unwrap();
    both_give(&env, "registry.example/team/app:1", &image);

    configure(&env, &text(""));
    let printed = both_fail(&env, "registry.example/team/app:1");
    assert!(printed.contains("is not trusted"), "{printed}");
    let ca = guarded.ca_file().display().to_string();
    let name = "registry.example/team/app:1";
    let digest = env.ok(["pull", name, "-t", "got", "--cacert", &ca]);
    assert_eq!(digest.trim(), image.manifest.to_string());

    configure(&env, &text("insecure = true\npull-from-mirror = \"digest-only\""));
    let printed = env.fails(69, ["pull", name, "-t", "none"]);
    assert!(!printed.contains(&guarded.address), "{printed}");
    let digested = format!("registry.example/team/app@{}", image.manifest);
    assert_eq!(pull(&env, &digested), image.manifest.to_string());
    env.assert_nothing_left();
}

#[test]
fn a_blob_that_a_mirror_lacks_comes_from_the_next_location() {
    let env = TestEnv::new();
    let (mirror, itself) = (RealRegistry::start(&PLAIN), RealRegistry::start(&PLAIN));
    let image = mirror.push("app:1");
    itself.push("app:1");
    let layer = Digest::of(&image.layer);
    configure(
        &env,
        &format!(
            "[[registry]]\nprefix = \"registry.example\"\nlocation = \"{}\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
            itself.address, mirror.address
        ),
    );
    mirror.lose(&layer);
    let digest = env.ok(["pull", "registry.example/app:1", "-t", "got"]);
    assert_eq!(digest.trim(), image.manifest.to_string());
    env.ok(["check", "--store"]);
    env.ok(["rmi", "got"]);
    itself.lose(&layer);
    let printed = env.fails(69, ["pull", "registry.example/app:1", "-t", "got"]);
    assert!(printed.contains(&mirror.address) && printed.contains(&itself.address), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn a_blocked_registry_is_refused_but_not_its_mirrors() {
    let env = TestEnv::new();
    let (registry, mirror) = (RealRegistry::start(&PLAIN), RealRegistry::start(&PLAIN));
    registry.push("a/app:1");
    let image = mirror.push("copy/app:1");
    let address = &registry.address;
    configure(
        &env,
        &format!(
            "[[registry]]\nlocation = \"{address}\"\ninsecure = true\n\
             [[registry]]\nlocation = \"{address}/b\"\nblocked = true\n\
             [[registry]]\nlocation = \"{address}/c\"\nblocked = true\n\
             [[registry.mirror]]\nlocation = \"{}/copy\"\ninsecure = true\n",
            mirror.address
        ),
    );
    pull(&env, &format!("{address}/a/app:1"));
    let printed = both_fail(&env, &format!("{address}/b/app:1"));
    assert!(
        printed.contains("blocked by")
            && printed.contains("home/.config/containers/registries.conf"),
        "{printed}"
    );
    both_give(&env, &format!("{address}/c/app:1"), &image);
    let printed = both_fail(&env, &format!("{address}/c/none:1"));
    assert!(printed.contains(&mirror.address) && printed.contains("blocked by"), "{printed}");
    let printed = env.fails(69, ["push", "got", &format!("docker://{address}/b/x:1")]);
    assert!(printed.contains("blocked by"), "{printed}");
}

#[test]
fn a_push_goes_to_the_named_registry() {
    let env = TestEnv::new();
    let (registry, mirror) = (RealRegistry::start(&PLAIN), RealRegistry::start(&PLAIN));
    configure(
        &env,
        &format!(
            "[[registry]]\nprefix = \"{address}/team\"\nlocation = \"{mirror}/elsewhere\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{mirror}/mirror\"\n",
            address = registry.address,
            mirror = mirror.address
        ),
    );
    env.import_busybox();
    let name = format!("docker://{}/team/app:1", registry.address);
    let digest = env.ok(["push", "busybox", &name]);
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &name]);
    skopeo.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env("HOME", "/nonexistent");
    assert_eq!(support::success(&mut skopeo), digest);
    env.fails(69, ["pull", &name, "-t", "none"]);
}

#[test]
fn insecure_applies_only_to_its_registry() {
    let env = TestEnv::new();
    // An address that svp does not treat as loopback.
    let (plain, tls) = (
        RealRegistry::start(&PLAIN),
        RealRegistry::start(&Setup { password: true, tls: true, ..Setup::default() }),
    );
    plain.push("app:1");
    tls.push("app:1");
    let far = plain.address.replace("127.0.0.1", "0.0.0.0");
    let of_tls = format!("{}/app:1", tls.address);
    let name = format!("{far}/app:1");
    let auth = tls.auth_file(RealRegistry::PASSWORD).display().to_string();
    let run = |code: i32, name: &str, more: &[&str]| {
        let mut svp = env.svp(["pull", name, "-t", "got", "--authfile", &auth]);
        let output = support::output(svp.args(more).env("NO_PROXY", "*"));
        let printed = support::transcript(&svp, &output);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        printed
    };
    configure(&env, &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", tls.address));
    run(0, &of_tls, &[]);
    let printed = run(69, &name, &[]);
    assert!(printed.contains("does not speak TLS") && printed.contains("insecure"), "{printed}");
    configure(&env, &format!("[[registry]]\nlocation = \"{far}\"\ninsecure = true\n"));
    run(0, &name, &[]);
    let printed = run(69, &of_tls, &[]);
    assert!(printed.contains("is not trusted"), "{printed}");
    // The option overrides the file, either way.
    run(0, &of_tls, &["--tls-verify=false"]);
    let printed = run(69, &name, &["--tls-verify"]);
    assert!(printed.contains("does not speak TLS"), "{printed}");
}

#[test]
fn an_invalid_file_is_named() {
    let env = TestEnv::new();
    let registry = RealRegistry::start(&PLAIN);
    registry.push("app:1");
    let name = format!("docker://{}/app:1", registry.address);
    configure(&env, "\n[[registry]]\nlocation = 7\n");
    let printed = env.fails(65, ["pull", &name, "-t", "x"]);
    assert!(printed.contains(".config/containers/registries.conf, line 3"), "{printed}");
    configure(&env, "[registries.insecure]\nregistries = [\"r.example\"]\n");
    let printed = env.fails(65, ["pull", &name, "-t", "x"]);
    assert!(printed.contains("version 1"), "{printed}");

    let named = env.path("mine.conf");
    let with_file = |arguments: &[&str]| {
        let mut svp = env.svp(arguments);
        support::output(svp.env("CONTAINERS_REGISTRIES_CONF", &named))
    };
    assert_eq!(with_file(&["pull", &name, "-t", "x"]).status.code(), Some(65));
    fs::write(
        &named,
        format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", registry.address),
    )
    .unwrap();
    let output = with_file(&["pull", &name, "-t", "x"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("mine.conf"));
    assert_eq!(output.status.code(), Some(69));
    fs::write(
        &named,
        "unqualified-search-registries = [\"r.example\"]\nshort-name-mode = \"enforcing\"\n",
    )
    .unwrap();
    let output = with_file(&["pull", &name, "-t", "x"]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("short"));
    // Without a request to a registry, no file is read.
    configure(&env, "broken");
    env.ok(["images"]);
}
