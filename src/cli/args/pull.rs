//! Options for pulling an image: platform, pull policy and signature policy.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{RegistryArgs, parsed};
use crate::cli::common::Context;
use crate::oci::Platform;
use crate::source::{PullOptions, PullPolicy, SignaturePolicy};

/// Options for pulling an image.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PullArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Choose this platform from an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// When to pull an image that the store may have
    #[arg(long = "pull", value_enum, value_name = "WHEN", default_value = "always")]
    policy: PolicyArg,
    #[command(flatten)]
    signatures: SignatureArgs,
    /// Never contact a registry; use the store alone
    #[arg(long, conflicts_with = "policy")]
    offline: bool,
}

/// Options for the signature policy.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SignatureArgs {
    /// Use this policy.json instead of the user's or the system's
    #[arg(long = "policy", value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Accept an image whose signature the policy requires: svp can't verify it
    #[arg(long)]
    allow_unverified: bool,
}

impl SignatureArgs {
    pub(in crate::cli) fn policy(self) -> SignaturePolicy {
        SignaturePolicy::from_env(self.policy_file).allow_unverified(self.allow_unverified)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// If the store does not have it
    Missing,
    /// Always; blobs in the store are not downloaded again
    Always,
    /// Always, but fall back to the store if the registry fails
    Newer,
    /// Never
    Never,
}

impl PullArgs {
    /// As [`PullArgs::options`], for commands that copy a whole index unless a platform is given.
    pub(in crate::cli) fn whole_options(self, context: &Context) -> PullOptions {
        PullOptions { whole: self.platform.is_none(), ..self.options(context) }
    }

    pub(in crate::cli) fn options(self, context: &Context) -> PullOptions {
        let mut options = PullOptions::default();
        self.registry.apply(&mut options.client, context);
        options.signature_policy = self.signatures.policy();
        options.policy = match self.policy {
            _ if self.offline => PullPolicy::Never,
            PolicyArg::Missing => PullPolicy::Missing,
            PolicyArg::Always => PullPolicy::Always,
            PolicyArg::Newer => PullPolicy::Newer,
            PolicyArg::Never => PullPolicy::Never,
        };
        if let Some(platform) = self.platform {
            options.platform = platform;
        }
        options
    }
}
