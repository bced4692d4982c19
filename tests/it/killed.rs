//! SIGKILL at chosen steps: strace kills svp, or one of its stages, at the n-th call of a system call. Whatever the
//! moment, the next command works and sweeps the leftovers, the store is sound, every tag is as before or as after, an
//! output is complete or unchanged, and a registry has no tag whose blobs it lacks.
//!
//! `make test` tries a few moments of each command, `make soak` all of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support;
use crate::support::registry::Registry;
use crate::support::{TestEnv, as_root, output, run, success, transcript};
use serde_json::Value;
use svp::oci::Digest;

/// The system calls by which a command changes visible state, waits for other processes, or sends them data.
const CALLS: &str = "openat,write,pwrite64,ftruncate,copy_file_range,sendfile,/^rename,/sync,/^link,/^unlink,\
                     /^mkdir,sendto,sendmsg,recvfrom,flock,mount,unshare,pivot_root,clone3";
/// Number of moments of a command in the short run.
const FEW: usize = 6;
/// Maximum number of moments of a command in the long run.
const MANY: usize = 300;

/// The tags of the store, with the digests of their manifests.
type Tags = BTreeMap<String, String>;

/// The output of a command outside the store.
enum Made {
    Nothing,
    /// A layout, which may contain images already.
    Layout(PathBuf),
    /// An archive.
    File(PathBuf),
    /// A repository of the registry.
    Repository(String),
}

/// A command to kill.
struct Scene {
    /// The arguments; `{n}` is replaced by a different number each time.
    command: Vec<String>,
    /// Prepares the state for the command, once for each moment.
    prepare: Box<dyn Fn()>,
    /// The arguments to run instead of `command` after a kill that came after its effect, if it can't be repeated.
    again: Option<Vec<String>>,
    made: Made,
    /// Whether the command has stages in a user namespace: an ordinary user's `newuidmap` must not be traced.
    sandboxed: bool,
}

struct World {
    env: TestEnv,
    registry: Registry,
}

impl World {
    /// Returns a world with busybox as a base, as an archive of either kind, as a layout, and in a registry.
    fn new() -> Self {
        let env = TestEnv::new();
        env.import_busybox();
        fs::write(env.path("data"), "some data\n".repeat(1000)).unwrap();
        run("tar", ["-C", env.path("").to_str().unwrap(), "-cf", &text(&env, "data.tar"), "data"]);
        env.ok(["import", "data.tar", "-t", "old:1"]);
        for output in ["oci:in", "docker-archive:in-docker.tar", "oci-archive:in-oci.tar"] {
            env.ok(["save", "old:1", "-o", output]);
        }
        env.ok(["rmi", "old:1"]);
        let registry = Registry::start();
        let world = World { env, registry };
        world.env.ok(["push", "busybox", &world.remote("base:1")]);
        world
    }

    fn remote(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.registry.host())
    }

    fn tags(&self) -> Tags {
        let list = self.env.ok(["images", "--format", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let field = |image: &Value, name: &str| image[name].as_str().expect("a text").to_owned();
        let entry = |image| {
            let tag = format!("{}:{}", field(image, "repository"), field(image, "tag"));
            (tag, field(image, "digest"))
        };
        list.as_array().expect("a list").iter().map(entry).collect()
    }

    /// Runs the scene under strace with `options`; returns whether it succeeded.
    fn trace(&self, scene: &Scene, n: usize, options: &[&str]) -> bool {
        let mut command = self.env.command("strace");
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        if !scene.sandboxed || as_root() {
            command.arg("-f");
        }
        command.args(["-qqq", "-o", &text(&self.env, "trace"), "-e"]).arg(format!("trace={CALLS}"));
        command.args(options).arg(env!("CARGO_BIN_EXE_svp")).args(numbered(&scene.command, n));
        let result = output(&mut command);
        let report = transcript(&command, &result);
        assert!(!report.contains("panicked") && !report.contains("strace:"), "{report}");
        result.status.success()
    }

    /// Returns the moments at which the scene can be killed: a system call, and its ordinal in a thread.
    fn moments(&self, scene: &Scene) -> Vec<(String, usize)> {
        (scene.prepare)();
        assert!(
            self.trace(scene, usize::MAX, &[]),
            "{:?} fails even without a kill",
            scene.command
        );
        let trace = fs::read_to_string(self.env.path("trace")).unwrap();
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in trace.lines() {
            // `PID CALL(…` with -f, else `CALL(…`.
            let (head, _) = line.split_once('(').unwrap_or_default();
            let (pid, call) = head.trim().split_once(' ').unwrap_or(("", head));
            let call = call.trim();
            if !call.is_empty()
                && call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                *counts.entry((pid, call)).or_default() += 1;
            }
        }
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((_, call), count) in counts {
            let entry = most.entry(call).or_default();
            *entry = count.max(*entry);
        }
        assert!(!most.is_empty(), "nothing was traced: {trace}");
        most.iter().flat_map(|(call, most)| (1..=*most).map(|n| ((*call).to_owned(), n))).collect()
    }

    /// Kills the scene at up to `most` of its moments.
    fn kill(&self, name: &str, scene: &Scene, most: usize) {
        let moments = self.moments(scene);
        let ended = self.tags();
        (scene.prepare)();
        let begun = self.tags();
        let taken = most.min(moments.len());
        for n in 0..taken {
            let (call, nth) = &moments[n * moments.len() / taken];
            let at = format!("{name}, killed at {call} {nth}");
            println!("{at}");
            (scene.prepare)();
            let old = contents(&scene.made);
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let succeeded = self.trace(scene, n, &["-e", &inject]);
            self.check(&at);
            let tags = self.tags();
            assert!(
                if succeeded { tags == ended } else { tags == ended || tags == begun },
                "{at}: {tags:?}"
            );
            self.check_made(&at, n, &scene.made, &old);

            let again = scene.again.as_ref().filter(|_| tags == ended).unwrap_or(&scene.command);
            let mut command = self.env.svp(numbered(again, n));
            command.env("SOURCE_DATE_EPOCH", "1700000000");
            let result = output(&mut command);
            assert!(result.status.success(), "{at}: again: {}", transcript(&command, &result));
            assert_eq!(self.tags(), ended, "{at}");
            self.check(&at);
            self.env.assert_nothing_left();
        }
        println!("{name}: {taken} of {} moments", moments.len());
    }

    /// Checks that the next command finds a sound store, and sweeps the staging of the killed one.
    fn check(&self, at: &str) {
        let mut command = self.env.svp(["check", "--store"]);
        let result = output(&mut command);
        assert!(
            result.status.success() && result.stdout.is_empty(),
            "{at}: {}",
            transcript(&command, &result)
        );
        let staging: Vec<_> = fs::read_dir(self.env.store().join("tmp")).unwrap().collect();
        assert!(staging.is_empty(), "{at}: {staging:?}");
    }

    fn check_made(&self, at: &str, n: usize, made: &Made, old: &[u8]) {
        match made {
            Made::Nothing => {}
            Made::Layout(dir) => check_layout(at, dir),
            Made::File(file) => {
                let new = contents(made);
                // An archive ends with blocks of zeros; svp and skopeo verify its contents.
                assert!(new == old || is_archive(file), "{at}: {} is half written", file.display());
                let dir = fs::read_dir(file.parent().unwrap()).unwrap();
                let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                for left in names.filter(|name| name.starts_with(".svp-")) {
                    // linkat can't replace a file and rename needs a name: between the two calls the complete archive
                    // has a temporary name.
                    assert!(at.contains("rename"), "{at}: {left}");
                    assert!(is_archive(&file.with_file_name(left)), "{at}");
                }
            }
            Made::Repository(name) => {
                let mut skopeo = self.env.skopeo();
                let repository = self.remote(&name.replace("{n}", &n.to_string()));
                skopeo.args(["list-tags", "--tls-verify=false", &repository]);
                let listed = output(&mut skopeo);
                if String::from_utf8_lossy(&listed.stdout).contains("\"1\"") {
                    let to = self.env.path("fetched");
                    let _ = fs::remove_dir_all(&to);
                    let mut skopeo = self.env.skopeo();
                    skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
                    success(
                        skopeo.arg(format!("{repository}:1")).arg(format!("dir:{}", to.display())),
                    );
                }
            }
        }
    }
}

fn text(env: &TestEnv, name: &str) -> String {
    env.path(name).to_str().unwrap().to_owned()
}

fn contents(made: &Made) -> Vec<u8> {
    match made {
        Made::File(file) => fs::read(file).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Returns whether tar reads the archive to its end, and it has the parts of an image.
fn is_archive(file: &Path) -> bool {
    let mut tar = std::process::Command::new("tar");
    let listed = output(tar.arg("-tf").arg(file));
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.status.success() && (names.contains("manifest.json") || names.contains("index.json"))
}

/// Checks that every image that a layout lists is complete. An unfinished directory may not be a layout yet.
fn check_layout(at: &str, dir: &Path) {
    let Ok(index) = fs::read(dir.join("index.json")) else { return };
    let index: Value = serde_json::from_slice(&index).expect(at);
    assert!(dir.join("oci-layout").exists(), "{at}");
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
        let bytes = fs::read(dir.join("blobs").join(digest.replace(':', "/")));
        let bytes = bytes.unwrap_or_else(|error| panic!("{at}: {digest}: {error}"));
        assert_eq!(Digest::of(&bytes).to_string(), digest, "{at}");
        bytes
    };
    for entry in index["manifests"].as_array().expect("manifests") {
        let manifest: Value = serde_json::from_slice(&blob(entry)).expect("JSON");
        blob(&manifest["config"]);
        manifest["layers"].as_array().expect("layers").iter().for_each(|layer| drop(blob(layer)));
    }
    for entry in fs::read_dir(dir.join("blobs/sha256")).expect(at) {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
        assert_eq!(Digest::of(fs::read(path).unwrap()).hex(), name.to_str().unwrap(), "{at}");
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

fn numbered(command: &[String], n: usize) -> Vec<String> {
    command.iter().map(|word| word.replace("{n}", &n.to_string())).collect()
}

impl Scene {
    fn new(command: &[&str], prepare: impl Fn() + 'static) -> Self {
        Scene {
            command: words(command),
            prepare: Box::new(prepare),
            again: None,
            made: Made::Nothing,
            sandboxed: false,
        }
    }
}

/// Returns a closure that runs `svp ARGUMENTS` in the environment, ignoring the result.
fn quietly(env: &TestEnv, arguments: &[&str]) -> impl Fn() + 'static {
    let command = std::cell::RefCell::new(env.svp(arguments));
    move || drop(output(&mut command.borrow_mut()))
}

/// Commands that add a name to the store, and those that remove one.
fn store_scenes(most: usize) {
    let world = World::new();
    let env = &world.env;
    let fresh = || quietly(env, &["rmi", "old:1"]);
    for command in [
        &["import", "data.tar", "-t", "old:1"][..],
        &["load", "-i", "in-docker.tar"],
        &["load", "-i", "in-oci.tar"],
        &["tag", "busybox", "old:1"],
        &["pull", "oci:in:old:1"],
    ] {
        world.kill(&command.join(" "), &Scene::new(command, fresh()), most);
    }
    let mut rmi = Scene::new(&["rmi", "old:1"], quietly(env, &["pull", "oci:in:old:1"]));
    rmi.again = Some(words(&["prune"]));
    world.kill("rmi", &rmi, most);
    let (load, tag) = (quietly(env, &["pull", "oci:in:old:1"]), env.store().join("tags/old%3A1"));
    let prepare = move || {
        load();
        // Blobs that no tag needs.
        fs::remove_file(&tag).unwrap();
    };
    world.kill("prune", &Scene::new(&["prune"], prepare), most);
}

/// Commands that write a layout or an archive.
fn output_scenes(most: usize) {
    let world = World::new();
    let env = &world.env;
    env.ok(["pull", "oci:in:old:1"]);
    for there in [true, false] {
        let out = env.path("out");
        let dir = out.clone();
        let other = quietly(env, &["save", "old:1", "-o", "oci:out"]);
        let prepare = move || {
            let _ = fs::remove_dir_all(&dir);
            if there {
                other();
            }
        };
        let mut layout = Scene::new(&["save", "busybox", "-o", "oci:out"], prepare);
        layout.made = Made::Layout(out);
        world.kill(&format!("save to a layout, already existing: {there}"), &layout, most);
    }
    for (format, there) in
        [("oci-archive", true), ("docker-archive", false), ("docker-archive", true)]
    {
        let file = env.path("archives/out.tar");
        let path = file.clone();
        let prepare = move || {
            let _ = fs::remove_dir_all(path.parent().unwrap());
            fs::create_dir(path.parent().unwrap()).unwrap();
            if there {
                fs::write(&path, "an old file").unwrap();
            }
        };
        let output = format!("{format}:archives/out.tar");
        let mut archive = Scene::new(&["save", "busybox", "-o", &output], prepare);
        archive.made = Made::File(file);
        world.kill(&format!("save to {format}, already existing: {there}"), &archive, most);
    }
}

/// Pull and push.
fn registry_scenes(most: usize) {
    let world = World::new();
    let env = &world.env;
    let remote = world.remote("base:1");
    env.ok(["rmi", "busybox"]);
    let pull = Scene::new(&["pull", &remote, "-t", "new:1"], quietly(env, &["rmi", "new:1"]));
    world.kill("pull", &pull, most);

    let mut push = Scene::new(&["push", "new:1", &world.remote("pushed{n}:1")], || ());
    push.made = Made::Repository("pushed{n}".to_owned());
    world.kill("push", &push, most);
}

/// Commands that run scripts.
fn sandbox_scenes(most: usize) {
    let world = World::new();
    let env = &world.env;
    let hello = support::pack("hello");
    let options = ["-b", hello.to_str().unwrap(), "--network", "none"];
    env.ok(["build", "--base", "busybox", "-t", "hello:1"].iter().chain(&options));
    let command =
        [&["build", "--base", "busybox", "-t", "new:1", "--oci-dir", "built"], &options[..]];
    let (rmi, out) = (quietly(env, &["rmi", "new:1"]), env.path("built"));
    let prepare = move || {
        rmi();
        let _ = fs::remove_dir_all(&out);
    };
    let mut build = Scene::new(&command.concat(), prepare);
    build.sandboxed = true;
    build.made = Made::Layout(env.path("built"));
    world.kill("build", &build, most);

    // A given secret instead of a random one, so that the image is the same.
    fs::write(env.path("secret"), "hunter2").unwrap();
    let secret = ["--secret", "HELLO_PASSWORD=@secret"];
    let command = [&["setup", "-i", "hello:1", "-t", "one:1"], &options[..]].concat();
    let mut setup = Scene::new(&[&command[..], &secret].concat(), quietly(env, &["rmi", "one:1"]));
    // If the name is taken already, its secrets exist too.
    setup.again = Some(words(&[&command[..], &["--keep-secrets"]].concat()));
    setup.sandboxed = true;
    world.kill("setup", &setup, most);
}

#[test]
fn store_commands() {
    store_scenes(FEW);
}

#[test]
fn output_commands() {
    output_scenes(FEW);
}

#[test]
fn pull_and_push() {
    registry_scenes(FEW);
}

#[test]
fn build_and_setup() {
    sandbox_scenes(FEW);
}

#[test]
#[ignore = "long: make soak"]
fn at_every_moment_with_store() {
    store_scenes(MANY);
}

#[test]
#[ignore = "long: make soak"]
fn at_every_moment_with_outputs() {
    output_scenes(MANY);
}

#[test]
#[ignore = "long: make soak"]
fn at_every_moment_with_registries() {
    registry_scenes(MANY);
}

#[test]
#[ignore = "long: make soak"]
fn at_every_moment_with_sandboxes() {
    sandbox_scenes(MANY);
}
