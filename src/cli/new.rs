//! `svp new`: a pack to begin with.

use std::path::Path;

use super::common::Context;
use crate::error::Result;
use crate::pack::scaffold;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service's name, and the directory's: lower-case letters, digits and '-'
    name: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let dir = scaffold(&args.name, Path::new(""))?;
    context.print(&format!("{}\n", dir.display()))?;
    let (dir, name) = (dir.display(), &args.name);
    context.reporter().note(&format!("build it with `svp build -b {dir} -t {name}`"));
    Ok(())
}
