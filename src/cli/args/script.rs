//! How a script runs, and how its layer is written.

use clap::ValueEnum;

use super::{CompressionArgs, env_argument};
use crate::cli::common::source_date_epoch;
use crate::error::Result;
use crate::pipeline::ScriptOptions;
use crate::sandbox::Network;

/// How a script runs, and how its layer is written.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScriptArgs {
    /// The script's network: one of its own where that can be made, else the host's; the host's; none
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// A variable for the script alone; it does not reach the image
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = env_argument)]
    env: Vec<(String, String)>,
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
            env: self.env,
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
