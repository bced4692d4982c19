//! Assembles a container's root file system: the overlay or the host's tools, and the mounts of every container.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::{chdir, pivot_root};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::create::Container;
use super::mounts::{self, Step};
use super::provided::Provided;
use super::sysfs::mount_sys;
use crate::error::{Error, IoContext, Result};
use crate::rootfs::open_in_root;
use crate::sandbox::spec::Rootfs;
use crate::sandbox::trees::overlay;
use crate::sandbox::trees::unpack::unpack_pack;

/// What a query may write, besides the pack: bytes and files.
const QUERY_FILES: u64 = 64 << 20;
const QUERY_INODES: u64 = 16384;

/// Creates the container's file system and sets its host name; returns its root, and the files that svp provides in it.
pub(in crate::sandbox) fn create_root(
    container: &Container,
    pack: Option<OwnedFd>,
) -> Result<(OwnedFd, Provided)> {
    // podman's seccomp filter refuses this when svp runs in a container; nothing depends on the name.
    let _ = nix::unistd::sethostname(&container.hostname);
    match &container.rootfs {
        Rootfs::Layers(_) => layers_root(container),
        Rootfs::HostTools => Ok((host_tools_root(container, pack)?, Provided::default())),
    }
}

/// Mounts /proc, /dev, /sys, resolv.conf and hosts on the overlay; returns its root.
fn layers_root(container: &Container) -> Result<(OwnedFd, Provided)> {
    let root = overlay::open("../merged")?;
    mounts::apply(root.as_fd(), &mounts::proc_and_dev(container.tty_group, container.bounds.shm))?;
    mount_sys(root.as_fd(), container.own_network)?;
    let files = Path::new("../files");
    mount("tmpfs", files, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")
        .io("mount a file system at", files)?;
    let mut provided = Provided::default();
    provided.add_dev(root.as_fd());
    let contents = [("/etc/resolv.conf", &container.resolv_conf), ("/etc/hosts", &container.hosts)];
    for (path, content) in contents {
        let name = path.trim_start_matches("/etc/");
        let file = files.join(name);
        std::fs::write(&file, content).io("write", &file)?;
        let source = file.to_string_lossy().into_owned();
        let at = format!("etc/{name}");
        // An image whose /etc is a file or leads nowhere has no directory for these files.
        match open_in_root(root.as_fd(), Path::new(&at), OFlags::PATH) {
            Err(error) if leads_nowhere(&error) => continue,
            other => other.map(drop).io("open in the container", path)?,
        }
        mounts::apply(root.as_fd(), &[Step::Bind { source, at, read_only: false }])?;
        provided.add(path, File::open(&file).io("open", &file)?, content);
    }
    mounts::bind_all(root.as_fd(), &container.binds)?;
    Ok((root, provided))
}

fn leads_nowhere(error: &std::io::Error) -> bool {
    let nowhere = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::ENAMETOOLONG];
    error.raw_os_error().is_some_and(|errno| nowhere.contains(&errno))
}

/// Mounts a tmpfs with the host's programs read-only and the pack at /service; returns its root.
fn host_tools_root(container: &Container, pack: Option<OwnedFd>) -> Result<OwnedFd> {
    let at = "/tmp";
    let options = host_tools_size(pack.as_ref())?;
    mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .io("mount a file system at", at)?;
    let root = overlay::open(at)?;
    mounts::apply(root.as_fd(), &mounts::host_tools())?;
    mounts::apply(root.as_fd(), &mounts::proc_and_dev(container.tty_group, container.bounds.shm))?;
    if let Some(pack) = pack {
        unpack_pack(pack, &root)?;
    }
    mounts::apply(root.as_fd(), &[Step::ReadOnly("service".into())])?;
    Ok(root)
}

/// Returns the options of the file system for host tools: enough space for the pack, whose small files take a page each,
/// and for the files that a query writes.
fn host_tools_size(pack: Option<&OwnedFd>) -> Result<std::ffi::CString> {
    let failed = |error: std::io::Error| Error::sandbox("can't measure the pack").source(error);
    let tar = match pack {
        Some(pack) => rustix::fs::fstat(pack).map_err(|error| failed(error.into()))?.st_size as u64,
        None => 0,
    };
    // A file takes at least one block of 512 bytes in the tar, and a page here.
    let (size, inodes) = (QUERY_FILES + 8 * tar, QUERY_INODES + tar / 512);
    let options = format!("mode=755,size={size},nr_inodes={inodes}");
    std::ffi::CString::new(options).map_err(|error| failed(error.into()))
}

/// Makes `root` the root of every process in this mount namespace, and unmounts the host's.
pub(in crate::sandbox) fn pivot(root: &OwnedFd) -> Result<()> {
    let failed = |errno: nix::errno::Errno| Error::sandbox("pivot_root").source(errno);
    nix::unistd::fchdir(root).map_err(failed)?;
    pivot_root(".", ".").map_err(failed)?;
    unmount(".", UnmountFlags::DETACH)
        .map_err(|error| Error::sandbox("pivot_root").source(std::io::Error::from(error)))?;
    chdir("/").map_err(failed)
}
