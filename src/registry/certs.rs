//! certs.d: certificate authorities and client certificates for individual registry hosts (containers-certs.d(5)).

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PrivateKey};

use super::pem;
use super::registries_conf::{SYSTEM, user_directories};
use super::url::Url;
use crate::error::{Context, Error, IoContext, Result};

const NAME: &str = "certs.d";
/// Docker's configuration directory.
const DOCKER: &str = "/etc/docker";

/// The directories of host-specific certificates.
#[derive(Clone, Debug, Default)]
pub struct CertDirs {
    /// A single directory whose certificates apply to all hosts.
    named: Option<PathBuf>,
    /// Directories with one subdirectory for each `HOST[:PORT]`; only the first that has a host's is used.
    places: Vec<PathBuf>,
}

impl CertDirs {
    /// Uses no host-specific certificates.
    pub fn none() -> Self {
        Self::default()
    }

    /// Uses only `named` if given; else `certs.d` of the user, of the system and of docker.
    pub fn from_env(named: Option<&Path>) -> Self {
        if let Some(named) = named {
            return CertDirs { named: Some(named.to_owned()), places: Vec::new() };
        }
        let places = user_directories().into_iter().chain([SYSTEM.into(), DOCKER.into()]);
        CertDirs { named: None, places: places.map(|place| place.join(NAME)).collect() }
    }

    /// Returns the directory for the server of `url`.
    pub(super) fn of(&self, url: &Url) -> Option<PathBuf> {
        if self.named.is_some() {
            return self.named.clone();
        }
        let mut names = vec![url.authority(), format!("{}:{}", url.host(), url.port())];
        if url.host() == "registry-1.docker.io" {
            names.push("docker.io".into());
        }
        // A redirect may lead to a host name that is not a safe directory name, such as `..`.
        names.retain(|name| !name.starts_with('.'));
        let places = self.places.iter();
        places.flat_map(|place| names.iter().map(|name| place.join(name))).find(|dir| dir.is_dir())
    }
}

/// The certificates of one host.
#[derive(Default)]
pub(super) struct HostCertificates {
    pub(super) authorities: Vec<Certificate<'static>>,
    pub(super) clients: Vec<ClientCertificate>,
}

/// A client's certificate and its key.
pub(super) struct ClientCertificate {
    /// The path of the `.cert` file.
    pub(super) path: PathBuf,
    pub(super) chain: Vec<Certificate<'static>>,
    pub(super) key: PrivateKey<'static>,
}

impl HostCertificates {
    /// Reads `*.crt`, and `NAME.cert` with `NAME.key`. Treats a directory that svp may not enter as empty.
    pub(super) fn read(dir: &Path) -> Result<HostCertificates> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Ok(HostCertificates::default());
            }
            entries => entries.io("read", dir).hint("--cert-dir or certs.d names it")?,
        };
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.io("read", dir)?.path());
        }
        files.sort();
        let of_kind = |kind: &'static str| {
            let is = move |path: &&PathBuf| path.extension() == Some(OsStr::new(kind));
            files.iter().filter(is)
        };
        let mut own = HostCertificates::default();
        for path in of_kind("crt") {
            own.authorities.extend(pem::read(path)?);
        }
        let missing = |path: &Path, other: &Path| {
            Error::bad_input(format!("{} exists without {}", path.display(), other.display()))
                .hint("a client certificate is NAME.cert with the key NAME.key; a CA certificate is NAME.crt")
        };
        for key in of_kind("key") {
            let cert = key.with_extension("cert");
            if !files.contains(&cert) {
                return Err(missing(key, &cert));
            }
        }
        for path in of_kind("cert") {
            let key = path.with_extension("key");
            if !files.contains(&key) {
                return Err(missing(path, &key));
            }
            let pem = fs::read(&key).io("read the key", &key)?;
            let bad = |_| Error::bad_input(format!("{} contains no PEM key", key.display()));
            let key = PrivateKey::from_pem(&pem).map_err(bad)?;
            own.clients.push(ClientCertificate {
                path: path.clone(),
                chain: pem::read(path)?,
                key,
            });
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_directory_of_a_host_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["user", "system"].map(|name| dir.path().join(name));
        for name in
            ["system/r.example", "system/r.example:5000", "user/r.example:5000", "system/docker.io"]
        {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::create_dir_all(dir.path().join("system/other.example:443")).unwrap();
        let dirs = CertDirs { named: None, places: places.to_vec() };
        let of = |url: &str| {
            let found = dirs.of(&Url::parse(url).unwrap())?;
            Some(found.strip_prefix(dir.path()).unwrap().display().to_string())
        };
        let cases = [
            ("https://r.example/v2/", Some("system/r.example")),
            ("https://r.example:5000/v2/", Some("user/r.example:5000")),
            ("https://r.example:5001/v2/", None),
            ("https://x.r.example/v2/", None),
            ("https://other.example/v2/", Some("system/other.example:443")),
            ("https://registry-1.docker.io/v2/", Some("system/docker.io")),
            ("https://../v2/", None),
        ];
        for (url, expected) in cases {
            assert_eq!(of(url).as_deref(), expected, "{url}");
        }
        let named = CertDirs::from_env(Some(Path::new("/named")));
        assert_eq!(named.of(&Url::parse("https://a/").unwrap()), Some("/named".into()));
        assert_eq!(CertDirs::none().of(&Url::parse("https://a/").unwrap()), None);
    }

    #[test]
    fn errors_name_the_bad_file() {
        let cases = [
            (vec!["a.cert"], "a.key"),
            (vec!["a.key"], "a.cert"),
            (vec!["a.crt"], "a.crt contains no PEM certificate"),
            (vec!["a.cert", "a.key"], "a.key contains no PEM key"),
        ];
        for (files, said) in cases {
            let dir = tempfile::tempdir().unwrap();
            for name in &files {
                fs::write(dir.path().join(name), "hunter2").unwrap();
            }
            let error = HostCertificates::read(dir.path()).err().unwrap();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README"), "nothing").unwrap();
        assert!(HostCertificates::read(dir.path()).unwrap().clients.is_empty());
        assert!(HostCertificates::read(Path::new("/nonexistent")).is_err());
    }
}
