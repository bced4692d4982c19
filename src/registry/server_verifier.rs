//! Verifies the certificates of TLS servers.

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

/// The servers to accept.
#[derive(Clone, Copy)]
pub(super) enum ExpectedServer<'a> {
    /// Accepts any certificate, provided the peer proves possession of its key.
    Anyone,
    /// Accepts servers whose certificate is signed by an authority of the system or a `named` one, or is itself a named
    /// certificate: the self-signed certificates of registries, which docker's manual creates with `openssl req -x509`,
    /// are marked as authorities, which WebPKI refuses for a server.
    Known { system: &'a [Certificate<'static>], named: &'a [Certificate<'static>] },
}

impl ExpectedServer<'_> {
    /// Creates the verifier.
    ///
    /// # Errors
    /// If none of the authorities can be used.
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
                    Error::registry("no trusted certificate authority")
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
    /// `None` to accept any certificate.
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

/// Returns whether the verifier refused a server's certificate only because it is marked as an authority. It checks
/// the validity period first, so an expired certificate is refused as expired.
fn is_authority(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(why) if why.to_string() == "CaUsedAsEndEntity")
}
