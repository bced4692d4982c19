//! `svp new`: creates a pack to start from.

use std::path::Path;

use super::common::Context;
use crate::error::Result;
use crate::pack::scaffold;
use crate::progress::ImageNote;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name of the service and of the directory: lower-case letters, digits and '-'
    name: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let dir = scaffold(&args.name, Path::new(""))?;
    context.print(&format!("{}\n", dir.display()))?;
    let (directory, name) = (dir.display().to_string(), args.name.clone());
    context.reporter().note(ImageNote::PackCreated { directory, name }.into());
    Ok(())
}
