//! A client of image registries (distribution-spec).
//!
//! Everything that a server sends is a claim. Sizes are bounded before they are believed, manifests are
//! checked against the digest that was asked for, blobs stream and are the caller's to verify with
//! [`DigestReader`](crate::oci::DigestReader). Plain http is spoken to loopback alone, credentials stay
//! with the registry that they are for, and nothing waits forever.
//!
//! From the lowest: `url`, `certs`, `client_certificate`, `tls` and `proxy`; `response` and `http`, one request with
//! its redirects;
//! `fault` and `status`, the meaning of failures; `retry`; `challenge`, `auth`, `credential_helper` and `token`;
//! `manifest` and `blob`; `registries_conf`; and `remote`, an image at one of its locations.
//! The authenticated request ([`Client`] itself) is independent of pulling.

mod auth;
mod blob;
mod certs;
mod challenge;
mod client_certificate;
mod credential_helper;
mod credentials;
mod fault;
mod http;
mod login;
mod manifest;
mod options;
mod pem;
mod proxy;
mod registries_conf;
mod remote;
mod response;
mod retry;
mod server_verifier;
mod status;
mod tls;
mod token;
mod trace;
mod upload;
mod url;

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

use log::debug;

use crate::error::{Error, Result};
use crate::oci::Reference;
use fault::{Fault, FaultKind, excerpt};
use http::{GetOptions, Http, Method, WriteRequest};
use response::Response;
use url::{Scheme, Url};

/// The most that a list of tags, shown in a hint, may hold.
const LARGEST_TAG_LIST: u64 = 1 << 20;

/// A registry client: connections, tokens and knowledge of servers, shared by its clones and threads.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    /// Whether unverified TLS is allowed.
    insecure: bool,
    http: Http,
    authorizer: token::Authorizer,
    /// Which scheme each registry speaks that may speak either.
    schemes: Mutex<HashMap<String, Scheme>>,
}

impl Client {
    /// A client to push to the repository of `reference`; nothing is sent yet. Mirrors are for pulling, and so is
    /// another location: what is pushed goes to the registry that is named. [`Remote`] pulls.
    ///
    /// # Errors
    /// A `--cacert` file that can't be read or holds no certificate; a proxy that isn't understood; a registries.conf
    /// that is wrong; [`Kind::Registry`](crate::error::Kind::Registry) if the registry is blocked.
    pub fn for_push(options: ClientOptions, reference: &Reference) -> Result<Self> {
        let name = reference.clone().with_default_registry().to_string();
        let insecure = options.registries.conf()?.insecure(&name)?;
        Self::trusting(options, insecure)
    }

    /// A client whose registries need no TLS if they are `insecure`, unless the options have a word on it.
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

    /// The manifest or index that `reference` names: by its digest if it has one, else by its tag.
    ///
    /// # Errors
    /// [`Kind::Registry`](crate::error::Kind::Registry): the registry can't be reached, refuses, has no such
    /// image, or sends something that is no manifest, is larger than [`LARGEST_MANIFEST`] or has not the
    /// digest that was asked for.
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
        // Docker-Content-Digest is only the server's claim: compute the digest of the bytes.
        match reference.digest().filter(|digest| *digest != found.digest) {
            Some(_) => Err(Fault::permanent(Error::registry(format!(
                "{server} sends another manifest, whose digest is {}",
                found.digest
            )))),
            None => Ok(found),
        }
    }

    fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// GETs `/v2/REPOSITORY/path`, answering one challenge on the way.
    fn get(
        &self,
        reference: &Reference,
        path: &str,
        get: GetOptions<'_>,
    ) -> Result<Response, Fault> {
        let url = self.url_in(reference, path)?;
        let request = |authorization: Option<&str>| {
            self.0.http.get(&url, GetOptions { authorization, ..get })
        };
        self.authorized(&registry_repository(reference), &url, 1, &request)
    }

    /// Sends a request to `/v2/REPOSITORY/path`.
    fn send(
        &self,
        reference: &Reference,
        path: &str,
        sent: &WriteRequest<'_>,
    ) -> Result<Response, Fault> {
        self.send_to(reference, &self.url_in(reference, path)?, sent)
    }

    /// Sends a request to `url` on behalf of the registry of `reference`. Credentials go to that registry alone.
    fn send_to(
        &self,
        reference: &Reference,
        url: &Url,
        sent: &WriteRequest<'_>,
    ) -> Result<Response, Fault> {
        let request = |authorization: Option<&str>| {
            self.0.http.send(url, &WriteRequest { authorization, ..*sent })
        };
        if !self.url_in(reference, "")?.same_origin(url) {
            return request(None);
        }
        // Uploads need a wider scope than lookups, and another thread may have obtained a narrower one.
        let challenges = if sent.method == Method::Head { 1 } else { 2 };
        self.authorized(&registry_repository(reference), url, challenges, &request)
    }

    /// Makes a request to the registry at `url`, answering up to `challenges` on the way.
    fn authorized(
        &self,
        place: &token::RegistryRepository,
        url: &Url,
        challenges: u32,
        request: &dyn Fn(Option<&str>) -> Result<Response, Fault>,
    ) -> Result<Response, Fault> {
        let mut answered = 0;
        let mut header = self.0.authorizer.header(place);
        loop {
            let response = request(header.as_ref().map(Password::reveal))?;
            if response.status != 401 {
                return Ok(response);
            }
            // The target of a redirect gets no credentials; and a registry that refuses what it has just
            // granted would do so forever.
            if answered == challenges || !response.url.same_origin(url) {
                return Err(match self.0.authorizer.source(place) {
                    Some(from) if answered > 0 => token::refused(url, &from),
                    _ => status::fault(response, &format!("{}/{}", place.0, place.1)),
                });
            }
            let values = response.headers.get_all("www-authenticate");
            let parsed = challenge::parse(values.iter().filter_map(|v| v.to_str().ok()));
            response.discard();
            let (host, asks) = (url.authority(), parsed.len());
            debug!("{host} wants a login for {:?}: {asks} challenges", place.1);
            let authorizer = &self.0.authorizer;
            let (granted, asked) =
                authorizer.answer(&self.0.http, url, place, &parsed, header.as_ref())?;
            match authorizer.source(place) {
                Some(from) => debug!("{host}: authorized by the login of {from:?}"),
                None => debug!("{host}: authorized without a login"),
            }
            header = Some(granted);
            // A token obtained by another thread may have expired already.
            answered += u32::from(asked);
        }
    }

    /// The URL of `path` in the repository of `reference`.
    fn url_in(&self, reference: &Reference, path: &str) -> Result<Url, Fault> {
        let registry = reference.registry().unwrap_or("docker.io");
        self.url(registry, &format!("/v2/{}/{path}", reference.repository()))
    }

    /// The URL of `path` at a registry named as in a reference.
    fn url(&self, registry: &str, path: &str) -> Result<Url, Fault> {
        // Docker Hub's registry has another name than its images.
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let either = self.0.insecure || url::is_loopback(url::host_of(authority));
        let scheme = if either { self.scheme_of(authority)? } else { Scheme::Https };
        self.url_with(scheme, authority, path)
    }

    fn url_with(&self, scheme: Scheme, authority: &str, path: &str) -> Result<Url, Fault> {
        let url = Url::new(scheme, authority, path).map_err(|why| {
            Fault::permanent(Error::registry(format!("{authority:?} is no registry's host: {why}")))
        })?;
        Ok(if self.0.insecure { url.insecure() } else { url })
    }

    /// https if the registry speaks it, else plain http: for those that may speak either.
    ///
    /// Asked once, without credentials. Only a server that answers TLS with something else, or by hanging
    /// up, is spoken to plainly: a certificate that isn't trusted is an error there as elsewhere.
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
        // Without a port, the two schemes are at two ports.
        let one_port = authority != url::host_of(authority);
        match self.0.http.get(&url, GetOptions::default()) {
            Ok(response) => {
                response.discard();
                Ok(Scheme::Https)
            }
            Err(fault) if matches!(fault.kind, FaultKind::NotTls | FaultKind::Cut) => {
                Ok(Scheme::Http)
            }
            Err(fault) if fault.kind == FaultKind::Refused && !one_port => Ok(Scheme::Http),
            Err(fault) => Err(fault),
        }
    }

    /// Says whether it is the repository or the tag that a registry doesn't have.
    fn not_found(&self, reference: &Reference, response: Response) -> Fault {
        let server = response.url.authority();
        let repository = reference.repository();
        let (code, _) = status::explanation(response);
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

/// The registry whose login is needed.
fn registry_repository(reference: &Reference) -> token::RegistryRepository {
    let registry = reference.registry().unwrap_or("docker.io");
    (registry.to_owned(), reference.repository().to_owned())
}

/// The first tags of a repository, for a hint.
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
