//! A real docker-registry on a loopback port, stopped when dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use svp::error::Error;
use svp::registry::{Client, ClientOptions};

use super::wait_until;

/// A running registry.
pub struct Registry {
    server: Server,
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
        self.server.address()
    }

    #[track_caller]
    fn launch(htpasswd: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("svp-registry-").tempdir().expect("a temp dir");
        let mut config = format!(
            "storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n",
            dir.path().join("data").display()
        );
        if !htpasswd.is_empty() {
            let file = dir.path().join("htpasswd");
            std::fs::write(&file, htpasswd).expect("htpasswd");
            config +=
                &format!("auth:\n  htpasswd:\n    realm: svp\n    path: {}\n", file.display());
        }
        Registry { server: Server::start(dir.path(), &config, ""), _dir: dir }
    }
}

/// A process of docker-registry; killed when dropped.
pub struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts docker-registry with its files in `dir`: a configuration without version and log, and the options of
    /// `http` other than the address, as YAML. The kernel chooses the port: another test may take a port that was free.
    #[track_caller]
    pub fn start(dir: &Path, config: &str, http: &str) -> Server {
        let (file, log) = (dir.join("config.yml"), dir.join("log"));
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n{config}\
             http:\n  addr: 127.0.0.1:0\n{http}"
        );
        std::fs::write(&file, text).expect("a file");
        let output = std::fs::File::create(&log).expect("a log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}: run `make deps`"));
        let mut server = Server { process, port: 0 };
        wait_until("docker-registry listens", || {
            let text = std::fs::read_to_string(&log).expect("a log");
            assert!(server.process.try_wait().expect("wait").is_none(), "it has ended:\n{text}");
            server.port = reported_port(&text).unwrap_or(0);
            server.port != 0
        });
        server
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Finds the port in the log of docker-registry.
fn reported_port(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("listening on 127.0.0.1:")?;
    rest.split_once(|c: char| !c.is_ascii_digit())?.0.parse().ok()
}

/// Returns a loopback port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Returns a client of the library, for any loopback registry.
pub fn connect(options: ClientOptions) -> Result<Client, Error> {
    Client::for_push(options, &"localhost/any".parse().unwrap())
}
