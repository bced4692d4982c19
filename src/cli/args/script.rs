//! How a script runs, and how its layer is written.

use clap::ValueEnum;

use super::{CompressionArgs, EnvArg, parsed};
use crate::cli::common::source_date_epoch;
use crate::error::Result;
use crate::pipeline::ScriptOptions;
use crate::sandbox::Network;

/// Options for a script and its layer.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScriptArgs {
    /// Network of the script: auto is private where possible, else the host's
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// Set a variable for the script; it does not reach the image
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = parsed::<EnvArg>)]
    env: Vec<EnvArg>,
    #[command(flatten)]
    pub(in crate::cli) compression: CompressionArgs,
}

impl ScriptArgs {
    pub(in crate::cli) fn options(self) -> Result<ScriptOptions> {
        let network = match self.network {
            NetworkArg::Auto => Network::Private,
            NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
        };
        Ok(ScriptOptions {
            network,
            env: EnvArg::pairs(&self.env),
            compression: self.compression.settings()?,
            source_date_epoch: source_date_epoch()?,
        })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkArg {
    Auto,
    Host,
    None,
}
