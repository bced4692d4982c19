//! Client certificates: those of certs.d, offered to servers that request one.
//!
//! ureq's own TLS accepts only one client certificate, only in X.509 version 3 (`openssl x509 -req` writes version 1
//! by default, which registries accept), and no custom verifier. So connections to hosts with a client certificate or
//! with named authorities are wrapped here.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, InconsistentKeys, SignatureScheme, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use super::certs::ClientCertificate;
use super::server_verifier::ExpectedServer;
use crate::error::{Error, Result};

/// Wraps connections to https servers in TLS.
#[derive(Debug)]
pub(super) struct Tls(Arc<ClientConfig>);

/// The available client certificates.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl Tls {
    /// Creates the TLS configuration: verifies the server as `whom`, and offers one of `pairs` if it requests one.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a key that does not match its certificate, or of an
    /// unsupported type.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        whom: ExpectedServer<'_>,
        pairs: &[ClientCertificate],
    ) -> Result<Self> {
        let identities = pairs.iter().map(|pair| identity(provider, pair));
        let identities = Identities(identities.collect::<Result<_>>()?);
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::registry("can't set up TLS").source(why))?
            .dangerous()
            .with_custom_certificate_verifier(whom.verifier(provider)?);
        Ok(Tls(Arc::new(builder.with_client_cert_resolver(Arc::new(identities)))))
    }
}

fn identity(provider: &CryptoProvider, pair: &ClientCertificate) -> Result<Arc<CertifiedKey>> {
    let bad = |why: &dyn fmt::Display| {
        Error::bad_input(format!("the client certificate {}: {why}", pair.path.display()))
            .hint("the .cert contains the certificate, and the .key its unencrypted key, as PEM")
    };
    let key = PrivateKeyDer::try_from(pair.key.der().to_vec()).map_err(|why| bad(&why))?;
    let key = provider.key_provider.load_private_key(key).map_err(|why| bad(&why))?;
    let chain = pair.chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
    let identity = CertifiedKey::new(chain, key);
    let mismatch = match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => false,
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => true,
        // For a certificate that rustls can't parse (version 1), search its bytes for the public key.
        Err(_) => identity
            .key
            .public_key()
            .is_some_and(|key| !identity.cert.first().is_some_and(|cert| holds(cert, &key))),
    };
    match mismatch {
        true => Err(bad(&"its .key does not match this certificate")),
        false => Ok(Arc::new(identity)),
    }
}

/// Returns whether `whole` contains `part`.
fn holds(whole: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

impl ResolvesClientCert for Identities {
    /// Prefers a certificate signed by an authority that the server names; else takes one with a suitable key.
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|own| own.key.choose_scheme(schemes).is_some());
        let named = |own: &&Arc<CertifiedKey>| {
            own.cert.iter().any(|cert| authorities.iter().any(|name| holds(cert, name)))
        };
        usable().find(named).or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ureq::Error::Tls("the host name is not valid for TLS"))?;
        let mut conn = ClientConnection::new(Arc::clone(&self.0), name)?;
        let mut sock = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned { conn, sock } })))
    }
}

/// A TLS connection.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped").finish_non_exhaustive()
    }
}
