//! `svp tag`.

use super::common::{Context, parsed};
use crate::error::Result;
use crate::oci::Reference;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image of the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// Its new name; an image that has it loses it
    #[arg(value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    name: Reference,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let store = context.store()?;
    let record = store.resolve(&args.image)?;
    store.load_image(&record.manifest)?;
    store.set_tag(&args.name, &record.manifest, record.created.as_deref())
}
