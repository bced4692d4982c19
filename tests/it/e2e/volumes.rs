//! Volumes: the setup that they belong to, and the commands that list, remove, export and import them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::run::{code, instance};
use super::terminal::Screen;
use crate::support::{TestEnv, as_root, output, run};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo WEB_PASSWORD;; \
    volumes) echo /data;; esac\n";
const BUILD: &str =
    "#!/bin/sh\nset -eu\ncase $1 in base) mkdir -p /data; echo page >/data/page;; esac\n";
/// A database of sorts: the first start decides on the password.
const RUN: &str = "#!/bin/sh\n[ -e /data/password ] || echo \"$WEB_PASSWORD\" >/data/password\n\
    trap 'exit 0' TERM\nsleep 1000 & wait\n";

fn shop(env: &TestEnv, name: &str) {
    instance(env, name, QUERY, BUILD, RUN);
}

/// Sets the instance `name` up again; returns the environment that setup prints.
fn set_up_again(env: &TestEnv, name: &str, how: &str) -> String {
    let base = format!("{name}-base");
    env.ok(["setup", "-i", &base, "-t", name, "--network", "none", how])
}

fn password(env: &TestEnv, name: &str) -> String {
    env.ok(["exec", name, "cat", "/data/password"])
}

/// Returns the directory of a volume in the store.
fn volume(env: &TestEnv, name: &str) -> PathBuf {
    let trees = fs::read_dir(env.store().join("trees")).unwrap();
    let mut dirs = trees.map(|entry| entry.unwrap().path().join("volumes").join(name));
    dirs.find(|dir| dir.exists()).unwrap_or_else(|| panic!("no volume {name}"))
}

/// Runs svp, and returns its standard error; it must succeed.
#[track_caller]
fn stderr(env: &TestEnv, arguments: &[&str]) -> String {
    let done = output(env.svp(arguments).stdin(Stdio::null()));
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{arguments:?}: {text}");
    text
}

fn list(env: &TestEnv) -> Value {
    serde_json::from_str(&env.ok(["volume", "ls", "--format", "json"])).unwrap()
}

#[test]
fn a_volume_of_another_setup_is_refused_with_the_ways_out() {
    let env = TestEnv::new();
    shop(&env, "shop");
    let old = set_up_again(&env, "shop", "--force");
    env.ok(["run", "-d", "shop"]);
    let first = password(&env, "shop");
    let text = stderr(&env, &["rm", "--force", "shop"]);
    assert!(text.contains("`svp volume rm shop.data`"), "{text}");
    // The same setup, and one that keeps its secrets, take the volume without a word.
    env.ok(["run", "-d", "shop"]);
    env.ok(["rm", "--force", "shop"]);
    set_up_again(&env, "shop", "--keep-secrets");
    let text = stderr(&env, &["run", "-d", "shop"]);
    assert!(!text.contains("shop.data"), "{text}");
    env.ok(["rm", "--force", "shop"]);
    let record = fs::read_to_string(volume(&env, "shop.data").join("volume.json")).unwrap();
    assert!(!record.contains(first.trim()), "{record}");

    // Whoever makes new secrets hears of the data with the old ones at once, not when it is refused.
    let again = ["setup", "-i", "shop-base", "-t", "shop", "--network", "none", "--force"];
    let text = stderr(&env, &again);
    for part in ["shop.data has data with the secrets of an earlier setup", "`svp volume rm`"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    let text = env.fails(125, ["run", "-d", "shop"]);
    for part in [
        "the volume shop.data was created for another setup of shop:latest",
        "`svp run --env-file FILE shop:latest`",
        "`svp volume rm shop.data`",
        "`svp volume export shop.data -o FILE`",
        "`svp run --reuse-volumes shop:latest`",
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    assert_eq!(env.ok(["ps", "-a", "-q"]), "");
    // Each way out works. The old secrets, as setup printed them:
    let file = env.path("old.env");
    fs::write(&file, old).unwrap();
    let text = stderr(&env, &["run", "-d", "--env-file", file.to_str().unwrap(), "shop:latest"]);
    assert!(!text.contains("warning"), "{text}");
    assert_eq!(password(&env, "shop"), first);
    env.ok(["rm", "--force", "shop"]);
    // The volume as it is, also after a restart:
    env.ok(["run", "-d", "--reuse-volumes", "shop:latest"]);
    env.ok(["stop", "shop"]);
    env.ok(["start", "shop"]);
    assert_eq!(password(&env, "shop"), first);
    env.ok(["rm", "--force", "shop"]);
    assert_eq!(code(&env, &["run", "-d", "shop"]), 125);
    // Without the data:
    let saved = env.path("FILE");
    env.ok(["volume", "export", "shop.data", "-o", saved.to_str().unwrap()]);
    assert_eq!(env.ok(["volume", "rm", "shop.data"]), "shop.data\n");
    env.ok(["run", "-d", "shop"]);
    assert_ne!(password(&env, "shop"), first);
    env.ok(["rm", "--force", "--volumes", "shop"]);
    env.assert_nothing_left();
}

#[test]
fn a_volume_of_another_instance_or_of_other_given_secrets_is_not_taken_silently() {
    let env = TestEnv::new();
    shop(&env, "one");
    shop(&env, "two");
    env.ok(["run", "-d", "--name", "db", "one"]);
    env.ok(["rm", "--force", "db"]);
    let text = env.fails(125, ["run", "-d", "--name", "db", "two"]);
    assert!(text.contains("the volume db.data was created for the instance one:latest"), "{text}");
    // The user's own volume at the place of the data.
    env.ok(["run", "-d", "-v", "mine:/data", "one"]);
    env.ok(["rm", "--force", "one"]);
    assert_eq!(code(&env, &["run", "-d", "-v", "mine:/data", "two"]), 125);
    // A password that the user gives is another one, known to be or possibly.
    assert_eq!(code(&env, &["run", "-d", "-v", "mine:/data", "-e", "WEB_PASSWORD=x", "one"]), 125);
    env.ok(["run", "-d", "--name", "given", "-e", "WEB_PASSWORD=x", "one"]);
    env.ok(["rm", "--force", "given"]);
    assert_eq!(code(&env, &["run", "-d", "--name", "given", "one"]), 125);
    let text = stderr(&env, &["run", "-d", "--name", "given", "-e", "WEB_PASSWORD=y", "one"]);
    assert!(text.contains("warning: the volume given.data"), "{text}");
    assert_eq!(password(&env, "given"), "x\n");
    // Services may share a volume elsewhere, and read one anywhere.
    for name in ["one", "two"] {
        env.ok(["run", "-d", "-v", "shared:/srv", "-v", &format!("own-{name}:/data"), name]);
    }
    env.ok([
        "run",
        "-d",
        "--name",
        "reader",
        "-v",
        "own-one:/data:ro",
        "--entrypoint",
        "/bin/top",
        "two",
    ]);
    env.ok(["rm", "--force", "one", "two", "given", "reader"]);
    env.assert_nothing_left();
}

#[test]
fn volumes_and_services_of_earlier_versions_still_run() {
    let env = TestEnv::new();
    shop(&env, "shop");
    env.ok(["run", "-d", "shop"]);
    env.ok(["stop", "shop"]);
    fs::remove_file(volume(&env, "shop.data").join("volume.json")).unwrap();
    for dir in ["instances", "services/shop"] {
        for entry in fs::read_dir(env.store().join(dir)).unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "json") && !path.ends_with("status.json") {
                let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                let record = record.as_object_mut().unwrap();
                assert!(record.remove("setup").is_some(), "{}", path.display());
                fs::write(&path, serde_json::to_vec(record).unwrap()).unwrap();
            }
        }
    }
    env.ok(["start", "shop"]);
    env.ok(["rm", "--force", "shop"]);
    // A volume without a record belongs to no known setup.
    set_up_again(&env, "shop", "--force");
    env.ok(["run", "-d", "shop"]);
    assert!(list(&env)[0]["CreatedAt"].is_string());
    // A damaged record is reported, never ignored.
    env.ok(["rm", "--force", "shop"]);
    fs::write(volume(&env, "shop.data").join("volume.json"), "{").unwrap();
    assert!(env.fails(125, ["run", "-d", "shop"]).contains("volume.json is damaged"));
    assert_eq!(env.ok(["volume", "rm", "shop.data"]), "shop.data\n");
}

#[test]
fn volumes_are_listed_with_their_services_and_removed_when_unused() {
    let env = TestEnv::new();
    assert_eq!(env.ok(["volume", "ls"]), "VOLUME  USED BY  SIZE  CREATED\n");
    shop(&env, "shop");
    env.ok(["run", "-d", "-v", "shared:/srv:ro", "shop"]);
    env.ok(["run", "-d", "--name", "other", "-v", "shared:/data", "shop"]);
    env.ok(["stop", "other"]);
    let volumes = list(&env);
    assert_eq!(volumes.as_array().unwrap().len(), 2);
    assert_eq!(
        (volumes[0]["Name"].as_str(), volumes[0]["Driver"].as_str()),
        (Some("shared"), Some("local"))
    );
    assert_eq!(volumes[0]["UsedBy"], serde_json::json!(["other", "shop"]));
    assert_eq!(volumes[1]["UsedBy"], serde_json::json!(["shop"]));
    assert_eq!(volumes[1]["Image"], "shop:latest");
    assert!(volumes[1]["Size"].as_u64().unwrap() >= 4096, "{volumes:#}");
    let mountpoint = Path::new(volumes[1]["Mountpoint"].as_str().unwrap());
    assert_eq!(mountpoint, volume(&env, "shop.data").join("data"));
    let one: Value = serde_json::from_str(&env.ok(["volume", "inspect", "shop.data"])).unwrap();
    assert_eq!(one[0], volumes[1]);
    assert_eq!(env.ok(["volume", "ls", "-q"]), "shared\nshop.data\n");

    // Used by a stopped service and by a running one; with one wrong name nothing is removed.
    let text = env.fails(2, ["volume", "rm", "shared"]);
    assert!(text.contains("is used by the services other, shop"), "{text}");
    env.ok(["rm", "--force", "other"]);
    for name in ["nowhere", "../services", "", "shop.data/../x"] {
        assert_eq!(code(&env, &["volume", "rm", "shop.data", name]), 2, "{name}");
        assert_eq!(code(&env, &["volume", "inspect", name]), 2, "{name}");
        assert_eq!(code(&env, &["volume", "export", name]), 2, "{name}");
    }
    assert_eq!(env.ok(["volume", "ls", "-q"]), "shared\nshop.data\n");
    // A damaged service: its volumes are unknown.
    let record = env.store().join("services/shop/service.json");
    let good = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    assert_eq!(code(&env, &["volume", "rm", "shop.data"]), 65);
    assert!(stderr(&env, &["volume", "ls"]).contains("warning"));
    fs::write(&record, good).unwrap();
    // -v removes what no other service uses, and names it.
    env.ok(["run", "-d", "--name", "other", "-v", "shared:/data", "shop"]);
    let text = stderr(&env, &["rm", "--force", "-v", "shop"]);
    assert!(text.contains("removed the volume shop.data"), "{text}");
    assert!(text.contains("keeping the volume shared: another service uses it"), "{text}");
    assert_eq!(env.ok(["volume", "ls", "-q"]), "shared\n");
    env.ok(["rm", "--force", "-v", "other"]);
    env.assert_nothing_left();
}

/// Creates files of every kind in /data of the service.
const FILES: &str = "cd /data; mkdir -p d/e; echo one >d/one; ln d/one two; ln -s ../../etc/passwd d/link; \
    mkfifo pipe; chmod 4751 two; chown 5:6 d/e; head -c 300000 /dev/urandom >big; touch 'odd \
name'; chmod 1777 .; chown 7:8 .";

#[test]
fn an_exported_volume_comes_back_as_it_was() {
    let env = TestEnv::new();
    shop(&env, "shop");
    env.ok(["run", "-d", "shop"]);
    env.ok(["exec", "shop", "--", "sh", "-ec", FILES]);
    let text = env.fails(2, ["volume", "export", "shop.data"]);
    assert!(text.contains("`svp stop shop`") && text.contains("is running"), "{text}");
    env.ok(["stop", "shop"]);
    let file = env.path("a.tar");
    let name = file.to_str().unwrap();
    env.ok(["volume", "export", "shop.data", "-o", name]);
    let streamed = output(&mut env.svp(["volume", "export", "shop.data"])).stdout;
    assert_eq!(streamed, fs::read(&file).unwrap());
    let tar = run("tar", ["--numeric-owner", "-tvf", name]);
    for part in ["drwxrwxrwt 7/8", "d/one link to two", " two", "5/6", "link -> ../../etc/passwd"] {
        let found =
            tar.contains(part) || part == "d/one link to two" && tar.contains("two link to d/one");
        assert!(found, "no {part}: {tar}");
    }
    // Into a new volume, compressed; then into one that has files, which needs consent.
    run("gzip", ["-k", name]);
    assert_eq!(env.ok(["volume", "import", "copy", &format!("{name}.gz")]), "copy\n");
    let copied = output(&mut env.svp(["volume", "export", "copy"])).stdout;
    assert_eq!(copied, streamed);
    let text = env.fails(2, ["volume", "import", "shop.data", name]);
    assert!(text.contains("--replace"), "{text}");
    env.ok(["start", "shop"]);
    env.ok(["exec", "shop", "--", "sh", "-c", "rm /data/two; echo new >/data/new"]);
    assert_eq!(code(&env, &["volume", "import", "--replace", "shop.data", name]), 2);
    env.ok(["stop", "shop"]);
    let mut import = env.svp(["volume", "import", "--replace", "shop.data"]);
    assert!(import.stdin(fs::File::open(&file).unwrap()).status().unwrap().success());
    assert_eq!(output(&mut env.svp(["volume", "export", "shop.data"])).stdout, streamed);
    env.ok(["start", "shop"]);
    let listed = env.ok(["exec", "shop", "--", "sh", "-c", "ls /data; stat -c %h:%a /data/two"]);
    assert!(listed.contains("odd name") && listed.ends_with("2:4751\n"), "{listed}");
    assert!(!listed.contains("new"), "{listed}");
    env.ok(["rm", "--force", "-v", "shop"]);
    // The tar is a plain one: GNU tar reads and writes what svp does.
    let dir = env.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    run("tar", ["-C", dir.to_str().unwrap(), "-cf", env.path("b.tar").to_str().unwrap(), "."]);
    env.ok(["volume", "import", "plain", env.path("b.tar").to_str().unwrap()]);
    env.ok(["run", "-d", "-v", "plain:/srv", "shop"]);
    assert_eq!(env.ok(["exec", "shop", "cat", "/srv/file"]), "content");
    env.ok(["rm", "--force", "shop"]);
    env.assert_nothing_left();
}

#[test]
fn hostile_tars_change_nothing_outside_a_volume() {
    let env = TestEnv::new();
    env.import_busybox();
    let dir = env.path("dir");
    fs::create_dir(&dir).unwrap();
    let (victim, out) = (env.path("victim"), env.path("t.tar"));
    fs::write(&victim, "mine").unwrap();
    fs::write(dir.join("f"), "content").unwrap();
    std::os::unix::fs::symlink(env.path(""), dir.join("out")).unwrap();
    let (at, tar) = (dir.to_str().unwrap(), out.to_str().unwrap());
    let pack = |more: &[&str]| {
        run("tar", [&["-P", "-C", at, "-cf", tar][..], more].concat());
    };
    pack(&["f"]);
    env.ok(["volume", "import", "kept", tar]);
    let before = output(&mut env.svp(["volume", "export", "kept"])).stdout;
    let whole = fs::read(&out).unwrap();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no tar", b"<html>".repeat(1000)),
        ("cut inside a file", whole[..516].to_vec()),
        ("cut before the end mark", whole[..1024].to_vec()),
        ("only an end mark", vec![0; 10240]),
    ];
    for (case, transform) in
        [("up", "s,^f,../victim,"), ("removal", "s,^f,.wh.kept,"), ("opaque", "s,^f,.wh..wh..opq,")]
    {
        pack(&[&format!("--transform={transform}"), "f"]);
        cases.push((case, fs::read(&out).unwrap()));
    }
    run("gzip", ["-kf", tar]);
    let gzip = fs::read(env.path("t.tar.gz")).unwrap();
    cases.push(("cut gzip", gzip[..gzip.len() - 6].to_vec()));
    for (case, bytes) in &cases {
        fs::write(&out, bytes).unwrap();
        assert_eq!(code(&env, &["volume", "import", "--replace", "kept", tar]), 65, "{case}");
        assert_eq!(code(&env, &["volume", "import", "new", tar]), 65, "{case}");
        assert_eq!(env.ok(["volume", "ls", "-q"]), "kept\n", "{case}");
    }
    assert_eq!(output(&mut env.svp(["volume", "export", "kept"])).stdout, before);
    // A link out of the volume, and an absolute path: both resolve inside.
    pack(&["--transform=s,^f,out/victim,", "out", "f"]);
    assert!([0, 65].contains(&code(&env, &["volume", "import", "link", tar])));
    pack(&[&format!("--transform=s,^f,{},", victim.display()), "f"]);
    assert!([0, 65].contains(&code(&env, &["volume", "import", "absolute", tar])));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    // A volume has no devices that the container could not create.
    if as_root() {
        run("mknod", [dir.join("sda").to_str().unwrap(), "b", "8", "0"]);
        pack(&["sda"]);
        let text = stderr(&env, &["volume", "import", "device", tar]);
        assert!(text.contains("no permission to create the device 8:0"), "{text}");
    }
    env.assert_nothing_left();
}

#[test]
fn on_a_terminal_prune_asks_before_it_removes_volumes() {
    let env = TestEnv::new();
    env.import_busybox();
    let tar = env.path("t.tar");
    fs::write(env.path("file"), "content").unwrap();
    run("tar", ["-C", env.path("").to_str().unwrap(), "-cf", tar.to_str().unwrap(), "file"]);
    let import = |name: &str| env.ok(["volume", "import", name, tar.to_str().unwrap()]);
    let names = || env.ok(["volume", "ls", "-q"]);
    import("a");
    import("b");
    for (answer, left) in [("", "a\nb\n"), ("no", "a\nb\n"), ("y", "")] {
        let screen = Screen::run(&env, "svp prune --volumes");
        screen.shows("Remove them with their data? [y/N]");
        screen.shows("a (");
        screen.type_line(answer);
        screen.shows("ended with 0");
        assert_eq!(names(), left, "{answer:?}");
    }
    // Nobody is asked with --force, and where nobody can answer; nothing is removed without --volumes.
    import("a");
    let screen = Screen::run(&env, "svp prune; svp prune --volumes -f");
    screen.shows("ended with 0");
    assert_eq!(names(), "");
    import("a");
    env.ok(["prune"]);
    assert_eq!(names(), "a\n");
    let printed = env.ok(["prune", "--volumes"]);
    assert!(printed.contains("volumes/a") && names().is_empty(), "{printed}");
    // A tar is never written to a terminal, nor read from it.
    import("a");
    for (line, text) in
        [("svp volume export a", "refusing to write"), ("svp volume import c", "refusing to read")]
    {
        let screen = Screen::run(&env, line);
        screen.shows(text);
        screen.shows("ended with 2");
    }
}
