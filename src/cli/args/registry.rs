//! Options for connections to registries: certificates and credentials.

use std::path::PathBuf;

use crate::cli::common::Context;
use crate::registry::{AuthFiles, CertDirs, ClientOptions};

/// Options for connections to registries.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RegistryArgs {
    /// Also trust the certificates in FILE (PEM)
    #[arg(long, value_name = "FILE")]
    cacert: Vec<PathBuf>,
    /// Read authorities (*.crt) and a client certificate (*.cert, *.key) from DIR instead of certs.d
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Read registry credentials from FILE
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Require TLS and verify certificates; false also allows plain http
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
}

impl RegistryArgs {
    /// Returns the auth file given on the command line; the file need not exist yet.
    pub(in crate::cli) fn login_file(&self) -> Option<PathBuf> {
        self.authfile.clone()
    }

    pub(in crate::cli) fn apply(self, options: &mut ClientOptions, context: &Context) {
        options.reporter = Some(context.shared_reporter());
        options.cacert = self.cacert;
        options.tls_verify = self.tls_verify;
        options.cert_dirs = CertDirs::from_env(self.cert_dir.as_deref());
        options.auth_files = AuthFiles::from_env(self.authfile.as_deref());
    }
}
