//! The tree that a layer is unpacked into: the current position, and the directories' metadata, which is set last.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode as Permissions, Stat, XattrFlags, fstat, mkdirat, statat,
};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::layer::entry::{Timestamp, Xattrs};
use crate::layer::meta::{self, IdRanges, Ownership};
use crate::layer::path::{LinkTarget, parse_link_target, show};
use crate::layer::unpack::{Mode, UnpackOptions, UnpackReport};
use crate::rootfs::{self, Cursor};

/// The maximum number of links followed for one entry, as in the kernel.
pub(in crate::layer) const MOST_LINKS: usize = 40;
/// The attribute by which new files in a directory inherit an ACL.
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// The maximum length of a link target in the kernel.
const MAX_TARGET: usize = 4096;

/// Metadata to set when leaving a directory: creating files in it changes its time.
#[derive(Clone)]
pub(super) struct Deferred {
    pub mtime: Timestamp,
    /// The mode, if the owner lacks permissions that unpacking needs.
    pub mode: Option<u32>,
    /// The default ACL, which new files must not inherit during unpacking.
    pub default_acl: Option<Vec<u8>>,
}

/// A tree to which a layer is being applied.
pub(super) struct Tree {
    /// The position: the parent of the current entry. Replaced files are below it, so its descriptors always match its
    /// names.
    pub cursor: Cursor,
    pub lower: Option<Cursor>,
    pub mode: Mode,
    pub drop_set_id: bool,
    pub ids: IdRanges,
    pub report: UnpackReport,
    /// For the root and each directory down to the cursor.
    deferred: Vec<Deferred>,
    /// In a plain tree, hashes of the paths that this layer created. In an overlay's layer it is unused: this layer
    /// creates everything there.
    created: HashSet<[u64; 2]>,
    hashers: [RandomState; 2],
    pub buffer: Vec<u8>,
}

/// The file at a name.
pub(super) enum Found {
    Nothing,
    /// A whiteout that this layer created.
    Whiteout,
    File(Box<Stat>),
}

/// How a walk continues at a name that is not a directory.
pub(super) enum Detour {
    /// The name is a directory now, and entered.
    Entered,
    /// The name is a symbolic link with this target; follow it.
    Follow(Vec<u8>),
    /// The walk ends.
    End,
}

impl Tree {
    pub(super) fn new(root: BorrowedFd<'_>, options: &UnpackOptions<'_>) -> Result<Self> {
        let cursor = Cursor::new(root).map_err(|error| failure("open", b"", error))?;
        let lower = options.lower.map(Cursor::new).transpose();
        let mut tree = Tree {
            cursor,
            lower: lower.map_err(|error| failure("open", b"", error))?,
            mode: options.mode,
            ids: options.ids.clone(),
            drop_set_id: options.drop_set_id,
            report: UnpackReport::default(),
            deferred: Vec::new(),
            created: HashSet::new(),
            hashers: [RandomState::new(), RandomState::new()],
            buffer: vec![0; 256 * 1024],
        };
        tree.enter()?;
        if tree.mode == Mode::Overlay {
            tree.inherit_metadata(&[])?;
        }
        Ok(tree)
    }

    /// Leaves all directories and returns the report.
    pub(super) fn finish(mut self) -> Result<UnpackReport> {
        self.ascend(0)?;
        self.finish_directory()?;
        Ok(self.report)
    }

    /// Descends into the directory `name`.
    pub(super) fn push(&mut self, name: &[u8]) -> Result<Result<(), Errno>> {
        match self.cursor.push(name) {
            Ok(()) => self.enter().map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Ascends to `depth` levels below the root.
    pub(super) fn ascend(&mut self, depth: usize) -> Result<()> {
        while self.cursor.depth() > depth {
            self.finish_directory()?;
            self.cursor.pop().map_err(|error| failure("open", b"", error))?;
        }
        Ok(())
    }

    /// Ascends to the deepest directory on the path `names`; returns its depth.
    pub(super) fn ascend_to_common(&mut self, names: &[&[u8]]) -> Result<usize> {
        let common = self.cursor.common(names);
        self.ascend(common).map(|()| common)
    }

    /// Saves the time of the directory just entered, and grants its owner access.
    fn enter(&mut self) -> Result<()> {
        let failed = |error| failure("read", &self.cursor.path_of(b""), error);
        let stat = fstat(self.cursor.dir()).map_err(failed)?;
        let permissions = stat.st_mode & 0o7777;
        let mode = (permissions & 0o700 != 0o700).then_some(permissions);
        if mode.is_some() && self.mode == Mode::Plain {
            // Fails harmlessly for a directory of another owner.
            let _ = rustix::fs::fchmod(
                self.cursor.dir(),
                Permissions::from_raw_mode(permissions | 0o700),
            );
        }
        let default_acl = take_default_acl(self.cursor.dir()).map_err(failed)?;
        self.deferred.push(Deferred { mtime: meta::mtime(&stat), mode, default_acl });
        Ok(())
    }

    /// Sets the final metadata of the current directory.
    fn finish_directory(&mut self) -> Result<()> {
        let Some(deferred) = self.deferred.pop() else { return Ok(()) };
        if let Some(acl) = &deferred.default_acl {
            let dir = rustix::io::fcntl_dupfd_cloexec(self.cursor.dir(), 3)
                .map_err(|error| failure("open", &self.cursor.path_of(b""), error))?;
            let set = rustix::fs::fsetxattr(&dir, DEFAULT_ACL, acl, XattrFlags::empty());
            self.check_xattr(set, dir.as_fd(), b"", DEFAULT_ACL)?;
        }
        let failed = |what, error| failure(what, &self.cursor.path_of(b""), error);
        let dir = self.cursor.dir();
        // In a plain tree, directories of other owners stay as they are.
        let refused = |error| self.mode == Mode::Plain && error == Errno::PERM;
        if let Some(mode) = deferred.mode {
            match rustix::fs::fchmod(dir, Permissions::from_raw_mode(mode)) {
                Err(error) if !refused(error) => return Err(failed("set the mode of", error)),
                _ => {}
            }
        }
        match rustix::fs::futimens(dir, &times(deferred.mtime)) {
            Err(error) if !refused(error) => Err(failed("set the time of", error)),
            _ => Ok(()),
        }
    }

    /// Stores the final metadata of the current directory.
    pub(super) fn set_deferred(&mut self, deferred: Deferred) {
        if let Some(slot) = self.deferred.last_mut() {
            *slot = deferred;
        }
    }

    fn hash(&self, path: &[u8]) -> [u64; 2] {
        [self.hashers[0].hash_one(path), self.hashers[1].hash_one(path)]
    }

    /// Returns whether this layer created the file at `path`.
    pub(super) fn is_own(&self, path: &[u8]) -> bool {
        self.mode == Mode::Overlay || self.created.contains(&self.hash(path))
    }

    /// Records that this layer created `name` in the current directory.
    pub(super) fn mark_created(&mut self, name: &[u8]) {
        if self.mode == Mode::Plain {
            self.created.insert(self.hash(&self.cursor.path_of(name)));
        }
    }

    /// Goes to the directory `names`, creating missing ones. Follows links that this layer created, inside the root;
    /// replaces those of lower layers by directories, as in an overlay.
    pub(super) fn go_to_parent(&mut self, names: &[&[u8]]) -> Result<()> {
        let exists = self.walk(names, |tree, name, error| match error {
            Errno::NOTDIR => tree.enter_other(name),
            _ => tree.make_parent(name, false).map(|()| Detour::Entered),
        })?;
        debug_assert!(exists);
        Ok(())
    }

    /// Goes to the directory `names`. Calls `detour` for a name that is missing (`NOENT`) or not a directory
    /// (`NOTDIR`). Returns false if it ends the walk.
    pub(super) fn walk(
        &mut self,
        names: &[&[u8]],
        mut detour: impl FnMut(&mut Self, &[u8], Errno) -> Result<Detour>,
    ) -> Result<bool> {
        let common = self.ascend_to_common(names)?;
        // The remaining names, the next one last.
        let mut todo: Vec<Vec<u8>> =
            names[common..].iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let error = match self.push(&name)? {
                Ok(()) => continue,
                Err(error @ (Errno::NOENT | Errno::NOTDIR)) => error,
                Err(error) => return Err(failure("open", &self.cursor.path_of(&name), error)),
            };
            match detour(self, &name, error)? {
                Detour::Entered => {}
                Detour::Follow(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Error::bad_input("its path has too many symbolic links"));
                    }
                    self.follow_link(&target, &mut todo)?;
                }
                Detour::End => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Enters `name`, which is not a directory: returns the target of a link to follow, otherwise replaces it by a
    /// directory and enters that.
    fn enter_other(&mut self, name: &[u8]) -> Result<Detour> {
        let path = self.cursor.path_of(name);
        match self.stat(name)? {
            Found::File(stat) if self.is_own(&path) => {
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    let path = show(&path);
                    return Err(Error::bad_input(format!(
                        "{path} is not a directory in this layer"
                    )));
                }
                let target = rustix::fs::readlinkat(self.cursor.dir(), name, Vec::new())
                    .map_err(|error| failure("read", &path, error))?;
                Ok(Detour::Follow(target.into_bytes()))
            }
            found => {
                let hidden = matches!(found, Found::Whiteout);
                self.remove_existing(name)?;
                self.make_parent(name, hidden)?;
                Ok(Detour::Entered)
            }
        }
    }

    /// Prepends a link's target to the remaining names.
    fn follow_link(&mut self, target: &[u8], todo: &mut Vec<Vec<u8>>) -> Result<()> {
        debug_assert!(target.len() <= MAX_TARGET);
        let LinkTarget { absolute, up, down } = parse_link_target(target);
        if absolute {
            self.ascend(0)?;
        }
        let depth = self.cursor.depth().saturating_sub(up);
        self.ascend(depth)?;
        todo.extend(down.into_iter().rev().map(<[u8]>::to_vec));
        Ok(())
    }

    /// Creates a directory that the layer has not mentioned (yet), and enters it.
    fn make_parent(&mut self, name: &[u8], opaque: bool) -> Result<()> {
        let path = self.cursor.path_of(name);
        mkdirat(self.cursor.dir(), name, Permissions::from_raw_mode(0o700))
            .map_err(|error| failure("create", &path, error))?;
        self.mark_created(name);
        self.push(name)?.map_err(|error| failure("open", &path, error))?;
        let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        self.inherit_metadata(&names)?;
        if opaque { self.set_opaque() } else { Ok(()) }
    }

    /// Sets the metadata of the current directory, `names`, to that in the lower layers, or to the default.
    fn inherit_metadata(&mut self, names: &[&[u8]]) -> Result<()> {
        let mut ownership = Ownership { uid: 0, gid: 0, mode: 0o755 };
        let mut mtime = Timestamp::default();
        let mut xattrs = Xattrs::new();
        if let Some(lower) = &mut self.lower
            && lower.go(names).is_ok()
        {
            let failed = |error| failure("read", &names.join(&b'/'), error);
            let stat = fstat(lower.dir()).map_err(failed)?;
            ownership = Ownership::of(&stat);
            mtime = meta::mtime(&stat);
            let shown = meta::read_xattrs(lower.dir()).map_err(failed)?;
            xattrs = copied(shown);
        }
        self.set_directory_metadata(ownership, mtime, &xattrs, false)
    }

    pub(super) fn stat(&self, name: &[u8]) -> Result<Found> {
        match statat(self.cursor.dir(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if self.mode == Mode::Overlay && is_whiteout(&stat) => Ok(Found::Whiteout),
            Ok(stat) => Ok(Found::File(Box::new(stat))),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(error) => Err(failure("read", &self.cursor.path_of(name), error)),
        }
    }

    /// Removes the file at `name`; returns whether it was a whiteout.
    pub(super) fn remove_existing(&mut self, name: &[u8]) -> Result<bool> {
        let whiteout = matches!(self.stat(name)?, Found::Whiteout);
        self.remove(name, false)?;
        Ok(whiteout)
    }

    pub(super) fn remove(&mut self, name: &[u8], keep_own: bool) -> Result<()> {
        let path = self.cursor.path_of(name);
        let prefix = self.cursor.path_of(b"");
        let keep = |below: &[u8]| {
            let slash: &[u8] = if prefix.is_empty() { b"" } else { b"/" };
            keep_own && self.created.contains(&self.hash(&[&prefix[..], slash, below].concat()))
        };
        rootfs::remove(self.cursor.dir(), name, &keep)
            .map_err(|error| failure("remove", &path, error))
    }
}

/// Removes a directory's default ACL and returns it; `None` if there is none, or the caller may not remove it.
fn take_default_acl(dir: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let mut acl = vec![0; 1024];
    let mut length = rustix::fs::fgetxattr(dir, DEFAULT_ACL, &mut acl[..]);
    if let Err(Errno::RANGE) = length {
        acl.resize(1 << 16, 0);
        length = rustix::fs::fgetxattr(dir, DEFAULT_ACL, &mut acl[..]);
    }
    match length {
        Ok(length) => acl.truncate(length),
        Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
        Err(error) => return Err(error),
    }
    match rustix::fs::fremovexattr(dir, DEFAULT_ACL) {
        Ok(()) => Ok(Some(acl)),
        Err(Errno::PERM | Errno::NODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Converts the attributes shown in a merged view to the form stored in a layer.
pub(in crate::layer) fn copied(shown: Xattrs) -> Xattrs {
    shown
        .into_iter()
        .filter(|(name, _)| meta::is_portable(name))
        .map(|(name, value)| (meta::escape(&name), value))
        .collect()
}

/// Converts `time` for system calls; layers only have mtimes.
pub(in crate::layer) fn times(time: Timestamp) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    rustix::fs::Timestamps { last_access: time, last_modification: time }
}

/// Maps the kernel's errors: a refused name or link is the layer's fault, other errors are the storage's.
pub(in crate::layer) fn failure(what: &str, path: &[u8], error: Errno) -> Error {
    let error_kind = match error {
        Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL | Errno::ILSEQ => Kind::BadInput,
        _ => Kind::Storage,
    };
    let path = if path.is_empty() { "the root".to_owned() } else { show(path) };
    Error::io(what, path, error).with_kind(error_kind)
}

/// Returns whether a file of an unpacked layer is a whiteout.
pub(in crate::layer) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(0, 0)
}
