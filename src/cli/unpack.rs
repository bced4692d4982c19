//! `svp unpack`.

use std::path::PathBuf;

use super::build::PullArgs;
use super::common::Context;
use super::table::printable;
use crate::error::Result;
use crate::layer::unpack::Loss;
use crate::source::{Source, pull};
use crate::unpack::unpack;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image: docker://REF, oci:DIR[:REF], oci-archive:FILE[:REF], or an image of the store
    #[arg(value_name = "IMAGE")]
    image: Source,
    /// The directory for its root file system, new or empty
    dir: PathBuf,
    #[command(flatten)]
    pull: PullArgs,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let store = context.store()?;
    let reporter = context.reporter();
    let descriptor = pull(&args.image, &store, &args.pull.options(), reporter)?;
    let image = store.load_image(&descriptor)?;
    let report = unpack(&store, &image, &args.dir, reporter)?;
    for unmade in &report.unmade {
        let path = printable(&String::from_utf8_lossy(&unmade.path));
        let what = match &unmade.loss {
            Loss::Device { major, minor } => format!("the device {major}:{minor} was not made"),
            Loss::Owner { uid, gid } => format!("the owner {uid}:{gid} could not be given"),
            Loss::Xattr { name } => format!("the attribute {} was not set", printable(name)),
        };
        reporter.note(&format!("/{path}: {what}"));
    }
    let more = report.unmade_count.saturating_sub(report.unmade.len() as u64);
    if more > 0 {
        reporter.note(&format!("and {more} more that could not be made as they are"));
    }
    Ok(())
}
