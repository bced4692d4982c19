//! Options for running a script and writing its layer.

use clap::ValueEnum;

use super::{BoundArgs, CompressionArgs, EnvArg, parsed};
use crate::cli::common::source_date_epoch;
use crate::error::Result;
use crate::pipeline::ScriptOptions;
use crate::sandbox::Network;

/// Options for a script and its layer.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScriptArgs {
    /// Network of the script: auto is private, or what the configuration names where this host has none
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// Set a variable for the script; the image does not store it
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = parsed::<EnvArg>)]
    env: Vec<EnvArg>,
    #[command(flatten)]
    bounds: BoundArgs,
    #[command(flatten)]
    pub(in crate::cli) compression: CompressionArgs,
}

impl ScriptArgs {
    pub(in crate::cli) fn options(self) -> Result<ScriptOptions> {
        Ok(ScriptOptions {
            network: self.network.into(),
            env: EnvArg::pairs(&self.env),
            compression: self.compression.settings()?,
            source_date_epoch: source_date_epoch()?,
            bounds: self.bounds.bounds(),
        })
    }
}

/// The network given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum NetworkArg {
    /// Private, connected by pasta
    Auto,
    /// The host's
    Host,
    /// Only a loopback interface
    None,
}

impl From<NetworkArg> for Network {
    fn from(arg: NetworkArg) -> Self {
        match arg {
            NetworkArg::Auto => Network::Private,
            NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
        }
    }
}
