//! Where an image goes besides the store: layouts and archives.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference, layout_writer};
use crate::progress::Reporter;
use crate::store::Store;

/// A place for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An OCI image layout, in which other tags stay.
    Layout(PathBuf),
    /// A tar archive of a layout with this image alone.
    OciArchive(PathBuf),
    /// The same on standard output, which is the command line's to write.
    Stdout,
}

impl FromStr for Output {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::usage(format!("{text:?} is no output: {why}"))
                .hint("write oci-archive:FILE, oci-archive:- or oci:DIR")
        };
        match text.split_once(':') {
            Some((_, "")) => Err(refuse("it names no file")),
            Some(("oci-archive", "-")) => Ok(Output::Stdout),
            Some(("oci-archive", file)) => Ok(Output::OciArchive(file.into())),
            Some(("oci", dir)) => Ok(Output::Layout(dir.into())),
            Some(("docker-archive", _)) => Err(refuse("docker-archive can't be written yet").hint(
                "write an oci-archive, which podman loads; for docker, \
                 `skopeo copy oci-archive:FILE docker-archive:FILE:REPO:TAG`",
            )),
            _ => Err(refuse("it names no format")),
        }
    }
}

/// Refuses outputs that can't be written, before any work is done.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a directory that is neither empty nor a layout.
pub(super) fn check(outputs: &[Output]) -> Result<()> {
    if outputs.iter().filter(|output| **output == Output::Stdout).count() > 1 {
        return Err(Error::usage("standard output takes one archive"));
    }
    outputs.iter().try_for_each(|output| match output {
        Output::Layout(dir) => layout_writer::check_target(dir),
        Output::OciArchive(file) => check_file(file),
        Output::Stdout => Ok(()),
    })
}

/// Refuses a file that can't be written, before any work is done.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage), naming the file.
pub fn check_file(file: &Path) -> Result<()> {
    let parent = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let refuse = |errno: Errno| Err(Error::io("write", file, errno));
    if file.is_dir() {
        return refuse(Errno::ISDIR);
    }
    let there = if file.exists() { file } else { parent };
    access(there, Access::WRITE_OK).or_else(refuse)
}

/// Writes an image of the store to every output but standard output.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage), naming the output.
pub(super) fn write(
    store: &Store,
    outputs: &[Output],
    descriptor: &Descriptor,
    reference: &Reference,
    reporter: &dyn Reporter,
) -> Result<()> {
    for output in outputs {
        match output {
            Output::Layout(dir) => {
                reporter.step(&format!("writing {} to oci:{}", reference.tagged(), dir.display()));
                let others = store.save_to_layout(descriptor, dir, reference)?;
                if others > 0 {
                    let (dir, name) = (dir.display(), reference.tagged());
                    reporter.note(&format!(
                        "{dir} has several images: `podman load` can't tell them apart; use \
                         `skopeo copy oci:{dir}:{name} containers-storage:{name}`"
                    ));
                }
            }
            Output::Stdout => {}
            Output::OciArchive(file) => {
                reporter.step(&format!(
                    "writing {} to oci-archive:{}",
                    reference.tagged(),
                    file.display()
                ));
                store.save_to_archive(descriptor, file, reference)?;
            }
        }
    }
    Ok(())
}
