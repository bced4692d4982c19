//! Images that svp saves run after `docker load` and `podman load`: archives of both formats, with all features of
//! svp's images. An ordinary user can't run dockerd: docker's part is tested when the suite runs as root, podman's as
//! both.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::docker::Docker;
use crate::support::podman::Podman;
use crate::support::{TestEnv, as_root, output, pack, success, transcript};

/// An engine that loads and runs images: `docker ARGUMENTS` or `podman ARGUMENTS`.
type Engine<'a> = dyn Fn(&[&str]) -> Command + 'a;

/// Runs `test` with each engine that can run here, and the engine's name.
fn with_engines(env: &TestEnv, test: impl Fn(&str, &Engine)) {
    let podman = Podman::new(env);
    test("podman", &|arguments| podman.command(arguments));
    if as_root() {
        let docker = Docker::start(env);
        test("docker", &|arguments| docker.command(arguments));
    }
}

/// Returns the name that the engine reports as loaded.
#[track_caller]
fn load(engine: &Engine, file: &str) -> String {
    let stdout = success(&mut engine(&["load", "--input", file]));
    let name = stdout.lines().rev().find_map(|line| line.strip_prefix("Loaded image: "));
    name.unwrap_or_else(|| panic!("no image loaded: {stdout}")).trim().to_owned()
}

/// Options of every container: no network, and limits that a confined root may set.
const RUN: [&str; 3] = ["--network=none", "--ulimit=nofile=1024:4096", "--ulimit=nproc=1024:4096"];

/// Runs `script` in a container of the image; returns its output.
#[track_caller]
fn say(engine: &Engine, name: &str, script: &str) -> String {
    let arguments = [&["run", "--rm"], &RUN[..], &["--entrypoint=/bin/sh", name, "-c", script]];
    success(&mut engine(&arguments.concat()))
}

fn inspect(env: &TestEnv, name: &str, field: &str) -> String {
    env.ok(["inspect", name, "--field", field]).trim().to_owned()
}

/// Saves `name` in both formats; returns the files.
fn save(env: &TestEnv, name: &str) -> Vec<(&'static str, String)> {
    let file = |format| {
        let path = env.path(&format!("{}-{format}.tar", name.replace(['/', ':', '.'], "-")));
        let output = format!("{format}:{}", path.display());
        env.ok(["save", name, "--allow-secrets", "-o", &output]);
        (format, path.display().to_string())
    };
    vec![file("docker-archive"), file("oci-archive")]
}

/// Returns whether the engine loads the format: docker before 25 (Debian 12 has 20.10) does not support OCI archives.
fn takes(name: &str, engine: &Engine, format: &str) -> bool {
    if name == "podman" || format == "docker-archive" {
        return true;
    }
    let version = success(&mut engine(&["version", "--format", "{{.Server.Version}}"]));
    let major: u32 =
        version.split('.').next().and_then(|text| text.parse().ok()).expect("a number");
    major >= 25
}

/// Creates busybox as `team/base:1`; based on it, the pack hello as `hello:1` with zstd layers, and an image with a
/// repeated layer.
fn images(env: &TestEnv) {
    let base = support::busybox_base();
    env.ok(["import", base.to_str().unwrap(), "-t", "team/base:1"]);
    let hello = pack("hello");
    let options = ["--base", "team/base:1", "--network", "none"];
    env.ok(["build", "-b", hello.to_str().unwrap(), "-t", "hello:1"].iter().chain(&options));
    env.ok(["tag", "hello:1", "registry.example.com:5000/team/hello:1"]);

    let (plain, zstd) = (env.path("plain"), env.path("zstd"));
    env.ok(["save", "hello:1", "-o", &format!("oci:{}", plain.display())]);
    let mut skopeo = env.skopeo();
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "zstd"]);
    let from = format!("oci:{}:hello:1", plain.display());
    let to = format!("oci:{}:zstd:1", zstd.display());
    success(skopeo.args([
        "--dest-compress",
        "--dest-oci-accept-uncompressed-layers=false",
        &from,
        &to,
    ]));
    env.ok(["pull", &to]);

    let twice = format!("{}:twice:1", env.path("twice").display());
    success(env.command("umoci").args(["init", "--layout"]).arg(env.path("twice")));
    success(env.command("umoci").args(["new", "--image", &twice]));
    for _ in 0..2 {
        let mut add = env.command("umoci");
        success(add.args(["raw", "add-layer", "--image", &twice]).arg(&base));
    }
    env.ok(["pull", &format!("oci:{twice}")]);
}

#[test]
fn images_of_every_kind_are_loaded_under_their_names_and_run() {
    let env = TestEnv::new();
    images(&env);
    let zstd = inspect(&env, "zstd:1", "layers.0.mediaType");
    assert!(zstd.ends_with("+zstd"), "{zstd}");
    let pack = "test -x /service/bin/run && cat /var/lib/hello/index.html";
    // The name in the store, the names in podman and docker, a command to run and its output.
    let cases = [
        ("team/base:1", "docker.io/team/base:1", "team/base:1", "echo it runs", "it runs\n"),
        ("hello:1", "docker.io/library/hello:1", "hello:1", pack, "hello, world\n"),
        (
            "registry.example.com:5000/team/hello:1",
            "registry.example.com:5000/team/hello:1",
            "registry.example.com:5000/team/hello:1",
            pack,
            "hello, world\n",
        ),
        ("zstd:1", "docker.io/library/zstd:1", "zstd:1", pack, "hello, world\n"),
        ("twice:1", "docker.io/library/twice:1", "twice:1", "echo it runs", "it runs\n"),
    ];
    let saved: Vec<_> = cases.map(|(name, ..)| save(&env, name)).into();
    with_engines(&env, |engine_name, engine| {
        for ((name, of_podman, of_docker, script, says), files) in cases.iter().zip(&saved) {
            for (format, file) in files {
                let case = format!("{name} as {format} in {engine_name}");
                if !takes(engine_name, engine, format) {
                    let refused = output(&mut engine(&["load", "--input", file]));
                    assert!(!refused.status.success(), "{case}: loaded");
                    continue;
                }
                let loaded = load(engine, file);
                let right = match (engine_name, *format) {
                    ("docker", _) => loaded == *of_docker,
                    ("podman", "docker-archive") => loaded == *of_podman,
                    // podman prefixes the short OCI name with localhost.
                    _ => loaded == *of_podman || loaded == format!("localhost/{name}"),
                };
                assert!(right, "{case}: {loaded}");
                assert_eq!(say(engine, &loaded, script), *says, "{case}");
                let id =
                    success(&mut engine(&["image", "inspect", "--format", "{{.Id}}", &loaded]));
                let id = id.trim().trim_start_matches("sha256:");
                assert_eq!(format!("sha256:{id}"), inspect(&env, name, "configDigest"), "{case}");
                success(&mut engine(&["rmi", "--force", &loaded]));
            }
        }
    });
}

#[test]
fn an_instance_serves_after_load() {
    let env = TestEnv::new();
    images(&env);
    let hello = pack("hello");
    let setup = ["setup", "-b", hello.to_str().unwrap(), "-i", "hello:1", "-t", "one:1"];
    let environment = env.ok(setup.iter().chain(&["--network", "none"]));
    let env_file = env.path("env");
    std::fs::write(&env_file, environment).unwrap();
    let saved = save(&env, "one:1");
    with_engines(&env, |engine_name, engine| {
        for (format, file) in saved.iter().filter(|(format, _)| takes(engine_name, engine, format))
        {
            let loaded = load(engine, file);
            let env_file = ["--env-file", env_file.to_str().unwrap()];
            let run = [&["run", "--detach"], &RUN[..], &env_file, &[&loaded]].concat();
            let id = success(&mut engine(&run)).trim().to_owned();
            let until = Instant::now() + Duration::from_secs(30);
            loop {
                // The page needs the password that the image contains.
                let mut client = engine(&["exec", &id, "/service/bin/client"]);
                let result = output(&mut client);
                if result.status.success() {
                    assert_eq!(result.stdout, b"hello from the instance of hello\n");
                    break;
                }
                assert!(Instant::now() < until, "{format}: {}", transcript(&client, &result));
                std::thread::sleep(Duration::from_millis(100));
            }
            success(&mut engine(&["rm", "--force", &id]));
        }
    });
}
