//! A client of image registries (distribution-spec).
//!
//! Servers are not trusted. All sizes are bounded, manifests are checked against the requested digest, and blobs are
//! streamed to the caller, which verifies them with [`DigestReader`](crate::oci::DigestReader). Plain http is limited
//! to loopback and insecure registries, credentials go only to their registry, and every request has a timeout.
//!
//! Bottom up: `url`, `certs`, `client_certificate`, `tls` and `proxy`; `response`, `forward` and `http`, one request with
//! its redirects; `complaint`, `fault`, `words` and `status`, the meaning of failures; `retry`; `challenge`, `credential_helper`,
//! `auth_file` and `auth`; `scope` and `token`; `request`, the authenticated request of a [`Client`]; `manifest`, `blob`,
//! `upload_plan` and `upload`; `registries_conf`; and `remote`, an image at one of its locations.

mod auth;
mod auth_file;
mod blob;
mod certs;
mod challenge;
mod client_certificate;
mod complaint;
mod credential_helper;
mod credentials;
mod fault;
mod forward;
mod http;
mod login;
mod manifest;
mod options;
mod pem;
mod proxy;
mod registries_conf;
mod remote;
mod request;
mod response;
mod retry;
mod scope;
mod server_verifier;
mod slow_servers;
mod status;
mod tls;
mod token;
mod trace;
mod upload;
mod upload_plan;
mod url;
mod words;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

pub use auth::AuthFiles;
pub use blob::{BlobReader, read_error};
pub use certs::CertDirs;
pub use credentials::{Login, Password};
pub use http::Reopen;
pub use login::{CredentialStore, remove_logins, try_login};
pub use manifest::{LARGEST_MANIFEST, RawManifest};
pub use options::ClientOptions;
pub use proxy::Proxies;
pub use registries_conf::Registries;
pub(crate) use registries_conf::{SYSTEM, user_directories};
pub use remote::Remote;
pub use upload::Pushed;

use crate::error::{Error, Result};
use crate::oci::Reference;
use fault::{Fault, FaultKind, excerpt};
use http::{GetOptions, Http};
use response::Response;
use url::{Scheme, Url};

/// The maximum size of a list of tags that is fetched for a hint, in bytes.
const LARGEST_TAG_LIST: u64 = 1 << 20;

/// A registry client. Clones and threads share its connections, tokens and knowledge of servers.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    /// Whether unverified TLS is allowed.
    insecure: bool,
    http: Http,
    authorizer: token::Authorizer,
    /// The schemes found by probing, by `HOST[:PORT]`.
    schemes: Mutex<HashMap<String, Scheme>>,
}

impl Client {
    /// Creates a client to push to the repository of `reference`, without sending anything. Ignores the mirrors and
    /// locations in registries.conf, which apply only to pulls (see [`Remote`]): pushes go to the named registry.
    ///
    /// # Errors
    /// If a `--cacert` file can't be read or contains no certificate, or the proxy's URL or a registries.conf is
    /// invalid; [`Kind::Registry`](crate::error::Kind::Registry) if the registry is blocked.
    pub fn for_push(options: ClientOptions, reference: &Reference) -> Result<Self> {
        let name = reference.clone().with_default_registry().to_string();
        let insecure = options.registries.conf()?.insecure(&name)?;
        Self::trusting(options, insecure)
    }

    /// Creates a client that accepts unverified TLS and plain http if `insecure`, unless the options override it.
    fn trusting(options: ClientOptions, insecure: bool) -> Result<Self> {
        let http = Http::new(&options)?;
        let conf = options.registries.conf()?;
        let files = match conf.helpers() {
            Some(helpers) => options.auth_files.clone().with_helpers(helpers),
            None => options.auth_files.clone(),
        };
        let authorizer = token::Authorizer::new(files);
        let insecure = options.tls_verify.map_or(insecure, |verify| !verify);
        let schemes = Mutex::default();
        Ok(Client(Arc::new(Inner { options, insecure, http, authorizer, schemes })))
    }

    /// Fetches the manifest or index that `reference` names: by its digest if it has one, else by its tag.
    ///
    /// # Errors
    /// [`Kind::Registry`](crate::error::Kind::Registry) if the registry can't be reached, refuses, has no such image,
    /// or sends something that is not a manifest, exceeds [`LARGEST_MANIFEST`] or does not match the requested digest.
    pub fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let reference = reference.clone().with_default_registry();
        retry::run(&self.0.options, || self.manifest_once(&reference))
    }

    fn manifest_once(&self, reference: &Reference) -> Result<RawManifest, Fault> {
        let name = reference.digest().map(|digest| digest.to_string());
        let name = name.as_deref().unwrap_or(reference.tag_or_latest());
        let get = GetOptions { accept: Some(manifest::ACCEPT), ..GetOptions::default() };
        let response = self.get(reference, &format!("manifests/{name}"), get)?;
        match response.status {
            200 => {}
            404 => return Err(self.not_found(reference, response)),
            _ => return Err(status::fault(response, "a manifest")),
        }
        let server = response.url.authority();
        let content_type = response.content_type();
        let bytes = response.read(LARGEST_MANIFEST, "a manifest")?;
        let found =
            manifest::check(&server, content_type.as_deref(), bytes).map_err(Fault::permanent)?;
        // Docker-Content-Digest is only a claim of the server: compare the digest computed from the bytes.
        match reference.digest().filter(|digest| *digest != found.digest) {
            Some(_) => Err(Fault::permanent(Error::registry(format!(
                "{server} sends a different manifest, with the digest {}",
                found.digest
            )))),
            None => Ok(found),
        }
    }

    fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// Returns the URL of `path` in the repository of `reference`.
    fn url_in(&self, reference: &Reference, path: &str) -> Result<Url, Fault> {
        let registry = reference.registry().unwrap_or("docker.io");
        self.url(registry, &format!("/v2/{}/{path}", reference.repository()))
    }

    /// Returns the URL of `path` at `registry`, named as in a reference.
    fn url(&self, registry: &str, path: &str) -> Result<Url, Fault> {
        // Docker Hub's API has another host name than its images.
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let either = self.0.insecure || url::is_loopback(url::host_of(authority));
        let scheme = if either { self.scheme_of(authority)? } else { Scheme::Https };
        self.url_with(scheme, authority, path)
    }

    fn url_with(&self, scheme: Scheme, authority: &str, path: &str) -> Result<Url, Fault> {
        let url = Url::new(scheme, authority, path).map_err(|why| {
            Fault::permanent(Error::registry(format!("invalid registry host {authority:?}: {why}")))
        })?;
        Ok(if self.0.insecure { url.insecure() } else { url })
    }

    /// Returns https if the registry speaks it, else plain http; for registries that may speak either.
    ///
    /// Probes once for each registry, without credentials. Falls back to plain http only if the server answers TLS with
    /// something else or closes the connection; an untrusted certificate is an error, as with other registries.
    fn scheme_of(&self, authority: &str) -> Result<Scheme, Fault> {
        let mut schemes = self.0.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scheme) = schemes.get(authority) {
            return Ok(*scheme);
        }
        let scheme = if self.0.http.has_tls() { self.probe(authority)? } else { Scheme::Http };
        schemes.insert(authority.to_owned(), scheme);
        Ok(scheme)
    }

    fn probe(&self, authority: &str) -> Result<Scheme, Fault> {
        let url = self.url_with(Scheme::Https, authority, "/v2/")?;
        // Without an explicit port, the schemes have different ports: 443 may refuse connections while 80 serves.
        let one_port = authority != url::host_of(authority);
        // Plain http may take another way: a proxy that is not for https.
        let plain = self.url_with(Scheme::Http, authority, "/v2/")?;
        let other_way = self.0.http.is_forwarded(&plain);
        match self.0.http.get(&url, GetOptions::default()) {
            Ok(response) => {
                response.discard();
                Ok(Scheme::Https)
            }
            Err(fault) => match fault.kind {
                FaultKind::NotTls | FaultKind::Cut => Ok(Scheme::Http),
                FaultKind::Refused if !one_port || other_way => Ok(Scheme::Http),
                FaultKind::Unreachable if other_way => Ok(Scheme::Http),
                _ => Err(fault),
            },
        }
    }

    /// Finds out which is missing at a registry, the repository or the tag, and returns the error for it.
    fn not_found(&self, reference: &Reference, response: Response) -> Fault {
        let server = response.url.authority();
        let repository = reference.repository();
        let code = words::Words::of(response).code;
        let no_repository = || {
            Fault::permanent(
                Error::registry(format!("{server} has no repository {repository}"))
                    .hint("check the image's name"),
            )
        };
        if code == "NAME_UNKNOWN" {
            return no_repository();
        }
        let tags = match self.get(reference, "tags/list", GetOptions::default()) {
            Ok(list) if list.status == 404 => return no_repository(),
            Ok(list) if list.status == 200 => tags(list),
            _ => Vec::new(),
        };
        let missing = match reference.digest() {
            Some(digest) => format!("no manifest {digest}"),
            None => format!("no tag {}", reference.tag_or_latest()),
        };
        let hint = match tags.len() {
            0 => "check the tag".to_owned(),
            _ => format!("its tags: {}", tags.join(", ")),
        };
        Fault::permanent(
            Error::registry(format!("{server} has {missing} in {repository}")).hint(hint),
        )
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.options).finish()
    }
}

/// Returns the first tags of a repository, for a hint.
fn tags(list: Response) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct List {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let bytes = list.read(LARGEST_TAG_LIST, "a list of tags").unwrap_or_default();
    let list: List = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut tags: Vec<_> = list.tags.unwrap_or_default();
    let more = tags.len() > 10;
    tags.truncate(10);
    let mut shown: Vec<_> = tags.iter().map(|tag| excerpt(tag, 128)).collect();
    if more {
        shown.push("…".into());
    }
    shown
}
