//! A servicepack: a directory of executable scripts that installs, configures and runs one service.
//!
//! [`Pack::open`] validates the directory. [`query`] holds the strict parsers of the output of `bin/query`; the
//! caller runs the script in a sandbox. [`Pack::write_layer`] writes the pack as an image layer, normalised so
//! that the same content has the same digest in every clone. `lint` finds all problems of a pack at once,
//! `scaffold` creates a new one.

mod archive;
mod ignore;
mod lint;
pub mod query;
mod revision;
mod scaffold;
mod shebang;

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

pub(crate) use archive::opaque_prefix;
pub use archive::{PREFIX, PackDigest};
pub use lint::{Problem, Severity, lint};
pub use query::{Answers, Key, RawAnswer};
pub use scaffold::scaffold;

use crate::error::{Error, IoContext, Result};

/// The scripts that every pack must have.
pub const REQUIRED: [&str; 2] = ["bin/query", "bin/build"];

/// A servicepack's directory.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    dir: std::os::fd::OwnedFd,
}

impl Pack {
    /// Opens the pack in the directory `dir`.
    ///
    /// `bin/query` and `bin/build` must exist, be files (or links to files) and be executable by their owner.
    /// Everything else is checked on use. Errors are [`crate::error::Kind::BadInput`].
    pub fn open(dir: &Path) -> Result<Pack> {
        let pack = Pack::open_dir(dir)?;
        for script in REQUIRED {
            pack.require(script)?;
        }
        Ok(pack)
    }

    /// Opens the directory without checking its content.
    fn open_dir(dir: &Path) -> Result<Pack> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(|error| {
            let error = Error::bad_input(format!("{} is not a servicepack", dir.display()))
                .source(std::io::Error::from(error));
            error.hint(
                "name a directory that contains bin/query and bin/build; `svp new NAME` creates one",
            )
        })?;
        Ok(Pack { path: dir.to_owned(), dir: fd })
    }

    /// Returns the directory as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether `script` (such as `bin/client`) exists and is executable.
    pub fn has(&self, script: &str) -> bool {
        matches!(self.script(script), Ok(Script::Executable))
    }

    /// Refuses a pack whose `script` (such as `bin/run`) can't be started, with a hint on how to fix it.
    pub fn require(&self, script: &str) -> Result<()> {
        let path = self.path.join(script);
        let bad = |why: &str| Error::bad_input(format!("{} {why}", path.display()));
        match self.script(script)? {
            Script::Executable => Ok(()),
            Script::Missing => Err(bad("is missing")
                .hint("add it: a servicepack needs bin/query and bin/build, and bin/run to run")),
            Script::NotAFile => Err(bad("is not a file")),
            Script::NotExecutable => {
                Err(bad("is not executable").hint(format!("chmod +x {}", path.display())))
            }
        }
    }

    /// Checks the file at `script`, following links.
    fn script(&self, script: &str) -> Result<Script> {
        match rustix::fs::statat(&self.dir, script, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(Script::Missing),
            Err(error) => Err(error).io("stat", self.path.join(script)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                Ok(Script::NotAFile)
            }
            // The owner's bit decides: the normalised layer keeps only that one.
            Ok(stat) if stat.st_mode & 0o100 == 0 => Ok(Script::NotExecutable),
            Ok(_) => Ok(Script::Executable),
        }
    }

    /// Returns the commit that the pack's `.git` has checked out, read without running git.
    ///
    /// `None` without a `.git`, or if the commit can't be determined (reftable, an unborn branch).
    pub fn revision(&self) -> Option<String> {
        revision::revision(&self.path)
    }
}

/// The state of a script's file.
enum Script {
    Missing,
    NotAFile,
    NotExecutable,
    Executable,
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
