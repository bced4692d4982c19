//! `svp tag`.

use super::args::parsed;
use super::common::Context;
use crate::error::Result;
use crate::oci::Reference;
use crate::pipeline;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image in the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// The new name; removed from any other image that has it
    #[arg(value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    name: Reference,
    /// Take the name from an instance
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let store = context.store()?;
    let record = store.resolve(&args.image)?;
    pipeline::copy::tag(&store, &args.name, &record.manifest, args.force)
}
