//! podman with its own storage, with the options that work as root and as an ordinary user, on hosts with cgroups of
//! either version and without systemd.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{TestEnv, as_root, output, success, transcript};

/// podman in a test environment. Its containers and its storage are removed when dropped.
pub struct Podman<'a> {
    env: &'a TestEnv,
    storage: PathBuf,
}

/// The result of `podman kube play`; taken down when dropped.
pub struct Played<'a> {
    podman: &'a Podman<'a>,
    file: PathBuf,
}

/// A running container; removed when dropped.
pub struct Container<'a> {
    podman: &'a Podman<'a>,
    id: String,
}

impl<'a> Podman<'a> {
    /// Returns podman with empty storage.
    pub fn new(env: &'a TestEnv) -> Self {
        // podman refuses long paths here.
        Podman { env, storage: env.dir().join("pod") }
    }

    /// Returns `podman ARGUMENTS`, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.env.command("podman");
        command.arg("--root").arg(self.storage.join("root"));
        command.arg("--runroot").arg(self.storage.join("run"));
        command.args(["--storage-driver", "overlay", "--events-backend", "file"]);
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(arguments);
        command
    }

    /// Loads an archive or a directory; returns the name that podman gives the image.
    #[track_caller]
    pub fn load(&self, file: &Path) -> String {
        let printed = success(self.command(["load", "--input"]).arg(file));
        let name = printed.lines().rev().find_map(|line| line.strip_prefix("Loaded image: "));
        name.unwrap_or_else(|| panic!("no image loaded: {printed}")).trim().to_string()
    }

    /// Runs `podman run ARGUMENTS` in the foreground; returns its stdout.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        success(self.command(["run", "--rm"]).args(limits()).args(arguments))
    }

    /// Runs `podman run -d ARGUMENTS`.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Container<'_> {
        let id = success(self.command(["run", "--detach"]).args(limits()).args(arguments));
        Container { podman: self, id: id.trim().to_string() }
    }

    /// Runs `podman kube play FILE`.
    #[track_caller]
    pub fn play(&'a self, file: &Path) -> Played<'a> {
        // There is no option for limits, and podman's own network would be a file of the host.
        let conf = self.env.path("containers.conf");
        let limits =
            "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n";
        std::fs::write(&conf, limits).expect("a file");
        let network = if as_root() { "podman" } else { "slirp4netns" };
        let mut play = self.command(["kube", "play", "--network", network]);
        // Periodic health checks need systemd.
        success(play.arg(file).env("CONTAINERS_CONF", conf).env("DISABLE_HC_SYSTEMD", "true"));
        Played { podman: self, file: file.to_owned() }
    }
}

impl<'a> Played<'a> {
    /// Returns the container that is called `name` in the file.
    #[track_caller]
    pub fn container(&self, name: &str) -> Container<'a> {
        let all = success(self.podman.command(["ps", "--format", "{{.Names}}"]).args(["--all"]));
        let found = all.lines().find(|line| line.ends_with(&format!("-{name}")));
        let id = found.unwrap_or_else(|| panic!("no {name} in {all}")).to_owned();
        Container { podman: self.podman, id }
    }
}

impl Played<'_> {
    /// Returns the addresses of its ports on the host, as `podman ps` reports them.
    #[track_caller]
    pub fn ports(&self) -> String {
        success(&mut self.podman.command(["ps", "--format", "{{.Ports}}"]))
    }
}

impl Drop for Played<'_> {
    fn drop(&mut self) {
        self.podman.command(["kube", "down"]).arg(&self.file).output().ok();
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.command(["pod", "rm", "--all", "--force", "--time", "0"]).output().ok();
        self.command(["rm", "--all", "--force", "--time", "0"]).output().ok();
        if !as_root() {
            // Its files belong to subordinate ids.
            self.command(["unshare", "rm", "-rf"]).arg(&self.storage).output().ok();
            // Rootless podman leaves its pause process, which keeps its namespaces.
            let pause = self.env.dir().join("run/libpod/tmp/pause.pid");
            if let Ok(pid) = std::fs::read_to_string(pause) {
                Command::new("kill").arg(pid.trim()).status().ok();
            }
        }
    }
}

impl Container<'_> {
    /// Runs a command in the container until it succeeds; returns its stdout. Gives up after `limit` with the last
    /// failure and the container's log.
    #[track_caller]
    pub fn exec_until_ok(&self, limit: Duration, command: &[&str]) -> String {
        let until = Instant::now() + limit;
        loop {
            let mut exec = self.exec(command);
            let result = output(&mut exec);
            if result.status.success() {
                return String::from_utf8_lossy(&result.stdout).into_owned();
            }
            assert!(Instant::now() < until, "{}log:\n{}", transcript(&exec, &result), self.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Returns `podman exec CONTAINER COMMAND`, not yet started.
    pub fn exec(&self, command: &[&str]) -> Command {
        let mut exec = self.podman.command(["exec", &self.id]);
        exec.args(command);
        exec
    }

    /// Returns its name or id.
    pub fn name(&self) -> &str {
        &self.id
    }

    /// Returns the service's output so far.
    pub fn log(&self) -> String {
        let result = output(&mut self.podman.command(["logs", &self.id]));
        String::from_utf8_lossy(&result.stdout).into_owned()
            + &String::from_utf8_lossy(&result.stderr)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.podman.command(["rm", "--force", "--time", "0", &self.id]).output().ok();
    }
}

/// podman's default limits exceed those that a confined root may set.
fn limits() -> [&'static str; 2] {
    ["--ulimit=nofile=1024:4096", "--ulimit=nproc=1024:4096"]
}
