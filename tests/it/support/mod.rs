//! Helpers of the tests through the binary: a private environment, real bases, real registries, other tools. Nothing
//! here skips: a missing prerequisite fails the test with the packages to install.

pub mod docker;
pub mod fault_registry;
pub mod machine;
pub mod many;
pub mod ordinary_user;
pub mod podman;
pub mod real_registry;
pub mod registry;
pub mod sources;
pub mod token_registry;
pub mod tree;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Returns the root of the repository.
pub fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the pack `name` of `fixtures/packs`.
pub fn pack(name: &str) -> PathBuf {
    let path = repo().join("fixtures/packs").join(name);
    assert!(path.is_dir(), "there is no pack {}", path.display());
    path
}

/// Returns whether the tests run as root.
pub fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a root file system with only busybox, as a tar archive.
pub fn busybox_base() -> PathBuf {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| base("busybox")).clone()
}

/// Returns a minimal Debian bookworm, as a tar archive.
pub fn debian_base() -> PathBuf {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| base("debian")).clone()
}

fn base(name: &str) -> PathBuf {
    let script = repo().join("scripts/make-base.sh");
    PathBuf::from(run(script, [name]).trim())
}

/// Waits until `holds` returns true; panics after 30 seconds.
#[track_caller]
pub fn wait_until(condition: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(30), "timed out waiting: {condition}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs another program to its end; returns its stdout. Panics with its output if it fails.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    success(&mut command)
}

/// Returns skopeo, not yet started. It keeps its cache of blob locations below `data`; as root it would keep it in
/// `/var/lib/containers`, whatever `XDG_DATA_HOME` says.
pub fn skopeo(data: &Path) -> Command {
    let mut skopeo = Command::new("skopeo");
    skopeo.env("XDG_DATA_HOME", data).env("_CONTAINERS_ROOTLESS_UID", "1");
    skopeo
}

/// Runs `command` to its end with no stdin; returns its stdout. Panics with its output if it fails.
#[track_caller]
pub fn success(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{}", transcript(command, &output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `command` to its end with no stdin. Panics if the program can't be started.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    command.output().unwrap_or_else(|error| {
        panic!("{:?}: {error}: run `make deps`, which installs it", command.get_program())
    })
}

/// Formats `command` and its output, for a message.
pub fn transcript(command: &Command, output: &Output) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{command:?}: {}", output.status);
    let _ = writeln!(text, "--- stdout\n{}", String::from_utf8_lossy(&output.stdout));
    let _ = writeln!(text, "--- stderr\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Returns whether this host can create private networks, as `svp check` finds out.
fn has_private_network() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temp dir");
        let mut check = Command::new(env!("CARGO_BIN_EXE_svp"));
        check.args(["check", "--format", "json"]).env("HOME", dir.path());
        check.env("SVP_ROOT", dir.path().join("store")).env_remove("XDG_CONFIG_HOME");
        let result = output(&mut check);
        let found: serde_json::Value = serde_json::from_slice(&result.stdout).unwrap_or_default();
        let network =
            found.as_array().and_then(|all| all.iter().find(|one| one["what"] == "network"));
        // svp can't run at all: let the tests say why.
        network.is_none_or(|network| network["ok"] == true)
    })
}

/// A private environment: store, home, temporary and runtime directories, all removed when dropped.
pub struct TestEnv {
    dir: tempfile::TempDir,
}

impl Default for TestEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl TestEnv {
    /// Creates an empty environment.
    pub fn new() -> Self {
        // podman derives an image's name from a directory's path, and rejects upper-case letters.
        let name = format!("svp-test-{:08x}", rand::random::<u32>());
        let dir = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir();
        let dir = dir.expect("a temp dir");
        for name in ["home", "tmp", "run", "work"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path().join("run"), private).expect("chmod");
        let env = TestEnv { dir };
        // A host without private networks: allow the host's, as a user there does. Tests of the network itself fail there.
        if !has_private_network() {
            let config = env.dir().join("home/.config/svp");
            std::fs::create_dir_all(&config).expect("a directory");
            std::fs::write(config.join("config.toml"), "[network]\nfallback = \"host\"\n")
                .expect("a file");
        }
        env
    }

    /// Returns the directory that contains the whole environment.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the store, `SVP_ROOT`.
    pub fn store(&self) -> PathBuf {
        self.dir().join("store")
    }

    /// Returns svp's directory for temporary files, `TMPDIR`.
    pub fn tmp(&self) -> PathBuf {
        self.dir().join("tmp")
    }

    /// Returns a path for the test's own files, relative to svp's working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join("work").join(name)
    }

    /// Returns a program that runs in this environment, with no other variables.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir().join("work"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.dir().join("home"))
            .env("TMPDIR", self.tmp())
            .env("XDG_RUNTIME_DIR", self.dir().join("run"))
            .env("SVP_ROOT", self.store())
            .stdin(Stdio::null());
        // Except for those of coverage and proxies, which are inherited.
        for name in ["LLVM_PROFILE_FILE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]
        {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost");
        command
    }

    /// Returns skopeo in this environment, not yet started.
    pub fn skopeo(&self) -> Command {
        let mut skopeo = self.command("skopeo");
        skopeo.env("_CONTAINERS_ROOTLESS_UID", "1");
        skopeo
    }

    /// Runs `skopeo --insecure-policy ARGUMENTS`, which must succeed; returns its stdout.
    #[track_caller]
    pub fn skopeo_ok(&self, arguments: &[&str]) -> String {
        success(self.skopeo().arg("--insecure-policy").args(arguments))
    }

    /// Returns `svp ARGUMENTS`, not yet started.
    pub fn svp<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_svp"));
        command.args(arguments);
        command
    }

    /// Runs `svp ARGUMENTS`, which must succeed; returns its stdout.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        success(&mut self.svp(arguments))
    }

    /// Runs `svp ARGUMENTS`, which must fail with `code` and print nothing on stdout; returns its stderr.
    #[track_caller]
    pub fn fails<A: AsRef<OsStr>>(
        &self,
        code: i32,
        arguments: impl IntoIterator<Item = A>,
    ) -> String {
        let mut command = self.svp(arguments);
        let output = output(&mut command);
        assert_eq!(output.status.code(), Some(code), "{}", transcript(&command, &output));
        assert!(output.stdout.is_empty(), "data on stdout:\n{}", transcript(&command, &output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Imports the busybox base as `busybox:latest`.
    #[track_caller]
    pub fn import_busybox(&self) {
        self.ok([
            OsStr::new("import"),
            busybox_base().as_os_str(),
            "-t".as_ref(),
            "busybox".as_ref(),
        ]);
    }

    /// Imports the Debian base as `debian:bookworm`.
    #[track_caller]
    pub fn import_debian(&self) {
        self.ok([
            OsStr::new("import"),
            debian_base().as_os_str(),
            "-t".as_ref(),
            "debian:bookworm".as_ref(),
        ]);
    }

    /// Creates a pack of `(path, content)`, with the files in `bin/` executable; returns its directory.
    pub fn write_pack(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.path(name);
        for (path, content) in files {
            let file = dir.join(path);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            std::fs::write(&file, content).expect("a file");
            let mode = if path.starts_with("bin/") { 0o755 } else { 0o644 };
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
        dir
    }

    /// Returns the processes of this environment that are not about to end: a killed one takes a moment to end.
    fn lasting_processes(&self) -> Vec<String> {
        for _ in 0..100 {
            if processes_of(self.dir()).is_empty() {
                return Vec::new();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        processes_of(self.dir())
    }

    /// Panics if a mount, process or temporary file of svp is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        let name = self.dir().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        left.extend(mounts.lines().filter(|line| line.contains(&name)).map(String::from));
        left.extend(self.lasting_processes());
        let mut areas = vec![self.tmp(), self.store().join("tmp")];
        if let Ok(maps) = std::fs::read_dir(self.store().join("trees")) {
            areas.extend(maps.map(|map| map.expect("an entry").path().join("tmp")));
        }
        for area in areas {
            match std::fs::read_dir(&area) {
                Ok(entries) => left.extend(
                    entries.map(|entry| entry.expect("an entry").path().display().to_string()),
                ),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", area.display()),
            }
        }
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

impl Drop for TestEnv {
    /// Ends the services that a failed test left, and removes the files of subordinate ids too, which the temporary
    /// directory's own removal can't.
    fn drop(&mut self) {
        for service in std::fs::read_dir(self.store().join("services")).into_iter().flatten() {
            let name = service.expect("an entry").file_name();
            self.svp(["rm".as_ref(), "--force".as_ref(), name.as_os_str()]).output().ok();
        }
        if !as_root() {
            let mut remove = Command::new("unshare");
            remove.args([
                "--user",
                "--map-root-user",
                "--map-auto",
                "rm",
                "-rf",
                "--one-file-system",
            ]);
            remove.args(["store", "tmp", "work", "home"].map(|name| self.dir().join(name)));
            remove.status().ok();
        }
    }
}

/// Returns the processes of the test environment in `dir`: those whose variables, arguments, working directory or
/// mounts name it. A container's script names it only in its mounts.
pub fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let file_name = entry.file_name();
        let Some(pid) = file_name.to_str().and_then(|text| text.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let holds = |file: &str| {
            std::fs::read(entry.path().join(file))
                .is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name))
        };
        let cwd =
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if cwd || holds("environ") || holds("cmdline") || holds("mountinfo") {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // Rootless podman's pause process, which keeps its namespaces forever: not svp's.
            if command.ends_with(b"catatonit\0-P\0") {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                continue;
            }
            found.push(format!(
                "process {pid}: {}",
                String::from_utf8_lossy(&command).replace('\0', " ")
            ));
        }
    }
    found
}

/// Returns the processes whose arguments (each ended by a NUL) contain `text`.
pub fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    found
}

/// Checks the layout with ocidir; returns its output. Builds the checker if `make test` has not.
#[track_caller]
pub fn conformance(layout: &Path) -> String {
    static CHECKER: OnceLock<PathBuf> = OnceLock::new();
    let checker = CHECKER.get_or_init(|| {
        if let Some(path) = std::env::var_os("SVP_CONFORMANCE") {
            return path.into();
        }
        let target = repo().join("target/conformance");
        let manifest = repo().join("tests/conformance/Cargo.toml");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        success(
            Command::new(cargo)
                .args(["build", "--quiet", "--locked", "--manifest-path"])
                .arg(manifest)
                .arg("--target-dir")
                .arg(&target),
        );
        target.join("debug/svp-conformance")
    });
    run(checker, [layout])
}

/// Checks the JSON file with the OCI image specification's schema `name`, such as `image-manifest-schema`.
#[track_caller]
pub fn check_schema(name: &str, file: &Path) {
    const CHECK: &str = "
import json, os, sys
from jsonschema import Draft4Validator, RefResolver
directory, name, path = sys.argv[1:]
store = {}
for entry in os.listdir(directory):
    if entry.endswith('.json'):
        schema = json.load(open(os.path.join(directory, entry)))
        # Their ids name no file, their references do.
        schema.pop('id', None)
        store['file:///' + entry] = schema
def all_ids(node):
    if isinstance(node, dict):
        if isinstance(node.get('id'), str) and node['id'].startswith('https:'):
            del node['id']
        for value in node.values(): all_ids(value)
    elif isinstance(node, list):
        for value in node: all_ids(value)
all_ids(store)
schema = store['file:///' + name + '.json']
resolver = RefResolver('file:///' + name + '.json', schema, store=store)
errors = list(Draft4Validator(schema, resolver=resolver).iter_errors(json.load(open(path))))
for error in errors:
    print(list(error.absolute_path), error.message, file=sys.stderr)
sys.exit(bool(errors))
";
    let schemas = repo().join("tests/it/support/schema");
    let arguments: [&OsStr; 5] =
        ["-c".as_ref(), CHECK.as_ref(), schemas.as_ref(), name.as_ref(), file.as_ref()];
    run("/usr/bin/python3", arguments);
}
