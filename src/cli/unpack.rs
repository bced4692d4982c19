//! `svp unpack`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::args::{PullArgs, parsed};
use super::common::Context;
use crate::error::{Error, IoContext, Result};
use crate::layer::path::show;
use crate::layer::unpack::{Loss, UnpackReport};
use crate::progress::{ImageNote, Reporter};
use crate::sandbox::layer_sources;
use crate::sandbox::unpack_into;
use crate::source::{Source, pull};

/// The maximum number of files that are reported one by one.
const MOST_NAMED: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image: a name in the store, docker://REF, oci:DIR[:REF] or oci-archive:FILE[:REF]
    #[arg(value_name = "IMAGE", value_parser = parsed::<Source>)]
    image: Source,
    /// The target: an empty directory, or a new one
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    pull: PullArgs,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    check_target(&args.dir)?;
    let reporter = context.reporter();
    let store = context.store()?;
    let descriptor = pull(&args.image, &store, &args.pull.options(context), reporter)?;
    let image = store.load_image(&descriptor)?;
    let created = !args.dir.exists();
    fs::create_dir_all(&args.dir).io("create", &args.dir)?;
    let layers = layer_sources(&store, &image);
    let result = unpack_into(&args.dir, layers, reporter);
    if result.is_err() && created {
        // The failed unpacking has emptied the directory.
        let _ = fs::remove_dir(&args.dir);
    }
    let reports = result?;
    report(&reports, reporter);
    if reports.iter().any(|report| report.set_id) {
        reporter.note(ImageNote::SetIdKept { directory: args.dir.display().to_string() }.into());
    }
    context.print(&format!("{}\n", descriptor.digest))
}

fn check_target(dir: &Path) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::usage(format!("{} is {why}", dir.display()))
            .hint("name an empty directory, or one that doesn't exist"))
    };
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => refuse("not empty"),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => refuse("not a directory"),
        Err(error) => Err(Error::io("list", dir, error)),
    }
}

/// Reports the files whose device, owner or attributes could not be created as in the image.
pub(super) fn report(reports: &[UnpackReport], reporter: &dyn Reporter) {
    let count: u64 = reports.iter().map(|report| report.unmade_count).sum();
    let unmade = reports.iter().flat_map(|report| &report.unmade);
    for unmade in unmade.take(MOST_NAMED) {
        let path = show(&unmade.path);
        let note = match unmade.loss.clone() {
            Loss::Device { major, minor } => ImageNote::DeviceNotCreated { path, major, minor },
            Loss::Owner { uid, gid } => ImageNote::OwnerNotSet { path, uid, gid },
            Loss::SetId { mode } => ImageNote::SetIdDropped { path, mode: format!("{mode:04o}") },
            Loss::Capability => ImageNote::CapabilityConfined { path },
            Loss::Xattr { name } => ImageNote::XattrNotSet { path, name },
        };
        reporter.note(note.into());
    }
    if count > MOST_NAMED as u64 {
        let count = count - MOST_NAMED as u64;
        reporter.note(ImageNote::MoreNotSet { count }.into());
    }
}
