//! podman with storage of its own, by the flags that work as root and as an ordinary user, on hosts with cgroups of
//! either version and without systemd.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Place, as_root, output, success, told};

/// podman in a place. Its containers and its storage go when dropped.
pub struct Podman<'a> {
    place: &'a Place,
    storage: PathBuf,
}

/// A container that runs; removed when dropped.
pub struct Container<'a> {
    podman: &'a Podman<'a>,
    id: String,
}

impl<'a> Podman<'a> {
    /// podman with empty storage.
    pub fn new(place: &'a Place) -> Self {
        // podman refuses long paths here.
        Podman { place, storage: place.dir().join("pod") }
    }

    /// `podman ARGUMENTS`, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.place.command("podman");
        command.arg("--root").arg(self.storage.join("root"));
        command.arg("--runroot").arg(self.storage.join("run"));
        command.args(["--storage-driver", "overlay", "--events-backend", "file"]);
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(arguments);
        command
    }

    /// Loads an archive or a directory; the name podman gives the image.
    #[track_caller]
    pub fn load(&self, file: &Path) -> String {
        let told = success(self.command(["load", "--input"]).arg(file));
        let name = told.lines().rev().find_map(|line| line.strip_prefix("Loaded image: "));
        name.unwrap_or_else(|| panic!("podman load said: {told}")).trim().to_string()
    }

    /// `podman run ARGUMENTS` in the foreground; its stdout.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        success(self.command(["run", "--rm"]).args(limits()).args(arguments))
    }

    /// `podman run -d ARGUMENTS`.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Container<'_> {
        let id = success(self.command(["run", "--detach"]).args(limits()).args(arguments));
        Container { podman: self, id: id.trim().to_string() }
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.command(["rm", "--all", "--force", "--time", "0"]).output().ok();
        if !as_root() {
            // Its files belong to subordinate ids.
            self.command(["unshare", "rm", "-rf"]).arg(&self.storage).output().ok();
            // An ordinary user's podman leaves a process that holds its namespaces.
            let pause = self.place.dir().join("run/libpod/tmp/pause.pid");
            if let Ok(pid) = std::fs::read_to_string(pause) {
                Command::new("kill").arg(pid.trim()).status().ok();
            }
        }
    }
}

impl Container<'_> {
    /// Runs a command in the container until it succeeds; its stdout. Gives up after `limit` with the last failure
    /// and the container's log.
    #[track_caller]
    pub fn exec_until_ok(&self, limit: Duration, command: &[&str]) -> String {
        let until = Instant::now() + limit;
        loop {
            let mut exec = self.exec(command);
            let result = output(&mut exec);
            if result.status.success() {
                return String::from_utf8_lossy(&result.stdout).into_owned();
            }
            assert!(Instant::now() < until, "{}log:\n{}", told(&exec, &result), self.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// `podman exec CONTAINER COMMAND`, not yet started.
    pub fn exec(&self, command: &[&str]) -> Command {
        let mut exec = self.podman.command(["exec", &self.id]);
        exec.args(command);
        exec
    }

    /// What the service has said so far.
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

/// podman's default limits are above what a confined root may set.
fn limits() -> [&'static str; 2] {
    ["--ulimit=nofile=1024:4096", "--ulimit=nproc=1024:4096"]
}
