//! `svp man`: writes the manual pages, generated from the `--help` texts.

use std::path::PathBuf;

use clap::Command;

use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory; created if it does not exist
    dir: PathBuf,
}

pub(super) fn run(args: &Args, command: Command) -> Result<()> {
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(command, &args.dir))
        .map_err(|error| Error::io("write manual pages to", &args.dir, error))
}
