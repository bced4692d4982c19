//! The overlay that a script works in, and the view of what was there before.
//!
//! A build directory in the layer store has: `l/N`, links to the layers (short names, so that hundreds fit in
//! a page of mount options); `before`, the layers merged and read-only; `scaffold`, a layer of ours with
//! the mount points that the image lacks, so that the upper directory never sees them; `upper` and
//! `work`; `merged`, what the script sees.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::error::{Error, IoContext, Result};
use crate::layer::unpack::copy_directory_metadata;
use crate::rootfs::open_in_root;
use crate::sandbox::spec::Overlay;

/// The kernel's limit on lower directories, less ours (the scaffold and the empty one).
const MAX_LAYERS: usize = 498;

/// Makes this mount namespace's mounts its own: nothing mounted here is seen elsewhere.
pub(in crate::sandbox) fn make_private() -> Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", flags).map_err(|error| {
        Error::sandbox("can't make mounts private").source(std::io::Error::from(error))
    })
}

/// Makes the build directory's directories and mounts `before`. Works from the layer store and leaves this
/// process in `TMP/l`, which the other functions expect.
pub(in crate::sandbox) fn enter(overlay: &Overlay) -> Result<()> {
    if overlay.lowers.len() > MAX_LAYERS {
        return Err(Error::bad_input(format!(
            "an image of {} layers: overlayfs takes {MAX_LAYERS} at most",
            overlay.lowers.len()
        ))
        .hint("flatten the base image, for example with `svp unpack` and `svp import`"));
    }
    let dir = Path::new(&overlay.dir);
    let links = dir.join("l");
    for name in ["l", "before", "scaffold", "upper", "work", "merged", "empty", "none", "files"] {
        make_dir(&dir.join(name))?;
    }
    // Numbered from the lowest, which stays as layers are added.
    for (n, lower) in overlay.lowers.iter().rev().enumerate() {
        let link = links.join(n.to_string());
        match symlink(Path::new("../../..").join(lower), &link) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.io("make the link", &link)?,
        }
    }
    std::env::set_current_dir(&links).io("enter", &links)?;
    // Without an upper directory, overlayfs wants two lower ones at least.
    let lowers = lower_names(overlay.lowers.len(), &["../empty", "../none"]);
    mount_overlay("../before", &format!("lowerdir={lowers},userxattr"))
}

/// Mounts what the script sees at `../merged`: the layers, the scaffold, and the upper directory, whose
/// root begins as the image's root is.
pub(in crate::sandbox) fn mount_merged(overlay: &Overlay) -> Result<()> {
    // A service that starts again finds the root of its file system as it left it.
    if !overlay.durable || fs::read_dir("../upper").is_ok_and(|mut all| all.next().is_none()) {
        copy_attributes(Path::new("../before"), Path::new("../upper"))?;
    }
    // A place that was mounted before refuses: "volatile" leaves a mark. Queries are asked one after
    // another in the same place.
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
        other => other.io("make the directory", path),
    }
}

fn mount_overlay(at: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).expect("no NUL in our options");
    mount("overlay", at, "overlay", MountFlags::empty(), options.as_c_str()).map_err(|error| {
        Error::sandbox("can't mount an overlay in a user namespace")
            .source(std::io::Error::from(error))
            .hint(
                "it takes Linux 5.11 or later, and a store on ext4, xfs, btrfs or tmpfs \
                 (not on another overlay): set SVP_ROOT to such a place",
            )
    })
}

/// Makes the mount points that the image lacks, in the scaffold.
///
/// `/proc` and `/dev` must be directories. `/etc/resolv.conf` and `/etc/hosts` must be plain files, in
/// directories that look as the image's own: the topmost layer's attributes are the ones seen.
pub(in crate::sandbox) fn make_scaffold() -> Result<()> {
    let before = Path::new("../before");
    let scaffold = Path::new("../scaffold");
    for name in ["proc", "dev"] {
        if !before.join(name).symlink_metadata().is_ok_and(|found| found.is_dir()) {
            make_dir(&scaffold.join(name))?;
        }
    }
    // A file, or a link to nowhere, has no place for them.
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
    // Only now: making something in a directory sets its time.
    for dir in dir.ancestors().filter(|dir| before.join(dir).is_dir()) {
        copy_attributes(&before.join(dir), &scaffold.join(dir))?;
    }
    Ok(())
}

/// Where the image's `/etc` is, from its root; a link's target, as seen in the container. `etc` itself if
/// there is none.
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
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        fs::read_link(&link).io("read", link)
    };
    let root = path(&open(before)?)?;
    Ok(path(&etc)?.strip_prefix(root).ok().map(Path::to_owned))
}

/// Gives the directory `to` the mode, owner, extended attributes and times of `from`.
fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    copy_directory_metadata(open(from)?.as_fd(), open(to)?.as_fd())
}

/// Opens a directory of the build directory to read it.
pub(in crate::sandbox) fn open(name: impl AsRef<Path>) -> Result<OwnedFd> {
    let name = name.as_ref();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(name, flags, Mode::empty()).io("open", name)
}
