//! How to take an image from a registry.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{RegistryArgs, parsed};
use crate::oci::Platform;
use crate::source::{PullOptions, PullPolicy, SignaturePolicy};

/// How to take an image from a registry.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PullArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Take the image of an index for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// When to ask a registry for an image that the store may have
    #[arg(long = "pull", value_enum, value_name = "WHEN", default_value = "always")]
    policy: PolicyArg,
    /// Go by this policy.json, not by the user's or the system's
    #[arg(long = "policy", value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Ask no registry: what the store has must do
    #[arg(long, conflicts_with = "policy")]
    offline: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// If the store lacks it
    Missing,
    /// Always; what the store has is not transferred again
    Always,
    /// Always, and if the registry fails, what the store has will do
    Newer,
    /// Never
    Never,
}

impl PullArgs {
    /// As [`PullArgs::options`], for a command that takes an index of the store whole unless a platform is named.
    pub(in crate::cli) fn whole_options(self) -> PullOptions {
        PullOptions { whole: self.platform.is_none(), ..self.options() }
    }

    pub(in crate::cli) fn options(self) -> PullOptions {
        let mut options = PullOptions::default();
        self.registry.apply(&mut options.client);
        options.signature_policy = SignaturePolicy::from_env(self.policy_file);
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
