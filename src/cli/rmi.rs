//! `svp rmi`.

use super::common::{Context, parsed};
use crate::error::Result;
use crate::oci::Reference;
use crate::upkeep::remove;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Images of the store
    #[arg(required = true, value_name = "IMAGE", value_parser = parsed::<Reference>)]
    images: Vec<Reference>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let mut store = context.store()?;
    // All or none: a mistyped name is found before anything is removed.
    for image in &args.images {
        store.resolve(image)?;
    }
    for image in &args.images {
        let removed = remove(&mut store, image)?;
        if removed.collected.is_none() {
            context.reporter().note(&format!(
                "the layers of {} stay for now: the store is in use or another image is damaged",
                removed.tag
            ));
        }
        context.print(&format!("{}\n", removed.tag))?;
    }
    Ok(())
}
