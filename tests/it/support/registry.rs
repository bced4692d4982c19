//! A real docker-registry on a free loopback port, stopped when dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use svp::error::Error;
use svp::registry::{Client, ClientOptions};

/// A running registry.
pub struct Registry {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts an open registry.
    #[track_caller]
    pub fn start() -> Self {
        Self::launch("")
    }

    /// Starts a registry that requires `user` and `password` (basic).
    #[track_caller]
    pub fn start_with_login(user: &str, password: &str) -> Self {
        Self::launch(&super::run("htpasswd", ["-Bbn", user, password]))
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    #[track_caller]
    fn launch(htpasswd: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("svp-registry-").tempdir().expect("a temp dir");
        let log = dir.path().join("log");
        // Another program may take the free port before the registry does.
        for _ in 0..5 {
            let port = free_port();
            let config = dir.path().join("config.yml");
            std::fs::write(&config, configuration(dir.path(), port, htpasswd)).expect("a file");
            let mut child = spawn(&config, &log);
            if is_up(&mut child, port) {
                return Registry { child, port, _dir: dir };
            }
            child.kill().ok();
            child.wait().expect("wait");
        }
        panic!(
            "docker-registry does not start:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn configuration(dir: &Path, port: u16, htpasswd: &str) -> String {
    let mut text = format!(
        "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
         enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
        dir.join("data").display()
    );
    if !htpasswd.is_empty() {
        let file = dir.join("htpasswd");
        std::fs::write(&file, htpasswd).expect("htpasswd");
        text += &format!("auth:\n  htpasswd:\n    realm: svp\n    path: {}\n", file.display());
    }
    text
}

fn spawn(config: &Path, log: &Path) -> Child {
    let log = std::fs::File::create(log).expect("a log");
    Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("docker-registry: {error}: run `make deps`"))
}

/// Returns a loopback port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Waits until the registry listens; returns false if it ends before that.
fn is_up(child: &mut Child, port: u16) -> bool {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if child.try_wait().expect("wait").is_some() {
            return false;
        }
        if answers(port).is_ok_and(|answer| answer.starts_with("HTTP/1.1 ")) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    false
}

fn answers(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Returns a client of the library, for any loopback registry.
pub fn connect(options: ClientOptions) -> Result<Client, Error> {
    Client::for_push(options, &"localhost/any".parse().unwrap())
}
