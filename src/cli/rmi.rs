//! `svp rmi`.

use super::args::parsed;
use super::common::Context;
use crate::error::Result;
use crate::oci::Reference;
use crate::progress::{ImageNote, Step, announce_if_slow};
use crate::upkeep::remove;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Images in the store
    #[arg(required = true, value_name = "IMAGE", value_parser = parsed::<Reference>)]
    images: Vec<Reference>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let mut store = context.store()?;
    let removed = announce_if_slow(context.reporter(), Step::RemoveImages, || {
        remove(&mut store, &args.images)
    })?;
    for (image, services) in removed.in_use {
        context.reporter().note(ImageNote::ImageInUse { image, services }.into());
    }
    if removed.collected.is_none() {
        context.reporter().note(ImageNote::LayersKept.into());
    }
    context.print(&removed.tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())
}
