//! `svp man`: the manual pages, made of the same text as `--help`, for packages of svp.

use std::path::PathBuf;

use clap::CommandFactory;

use super::Cli;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory; created if it is not there
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir))
        .map_err(|error| Error::io("write manual pages to", &args.dir, error))
}
