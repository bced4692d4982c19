//! docker with its own daemon: Debian's dockerd on a socket in the test environment, without bridge and firewall rules.
//! The daemon, its containers and mounts are removed when dropped. Only root can run dockerd.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{TestEnv, output};

/// A running daemon.
pub struct Docker<'a> {
    env: &'a TestEnv,
    dir: PathBuf,
    daemon: Child,
}

impl<'a> Docker<'a> {
    /// Starts a daemon with empty storage.
    #[track_caller]
    pub fn start(env: &'a TestEnv) -> Self {
        let dir = env.dir().join("dk");
        std::fs::create_dir(&dir).expect("a directory");
        let log = std::fs::File::create(dir.join("log")).expect("a log");
        let mut command = env.command("dockerd");
        for (option, name) in
            [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")]
        {
            command.arg(option).arg(dir.join(name));
        }
        command.arg("--host").arg(socket(&dir));
        command.args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"]);
        command.args(["--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]);
        command.stdout(log.try_clone().expect("a log")).stderr(log).stdin(Stdio::null());
        let daemon =
            command.spawn().unwrap_or_else(|error| panic!("dockerd: {error}: run `make deps`"));
        let docker = Docker { env, dir, daemon };
        let until = Instant::now() + Duration::from_secs(60);
        while !output(&mut docker.command(&["version"])).status.success() {
            assert!(Instant::now() < until, "dockerd does not start:\n{}", docker.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    /// Returns `docker ARGUMENTS`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command("/usr/bin/docker");
        command.arg("--host").arg(socket(&self.dir)).args(arguments);
        command
    }

    /// Returns the daemon's log.
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

fn socket(dir: &Path) -> String {
    format!("unix://{}", dir.join("sock").display())
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // Running containers would outlive the daemon.
        let list = output(&mut self.command(&["ps", "--all", "--quiet"]));
        for id in String::from_utf8_lossy(&list.stdout).lines() {
            output(&mut self.command(&["rm", "--force", id]));
        }
        // On SIGTERM, dockerd ends its containerd and unmounts.
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.daemon),
            rustix::process::Signal::TERM,
        )
        .ok();
        self.daemon.wait().ok();
    }
}
