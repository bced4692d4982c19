//! Destinations of an image besides the store: layouts and archives.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::settings::Settings;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Reference, layout_writer};
use crate::progress::{ImageNote, Reporter, Step};
use crate::store::{ArchiveFormat, Store};

/// A destination of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// An OCI image layout, whose other tags are kept.
    Layout(PathBuf),
    /// An archive of only this image.
    Archive(ArchiveFormat, PathBuf),
    /// The same on standard output, which the command line writes.
    Stdout(ArchiveFormat),
}

impl Output {
    /// Whether its layers must be uncompressed tars.
    pub(super) fn is_docker_archive(&self) -> bool {
        use ArchiveFormat::Docker;
        matches!(self, Output::Archive(Docker, _) | Output::Stdout(Docker))
    }
}

impl FromStr for Output {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::usage(format!("invalid output {text:?}: {why}")).hint(
                "write oci-archive:FILE, docker-archive:FILE (- for standard output) or oci:DIR",
            )
        };
        let format = |transport: &str| match transport {
            "oci-archive" => Some(ArchiveFormat::Oci),
            "docker-archive" => Some(ArchiveFormat::Docker),
            _ => None,
        };
        match text.split_once(':') {
            Some((_, "")) => Err(refuse("it names no file")),
            Some(("oci", dir)) if dir.contains(':') => {
                Err(refuse("a layout's directory can't contain a colon").hint(
                    "write oci:DIR: the image in it gets the name that it has in the store; \
                     `svp copy IMAGE oci:DIR:NAME` gives it another",
                ))
            }
            Some(("oci", dir)) => Ok(Output::Layout(dir.into())),
            Some((transport, file)) => {
                let format = format(transport).ok_or_else(|| refuse("it names no format"))?;
                if file.contains(':') {
                    return Err(refuse("an archive's path can't contain a colon").hint(format!(
                        "write {transport}:FILE: the image in it gets the name that -t gives"
                    )));
                }
                Ok(if file == "-" {
                    Output::Stdout(format)
                } else {
                    Output::Archive(format, file.into())
                })
            }
            None => Err(refuse("it names no format")),
        }
    }
}

/// Refuses outputs that can't be written, before any work is done.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a directory that is neither empty nor a layout.
pub(super) fn check(outputs: &[Output]) -> Result<()> {
    if outputs.iter().filter(|output| matches!(output, Output::Stdout(_))).count() > 1 {
        return Err(Error::usage("only one archive can go to standard output"));
    }
    outputs.iter().try_for_each(|output| match output {
        Output::Layout(dir) => layout_writer::check_target(dir),
        Output::Archive(_, file) => check_file(file),
        Output::Stdout(_) => Ok(()),
    })
}

/// Refuses a compression that one of the outputs can't have: a docker-archive's layers are plain tars.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage).
pub(crate) fn check_compression(outputs: &[Output], asked: Option<Settings>) -> Result<()> {
    match asked.map(|settings| settings.compression()) {
        None | Some(Compression::None) => Ok(()),
        Some(compression) if outputs.iter().any(Output::is_docker_archive) => Err(Error::usage(format!(
            "a docker-archive's layers are plain tars, not {compression}"
        ))
        .hint(
            "write an oci-archive, or the docker-archive without --compression; to compress the whole archive: \
             `svp save IMAGE -o docker-archive:- | gzip`",
        )),
        Some(_) => Ok(()),
    }
}

/// Refuses a file that can't be written, before any work is done.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage), naming the file.
pub(crate) fn check_file(file: &Path) -> Result<()> {
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
    let name = descriptor.ref_name().map_or_else(|| reference.tagged(), str::to_owned);
    let step = |destination| Step::Write { reference: name.clone(), destination };
    for output in outputs {
        match output {
            Output::Layout(dir) => {
                reporter.step(step(format!("oci:{}", dir.display())));
                let others = store.save_to_layout(descriptor, dir, reference)?;
                if others > 0 {
                    let (directory, reference) = (dir.display().to_string(), name.clone());
                    reporter.note(ImageNote::SeveralImages { directory, reference }.into());
                }
            }
            Output::Stdout(_) => {}
            Output::Archive(format, file) => {
                reporter.step(step(format!("{format}:{}", file.display())));
                store.save_as(*format, descriptor, file, reference)?;
            }
        }
    }
    Ok(())
}
