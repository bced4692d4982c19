//! Applies whiteouts: hides or removes files of lower layers.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode as Permissions, XattrFlags};

use super::Mode;
use super::tree::{Found, Tree, failure};
use crate::error::Result;
use crate::layer::meta::OPAQUE;
use crate::rootfs;

impl Tree {
    /// Hides the lower layers' `name`. Keeps a file that this layer created there.
    pub(super) fn apply_whiteout(&mut self, name: &[u8]) -> Result<()> {
        if self.mode == Mode::Plain {
            return self.remove(name, true);
        }
        match self.stat(name)? {
            Found::Whiteout => Ok(()),
            Found::Nothing => {
                let (dir, device) = (self.cursor.dir(), rustix::fs::makedev(0, 0));
                let none = Permissions::empty();
                rustix::fs::mknodat(dir, name, FileType::CharacterDevice, none, device).map_err(
                    |error| failure("create a whiteout of", &self.cursor.path_of(name), error),
                )
            }
            Found::File(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let path = self.cursor.path_of(name);
                self.push(name)?.map_err(|error| failure("open", &path, error))?;
                self.set_opaque()
            }
            Found::File(_) => Ok(()),
        }
    }

    /// Hides all lower entries of the current directory.
    pub(super) fn apply_opaque_whiteout(&mut self) -> Result<()> {
        if self.mode == Mode::Overlay && self.cursor.depth() > 0 {
            return self.set_opaque();
        }
        // A plain tree contains the lower layers' entries itself, and overlayfs has no opaque root.
        let below = match (&mut self.lower, self.mode) {
            (_, Mode::Plain) => self.cursor.dir(),
            (Some(lower), _) => {
                lower.truncate(0).map_err(|error| failure("open", b"", error))?;
                lower.dir()
            }
            (None, _) => return Ok(()),
        };
        let names = rootfs::list(below).map_err(|error| failure("read", b"", error))?;
        for name in names {
            self.apply_whiteout(&name.bytes)?;
            if self.mode == Mode::Overlay {
                self.ascend(0)?;
            }
        }
        Ok(())
    }

    /// Makes the current directory opaque.
    pub(super) fn set_opaque(&mut self) -> Result<()> {
        if self.mode == Mode::Plain {
            return Ok(());
        }
        rustix::fs::fsetxattr(self.cursor.dir().as_fd(), OPAQUE, b"y", XattrFlags::empty())
            .map_err(|error| failure("mark as opaque", &self.cursor.path_of(b""), error))
    }
}
