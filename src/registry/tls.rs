//! TLS: the crypto provider and the trusted authorities.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

use super::certs::{CertDirs, HostCertificates};
use super::client_certificate::Tls;
use super::pem;
use super::server_verifier::ExpectedServer;
use super::url::Url;
use crate::error::{Error, Result};

/// The servers that a connection trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// Whether to accept any certificate, rather than only those of the system's authorities and of `--cacert`.
    anyone: bool,
    /// The directory of host-specific certificates.
    directory: Option<PathBuf>,
}

impl Trust {
    /// Returns the trust settings for the server of `url`.
    pub(super) fn of(url: &Url, directories: &CertDirs) -> Self {
        Trust { anyone: url.is_insecure(), directory: directories.of(url) }
    }
}

/// Creates agents for https.
pub(super) struct Maker {
    provider: Arc<CryptoProvider>,
    system: Vec<Certificate<'static>>,
    /// The authorities of `--cacert`.
    named: Vec<Certificate<'static>>,
}

impl Maker {
    /// Reads the system's authorities and those in `cacert`.
    ///
    /// # Errors
    /// If a file of `cacert` can't be read or contains no certificate, or the processor does not support the built-in
    /// cryptography.
    pub(super) fn new(cacert: &[PathBuf]) -> Result<Self> {
        let provider = Arc::new(provider()?);
        // Ignore unreadable files of the system: connections that need their authorities fail later, with the
        // hint to use --cacert.
        let system = rustls_native_certs::load_native_certs().certs;
        let system = system.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let mut named = Vec::new();
        for path in cacert {
            named.extend(pem::read(path)?);
        }
        Ok(Maker { provider, system, named })
    }

    /// Creates an agent with the settings `config` and `trust`.
    ///
    /// # Errors
    /// If a host-specific certificate can't be read or parsed.
    pub(super) fn agent(&self, config: ConfigBuilder<AgentScope>, trust: &Trust) -> Result<Agent> {
        let own =
            trust.directory.as_deref().map(HostCertificates::read).transpose()?.unwrap_or_default();
        let named = [self.named.as_slice(), &own.authorities].concat();
        if !named.is_empty() || !own.clients.is_empty() {
            let whom = match trust.anyone {
                true => ExpectedServer::Anyone,
                false => ExpectedServer::Known { system: &self.system, named: &named },
            };
            let tls = Tls::new(&self.provider, whom, &own.clients)?;
            let chain =
                ().chain(ConnectProxyConnector::default())
                    .chain(TcpConnector::default())
                    .chain(tls);
            return Ok(Agent::with_parts(config.build(), chain, DefaultResolver::default()));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::clone(&self.provider))
            .root_certs(RootCerts::Specific(Arc::new(self.system.clone())))
            .disable_verification(trust.anyone)
            .build();
        Ok(config.tls_config(tls).build().new_agent())
    }
}

/// Returns graviola if the processor supports it, else ring, each only if compiled in.
fn provider() -> Result<CryptoProvider> {
    #[cfg(feature = "tls-graviola")]
    if processor_runs_graviola() {
        return Ok(rustls_graviola::default_provider());
    }
    #[cfg(feature = "tls-ring")]
    return Ok(rustls::crypto::ring::default_provider());
    #[cfg(all(feature = "tls-graviola", not(feature = "tls-ring")))]
    return Err(Error::registry(format!(
        "svp's TLS can't run on this processor: it needs {NEEDED}"
    ))
    .hint(
        "build svp with `--no-default-features --features tls-ring`, or use an image from a file",
    ));
    #[cfg(not(any(feature = "tls-graviola", feature = "tls-ring")))]
    return Err(Error::registry("this svp was built without TLS")
        .hint("build it with the feature tls-graviola or tls-ring"));
}

#[cfg(all(feature = "tls-graviola", target_arch = "x86_64"))]
const NEEDED: &str = "AES, PCLMULQDQ, BMI1, BMI2, ADX, AVX and AVX2";

/// Returns whether the processor has the features that graviola needs; it panics without them.
#[cfg(all(feature = "tls-graviola", target_arch = "x86_64"))]
fn processor_runs_graviola() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("aes")
        && has!("pclmulqdq")
        && has!("bmi1")
        && has!("bmi2")
        && has!("adx")
        && has!("avx")
        && has!("avx2")
}

#[cfg(all(feature = "tls-graviola", target_arch = "aarch64"))]
const NEEDED: &str = "NEON, AES, PMULL and SHA-2";

#[cfg(all(feature = "tls-graviola", target_arch = "aarch64"))]
fn processor_runs_graviola() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
}
