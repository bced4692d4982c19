//! `svp import`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::parsed;
use super::common::{Context, source_date_epoch};
use crate::error::Result;
use crate::import::{ImportOptions, Input, import};
use crate::oci::{Platform, Reference};
use crate::pipeline::refuse_instance_name;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tar of a root file system, plain or compressed with gzip or zstd; - is standard input
    #[arg(value_name = "ROOTFS.tar|-")]
    input: PathBuf,
    /// The tag of the new image
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Reference,
    /// The platform of the root file system [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// Replace an instance that has this tag
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let options = ImportOptions {
        platform: args.platform.unwrap_or_else(Platform::host),
        created: source_date_epoch()?.unwrap_or_else(now),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let input = Input::open(&args.input)?;
    let store = context.store()?;
    refuse_instance_name(&store, &args.tag, args.force)?;
    let descriptor = import(input, &store, &args.tag, &options, context.reporter())?;
    context.print(&format!("{}\n", descriptor.digest))
}
