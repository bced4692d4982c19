//! Creates hard links: to files of the same layer, or, in an overlay, to files of a lower layer, which are copied up
//! first, as overlayfs does.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode as Permissions, OFlags, fstat, linkat, openat, readlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::meta::{self, Ownership};
use crate::layer::path::{EntryPath, HardLinkTarget};
use crate::layer::unpack::tree::{Detour, Found, Tree, copied, failure};

impl Tree {
    /// Creates `name` in the current directory as a hard link to `target`.
    pub(super) fn link(&mut self, name: &[u8], target: &[u8]) -> Result<()> {
        let target = HardLinkTarget::parse(target)?;
        let (parents, last) = target.split();
        let wrong = |why| Err(target.refused(why));
        let here = self.cursor.names().to_vec();
        let found = if self.find_parent(&parents)? { self.stat(last)? } else { Found::Nothing };
        match found {
            Found::File(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return wrong("is a directory");
            }
            Found::File(_) => {}
            Found::Whiteout => return wrong("the layer hides"),
            Found::Nothing => {
                if !self.copy_up(&parents, last)? {
                    return wrong("is neither in this layer nor in those below");
                }
            }
        }
        let source = rustix::io::fcntl_dupfd_cloexec(self.cursor.dir(), 3)
            .map_err(|error| failure("open", target.path().as_bytes(), error))?;
        let same_names = self.cursor.names() == here && last == name;
        self.return_to(&here)?;
        if same_names {
            return wrong("is itself");
        }
        let linked = self.make(name, |dir, name| {
            match linkat(&source, last, dir, name, AtFlags::empty()) {
                // The target can only be gone because the link replaced it.
                Err(Errno::NOENT) => Ok(false),
                other => other.map(|()| true),
            }
        })?;
        if linked { Ok(()) } else { wrong("it replaces") }
    }

    /// Goes to the directory `names`, following links that this layer created; returns false if it doesn't exist.
    fn find_parent(&mut self, names: &[&[u8]]) -> Result<bool> {
        self.walk(names, |tree, name, error| {
            if error == Errno::NOENT || !tree.is_own(&tree.cursor.path_of(name)) {
                return Ok(Detour::End);
            }
            let target = readlinkat(tree.cursor.dir(), name, Vec::new());
            Ok(target.map_or(Detour::End, |target| Detour::Follow(target.into_bytes())))
        })
    }

    /// Copies `name` in the directory `parents` from the lower layers to this one, and stays in that directory; returns
    /// false if they don't have it.
    fn copy_up(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<bool> {
        let path = EntryPath::parse(&[&parents.join(&b'/')[..], b"/", name].concat())?;
        let failed = |what, error| failure(what, path.as_bytes(), error);
        let Some(lower) = self.open_below(parents) else { return Ok(false) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stat = match openat(&lower, name, flags, Permissions::empty()) {
            Ok(file) => fstat(&file).map_err(|error| failed("read", error))?,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(failed("open", error)),
        };
        self.go_to_parent(parents)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::Fifo => EntryKind::Fifo,
            _ => return Err(Error::bad_input("its target is not a file")),
        };
        let mut entry = Entry::new(path.as_bytes(), kind, stat.st_mode & 0o7777);
        (entry.uid, entry.gid, entry.mtime) = (stat.st_uid, stat.st_gid, meta::mtime(&stat));
        match kind {
            EntryKind::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = openat(&lower, name, flags, Permissions::empty())
                    .map_err(|error| failed("open", error))?;
                let shown =
                    meta::read_xattrs(from.as_fd()).map_err(|error| failed("read", error))?;
                let to = File::from(self.create_file(name)?);
                self.copy_content(&File::from(from), &to, path.as_bytes())?;
                let xattrs = copied(shown);
                let ownership = Ownership::of(&stat);
                self.set_file_metadata(to.as_fd(), name, ownership, entry.mtime, &xattrs)?;
            }
            EntryKind::Symlink => {
                let target = readlinkat(&lower, name, Vec::new());
                entry.link = target.map_err(|error| failed("read", error))?.into_bytes();
                self.make_symlink(name, &entry)?;
            }
            _ => self.make_fifo(name, &entry)?,
        }
        Ok(true)
    }

    /// Opens the lower layers' directory `names`; `None` if it doesn't exist.
    fn open_below(&mut self, names: &[&[u8]]) -> Option<OwnedFd> {
        let lower = self.lower.as_mut()?;
        lower.go(names).ok()?;
        rustix::io::fcntl_dupfd_cloexec(lower.dir(), 3).ok()
    }

    /// Returns to the directory `names`.
    fn return_to(&mut self, names: &[Box<[u8]>]) -> Result<()> {
        let names: Vec<&[u8]> = names.iter().map(|name| &**name).collect();
        let common = self.ascend_to_common(&names)?;
        for name in &names[common..] {
            self.push(name)?.map_err(|error| failure("open", &names.join(&b'/'), error))?;
        }
        Ok(())
    }
}
