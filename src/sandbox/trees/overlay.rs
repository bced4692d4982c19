//! Mounts the overlay that a script works in, and a read-only view of its layers.
//!
//! A build directory in the layer store contains: `l/N`, links to the layers (short names, so that hundreds fit
//! in a page of mount options); `before`, the layers merged and read-only; `scaffold`, a layer that svp adds with
//! the mount points that the image lacks, which keeps them out of the upper directory; `upper` and
//! `work`; `merged`, the root that the script sees.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::overlay_cause::no_overlay;
use crate::error::{Error, IoContext, Result};
use crate::layer::meta::proc_path;
use crate::layer::unpack::copy_directory_metadata;
use crate::rootfs::open_in_root;
use crate::sandbox::spec::Overlay;

/// The kernel's limit on lower directories, minus the two that svp adds (the scaffold and the empty one).
const MAX_LAYERS: usize = 498;

/// Makes all mounts of this mount namespace private, so that no mount propagates to the host.
pub(in crate::sandbox) fn make_private() -> Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", flags).map_err(|error| {
        Error::sandbox("can't make mounts private").source(std::io::Error::from(error))
    })
}

/// Creates the subdirectories of the build directory and mounts `before`. Call it in the layer store: it changes the
/// working directory to the build directory's `l`, which the other functions expect.
pub(in crate::sandbox) fn enter(overlay: &Overlay) -> Result<()> {
    if overlay.lowers.len() > MAX_LAYERS {
        return Err(Error::bad_input(format!(
            "the image has {} layers: overlayfs supports at most {MAX_LAYERS}",
            overlay.lowers.len()
        ))
        .hint("flatten the base image, for example with `svp unpack` and `svp import`"));
    }
    let dir = Path::new(&overlay.dir);
    let links = dir.join("l");
    for name in ["l", "before", "scaffold", "upper", "work", "merged", "empty", "none", "files"] {
        make_dir(&dir.join(name))?;
    }
    // Numbered from the lowest, so that the numbers stay valid as layers are added.
    for (n, lower) in overlay.lowers.iter().rev().enumerate() {
        let link = links.join(n.to_string());
        match symlink(Path::new("../../..").join(lower), &link) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.io("create the link", &link)?,
        }
    }
    std::env::set_current_dir(&links).io("enter", &links)?;
    // Without an upper directory, overlayfs requires at least two lower ones.
    let lowers = lower_names(overlay.lowers.len(), &["../empty", "../none"]);
    mount_overlay("../before", &format!("lowerdir={lowers},userxattr"))
}

/// Mounts the script's view at `../merged`: the layers, the scaffold, and the upper directory, whose root
/// initially has the attributes of the image's root.
pub(in crate::sandbox) fn mount_merged(overlay: &Overlay) -> Result<()> {
    // A restarted service keeps the attributes of its root.
    if !overlay.durable || fs::read_dir("../upper").is_ok_and(|mut all| all.next().is_none()) {
        copy_attributes(Path::new("../before"), Path::new("../upper"))?;
    }
    // A "volatile" mount leaves a marker in the work directory, with which the kernel refuses a second mount. Query
    // scripts run one after another in the same build directory.
    let _ = fs::remove_dir_all("../work/work");
    let lowers = format!("../scaffold:{}", lower_names(overlay.lowers.len(), &["../empty"]));
    let options = "upperdir=../upper,workdir=../work,userxattr";
    let volatile = if overlay.durable { "" } else { ",volatile" };
    mount_overlay("../merged", &format!("lowerdir={lowers},{options}{volatile}"))
}

fn lower_names(layers: usize, more: &[&str]) -> String {
    let mut names: Vec<String> = (0..layers).rev().map(|n| n.to_string()).collect();
    names.extend(more.iter().map(|name| (*name).to_owned()));
    names.join(":")
}

fn make_dir(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.io("create the directory", path),
    }
}

fn mount_overlay(at: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).expect("no NUL in our options");
    mount("overlay", at, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|error| no_overlay(error, "../upper"))
}

/// Creates the mount points that the image lacks, in the scaffold.
///
/// `/proc`, `/dev` and `/sys` must be directories. `/etc/resolv.conf` and `/etc/hosts` must be regular files, in directories
/// with the image's attributes: overlayfs shows the attributes of the topmost layer.
pub(in crate::sandbox) fn make_scaffold() -> Result<()> {
    let before = Path::new("../before");
    let scaffold = Path::new("../scaffold");
    for name in ["proc", "dev", "sys"] {
        if !before.join(name).symlink_metadata().is_ok_and(|found| found.is_dir()) {
            make_dir(&scaffold.join(name))?;
        }
    }
    // If /etc is a file or a dangling link, the image has no directory for these files.
    let Some(etc) = etc_directory(before)? else { return Ok(()) };
    let mut dir = PathBuf::new();
    for name in &etc {
        dir.push(name);
        make_dir(&scaffold.join(&dir))?;
    }
    for name in ["resolv.conf", "hosts"] {
        let file = dir.join(name);
        if !before.join(&file).symlink_metadata().is_ok_and(|found| found.is_file()) {
            fs::write(scaffold.join(&file), b"").io("write", scaffold.join(&file))?;
        }
    }
    // Last, because creating an entry in a directory changes the directory's mtime.
    for dir in dir.ancestors().filter(|dir| before.join(dir).is_dir()) {
        copy_attributes(&before.join(dir), &scaffold.join(dir))?;
    }
    Ok(())
}

/// Returns the directory of the image's `/etc`, relative to its root, with links resolved as in the container; `etc`
/// itself if it is missing, `None` if it does not resolve to a directory.
fn etc_directory(before: &Path) -> Result<Option<PathBuf>> {
    match before.join("etc").symlink_metadata() {
        Err(_) => return Ok(Some("etc".into())),
        Ok(found) if found.is_dir() => return Ok(Some("etc".into())),
        Ok(_) => {}
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(etc) = open_in_root(open(before)?.as_fd(), Path::new("etc"), flags) else {
        return Ok(None);
    };
    let path = |fd: &OwnedFd| {
        let link = proc_path(fd.as_fd());
        fs::read_link(&link).io("read", link)
    };
    let root = path(&open(before)?)?;
    Ok(path(&etc)?.strip_prefix(root).ok().map(Path::to_owned))
}

/// Copies the mode, owner, extended attributes and times of the directory `from` to `to`.
fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    copy_directory_metadata(open(from)?.as_fd(), open(to)?.as_fd())
}

/// Opens a directory for reading.
pub(in crate::sandbox) fn open(name: impl AsRef<Path>) -> Result<OwnedFd> {
    let name = name.as_ref();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(name, flags, Mode::empty()).io("open", name)
}
