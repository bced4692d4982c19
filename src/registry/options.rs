//! Options of a registry client.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::auth::AuthFiles;
use super::certs::CertDirs;
use super::proxy::Proxies;
use super::registries_conf::Registries;
use crate::progress::Reporter;

/// Options of a [`Client`](super::Client). [`ClientOptions::default`] is for commands: it uses the proxies and auth
/// files of the environment.
#[derive(Clone)]
pub struct ClientOptions {
    /// PEM files of certificate authorities to trust besides the system's.
    pub cacert: Vec<PathBuf>,
    /// The source of registry-specific certificates.
    pub cert_dirs: CertDirs,
    /// The source of credentials.
    pub auth_files: AuthFiles,
    /// The configuration of registries.
    pub registries: Registries,
    /// Whether TLS must be verified, overriding `registries`; `None` leaves it to them.
    pub tls_verify: Option<bool>,
    /// The proxy for https, and the hosts that are reached without it.
    pub proxies: Proxies,
    /// Timeout for name resolution, connecting and the TLS handshake together, over all addresses of the host.
    pub connect_timeout: Duration,
    /// Timeout for a server that sends or accepts no data.
    pub idle_timeout: Duration,
    /// Timeout for a manifest, a token or a probe; each redirect has its own.
    pub request_timeout: Duration,
    /// Minimum rate of a blob's transfer, in bytes per second, measured over each `rate_window`.
    pub minimum_rate: u64,
    /// The span over which `minimum_rate` is measured.
    pub rate_window: Duration,
    /// Maximum number of retries after transient failures.
    pub retries: u32,
    /// The first pause between attempts; it doubles each time.
    pub backoff: Duration,
    /// Maximum pause between attempts; a server that asks for a longer one is not asked again.
    pub longest_wait: Duration,
    /// Receives an event before each retry.
    pub reporter: Option<Arc<dyn Reporter>>,
}

impl ClientOptions {
    /// Uses nothing from the environment: no proxies, no credentials.
    pub fn isolated() -> Self {
        ClientOptions {
            cacert: Vec::new(),
            cert_dirs: CertDirs::none(),
            auth_files: AuthFiles::none(),
            registries: Registries::none(),
            tls_verify: None,
            proxies: Proxies::none(),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            minimum_rate: 1024,
            rate_window: Duration::from_secs(30),
            retries: 4,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            reporter: None,
        }
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            cert_dirs: CertDirs::from_env(None),
            auth_files: AuthFiles::from_env(None),
            registries: Registries::from_env(),
            proxies: Proxies::from_env(),
            ..Self::isolated()
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("cacert", &self.cacert)
            .field("cert_dirs", &self.cert_dirs)
            .field("auth_files", &self.auth_files)
            .field("registries", &self.registries)
            .field("tls_verify", &self.tls_verify)
            .field("proxies", &self.proxies)
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("minimum_rate", &self.minimum_rate)
            .field("rate_window", &self.rate_window)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("longest_wait", &self.longest_wait)
            .finish_non_exhaustive()
    }
}
