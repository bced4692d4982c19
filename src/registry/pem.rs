//! PEM files of certificates.

use std::path::Path;

use ureq::tls::{Certificate, PemItem};

use crate::error::{Context, Error, IoContext, Result};

/// Reads the certificates in a PEM file.
pub(super) fn read(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path)
        .io("read the certificate file", path)
        .hint("check the file that --cacert names")?;
    let bad = || {
        Error::bad_input(format!("{} contains no PEM certificate", path.display()))
            .hint("a certificate is enclosed in -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----")
    };
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| bad())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(bad()) } else { Ok(found) }
}
