//! Starts Debian's docker-registry on a loopback port, and pushes an image into it with skopeo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use svp::oci::Digest;
use tempfile::TempDir;

use super::registry::Server;

/// The kind of registry to start.
#[derive(Default)]
pub struct Setup {
    pub password: bool,
    pub tls: bool,
    /// With TLS: clients must show a certificate of the same authority.
    pub client: bool,
    /// With TLS: the registry shows a self-signed certificate.
    pub self_signed: bool,
}

/// A running registry; stopped when dropped.
pub struct RealRegistry {
    /// `127.0.0.1:PORT`
    pub address: String,
    _server: Server,
    dir: TempDir,
    setup: (bool, bool, bool),
}

/// The pushed image.
pub struct Pushed {
    pub manifest: Digest,
    pub layer: Vec<u8>,
}

impl RealRegistry {
    pub const USER: &str = "user";
    pub const PASSWORD: &str = "pass:word";

    pub fn start(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!("storage: {{filesystem: {{rootdirectory: {}}}}}\n", at("data"));
        if setup.password {
            let line = run(Command::new("htpasswd").args(["-Bbn", Self::USER, Self::PASSWORD]));
            fs::write(at("htpasswd"), line).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("htpasswd"));
        }
        let mut http = String::new();
        if setup.tls {
            make_certificates(dir.path());
            if setup.self_signed {
                sign_itself(dir.path());
            }
            let (cert, key) = (at("server.pem"), at("server.key"));
            let of_clients = if setup.client {
                format!(", clientcas: [{}]", at("ca.pem"))
            } else {
                String::new()
            };
            http = format!("  tls: {{certificate: {cert}, key: {key}{of_clients}}}\n");
        }
        let server = Server::start(dir.path(), &config, &http);
        RealRegistry {
            address: server.address(),
            dir,
            _server: server,
            setup: (setup.password, setup.tls, setup.client),
        }
    }

    /// Returns the certificate authority of a registry with TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Deletes a blob, like a mirror that is cleaned up.
    pub fn lose(&self, blob: &Digest) {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        fs::remove_dir_all(blobs.join(&blob.hex()[..2]).join(blob.hex())).unwrap();
    }

    /// Returns a client's certificate and key.
    pub fn client_files(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("client.pem"), self.dir.path().join("client.key"))
    }

    /// Writes an auth file with the user's name and `password`.
    pub fn auth_file(&self, password: &str) -> PathBuf {
        use base64::Engine as _;
        let pair = format!("{}:{password}", Self::USER);
        let auth = base64::prelude::BASE64_STANDARD.encode(pair);
        let path = self.dir.path().join(format!("auth-{}.json", Digest::of(password).short()));
        let text = serde_json::json!({"auths": {(self.address.as_str()): {"auth": auth}}});
        fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Pushes an image of one layer as `name`.
    pub fn push(&self, name: &str) -> Pushed {
        let layout = self.dir.path().join("layout");
        let layer = small_layer();
        let manifest = write_layout(&layout, &layer);
        let mut skopeo = super::skopeo(self.dir.path());
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--preserve-digests"]);
        if self.setup.0 {
            skopeo.arg(format!("--dest-creds={}:{}", Self::USER, Self::PASSWORD));
        }
        if self.setup.2 {
            let dir = self.dir.path().join("of-skopeo");
            fs::create_dir_all(&dir).unwrap();
            let (cert, key) = self.client_files();
            fs::copy(cert, dir.join("client.cert")).unwrap();
            fs::copy(key, dir.join("client.key")).unwrap();
            skopeo.arg("--dest-cert-dir").arg(dir);
        }
        skopeo.arg(format!("oci:{}:image", layout.display()));
        skopeo.arg(format!("docker://{}/{name}", self.address));
        run(&mut skopeo);
        Pushed { manifest, layer }
    }
}

/// Returns a layer of one file.
fn small_layer() -> Vec<u8> {
    let content = b"a line of the only file\n".repeat(1000);
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "file", content.as_slice()).unwrap();
    tar.into_inner().unwrap()
}

fn write_layout(layout: &Path, layer: &[u8]) -> Digest {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        digest
    };
    let descriptor = |media_type: &str, digest: Digest, size: usize| serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    let layer_digest = put(layer);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest.to_string()]},
    })
    .to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": svp::oci::media_type::MANIFEST,
        "config": descriptor(svp::oci::media_type::CONFIG, put(config.as_bytes()), config.len()),
        "layers": [descriptor(svp::oci::media_type::LAYER, layer_digest, layer.len())],
    })
    .to_string();
    let digest = put(manifest.as_bytes());
    let mut entry = descriptor(svp::oci::media_type::MANIFEST, digest, manifest.len());
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "image"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    digest
}

/// Creates `ca.pem`, `server.pem` with `server.key` for 127.0.0.1, and `client.pem` with `client.key`.
fn make_certificates(dir: &Path) {
    let script = r#"
        new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        $new -x509 -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem
        $new -subj /CN=127.0.0.1 -keyout server.key -out server.csr
        echo 'subjectAltName = IP:127.0.0.1, DNS:localhost' > san
        openssl x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
            -extfile san -out server.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client.key -out client.csr
        # Of X.509 version 1 where this openssl makes such, as its users have.
        openssl x509 -req -days 2 -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out client.pem
    "#;
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

/// Creates a self-signed `server.pem`, and a copy as `ca.pem`. As in docker's manual, it is marked as an authority.
fn sign_itself(dir: &Path) {
    let script = "openssl req -newkey rsa:2048 -nodes -x509 -days 2 -subj /CN=127.0.0.1 \
        -addext 'subjectAltName = IP:127.0.0.1' -keyout server.key -out server.pem && cp server.pem ca.pem";
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

fn run(command: &mut Command) -> Vec<u8> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: install it (make deps)"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {stderr}");
    output.stdout
}
