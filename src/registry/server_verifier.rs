//! Whether the server on the other side of TLS is whom svp wants to speak to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use ureq::tls::Certificate;

use crate::error::{Error, Result};

/// Whom to speak to.
#[derive(Clone, Copy)]
pub(super) enum ExpectedServer<'a> {
    /// Accepts any certificate, provided the peer proves possession of its key.
    Anyone,
    /// Servers that an authority vouches for: one of the system's, or one that was `named`. A server that shows a named
    /// certificate itself is known too: `openssl req -x509` makes one that calls itself an authority, and it is shown by
    /// registries, as docker's manual describes.
    Known { system: &'a [Certificate<'static>], named: &'a [Certificate<'static>] },
}

impl ExpectedServer<'_> {
    /// The verifier.
    ///
    /// # Errors
    /// None of the authorities can be used.
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>> {
        let provider = Arc::clone(provider);
        let ExpectedServer::Known { system, named } = self else {
            return Ok(Arc::new(Verifier { provider, authorities: None, named: Vec::new() }));
        };
        let mut roots = RootCertStore::empty();
        let all = system.iter().chain(named).map(|c| CertificateDer::from(c.der()));
        roots.add_parsable_certificates(all);
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|why| {
                    Error::registry("there is no certificate authority to trust")
                        .hint("install ca-certificates, or name one with --cacert FILE")
                        .source(why)
                })?;
        let named = named.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
        Ok(Arc::new(Verifier { provider, authorities: Some(authorities), named }))
    }
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// None to take anyone.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        match authorities.verify_server_cert(shown, chain, server, ocsp, now) {
            Err(TlsError::InvalidCertificate(why))
                if is_authority(&why) && self.named.iter().any(|named| named == shown) =>
            {
                verify_server_name(&ParsedCertificate::try_from(shown)?, server)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate is refused for being an authority's. That comes after a look at its time: one that has expired is
/// refused for that.
fn is_authority(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(why) if why.to_string() == "CaUsedAsEndEntity")
}
