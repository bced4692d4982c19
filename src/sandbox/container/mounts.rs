//! Describes a container's mounts as a list of steps, and applies them.
//!
//! The kernel resolves every path inside the root (`openat2` with RESOLVE_IN_ROOT): a symbolic link of the image
//! can't lead out of it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use log::trace;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};

use super::read_only;
use crate::error::{Error, Result};
use crate::layer::meta::proc_path;
use crate::rootfs::open_in_root;
use crate::sandbox::spec::Bind;
use crate::sandbox::trees::volume::volume_name;

/// A step in setting up a container's file system. Paths are relative to its root.
#[derive(Debug)]
pub(in crate::sandbox) enum Step {
    /// Create a directory, unless it exists.
    Dir(String, u32),
    /// Create a file with this content.
    File(String, Vec<u8>),
    /// Create a symbolic link to a target.
    Symlink(String, String),
    /// Mount a new file system with this type, these flags and options.
    Mount(String, &'static str, MountFlags, String),
    /// Bind-mount a file or directory of the host.
    Bind { source: String, at: String, read_only: bool },
    /// Make this path read-only, if it exists.
    ReadOnly(String),
    /// Mask a file or directory, if it exists.
    Mask(String),
}

/// The hint if the kernel refuses a new procfs.
const MASKED_PROC: &str = "svp runs in a container that hides parts of /proc: \
    run it with --security-opt systempaths=unconfined (docker) or unmask=ALL (podman); see docs/ci.md";

/// Applies the steps to the file system at `root`.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with the path and the kernel's error.
pub(in crate::sandbox) fn apply(root: BorrowedFd<'_>, steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| {
        one(root, step).map_err(|(path, error)| {
            let masked = path == "proc" && error.kind() == std::io::ErrorKind::PermissionDenied;
            let error =
                Error::sandbox(format!("can't set up /{path} in the container")).source(error);
            // The kernel refuses a fresh procfs while the existing one is partly masked.
            if masked { error.hint(MASKED_PROC) } else { error }
        })
    })
}

type StepError = (String, std::io::Error);

fn one(root: BorrowedFd<'_>, step: &Step) -> Result<(), StepError> {
    let at = |path: &str| {
        let path = path.to_owned();
        move |error: rustix::io::Errno| (path, std::io::Error::from(error))
    };
    match step {
        Step::Dir(path, mode) => dir(root, path, Mode::from(*mode)).map_err(at(path)),
        Step::File(path, content) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = openat2(root, path.as_str(), flags, Mode::from(0o644), ResolveFlags::IN_ROOT)
                .map_err(at(path))?;
            File::from(fd).write_all(content).map_err(|error| (path.clone(), error))
        }
        Step::Symlink(path, target) => {
            rustix::fs::symlinkat(target.as_str(), root, path.as_str()).map_err(at(path))
        }
        Step::Mount(path, kind, flags, options) => {
            let target = target(root, path).map_err(at(path))?;
            let options = std::ffi::CString::new(options.as_str()).expect("no NUL in our options");
            trace!("mount {kind} on {path}");
            mount(*kind, proc_path(target.as_fd()), *kind, *flags, options.as_c_str())
                .map_err(at(path))
        }
        Step::Bind { source, at: path, read_only } => {
            trace!("bind {source} on {path}");
            bind(root, source, path).map_err(at(path))?;
            if *read_only { make_read_only(root, path).map_err(at(path)) } else { Ok(()) }
        }
        Step::ReadOnly(path) => {
            let Some(here) = existing(root, path).map_err(at(path))? else { return Ok(()) };
            mount_bind_recursive(proc_path(here.as_fd()), proc_path(here.as_fd()))
                .map_err(at(path))?;
            make_read_only(root, path).map_err(at(path))
        }
        Step::Mask(path) => mask(root, path).map_err(at(path)),
    }
}

fn dir(root: BorrowedFd<'_>, path: &str, mode: Mode) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(root, path, mode) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        // mkdir has applied the umask.
        other => other.and_then(|()| rustix::fs::chmodat(root, path, mode, AtFlags::empty())),
    }
}

fn bind(root: BorrowedFd<'_>, source: &str, path: &str) -> rustix::io::Result<()> {
    let target = target(root, path)?;
    mount_bind_recursive(source, proc_path(target.as_fd()))
}

/// Bind-mounts files and directories in a container, creating destinations that the image lacks.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with the source and the destination.
pub(in crate::sandbox) fn bind_all(root: BorrowedFd<'_>, binds: &[Bind]) -> Result<()> {
    binds.iter().try_for_each(|bind| {
        let failed = |error: std::io::Error| {
            let Bind { source, at, .. } = bind;
            let text = match volume_name(source) {
                Some(name) => format!("can't mount the volume {name} at {at} in the container"),
                None => format!("can't mount {} at {at} in the container", source.display()),
            };
            let hint = match error.kind() {
                ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                    "mount a directory on a directory and a file on a file: the image has the other \
                     kind there"
                }
                _ if ["/proc", "/sys"].iter().any(|top| Path::new(at).starts_with(top)) => {
                    "mount it elsewhere: the kernel provides the files there"
                }
                _ => {
                    "make it accessible to the container's root: `svp check` prints which user \
                     that is"
                }
            };
            Error::sandbox(text).source(error).hint(hint)
        };
        let is_dir = std::fs::metadata(&bind.source).map_err(failed)?.is_dir();
        let at = bind.at.trim_matches('/');
        create_mount_point(root, at, is_dir).map_err(failed)?;
        if let Some(hidden) = hidden_by(root, at).map_err(failed)? {
            let at = &bind.at;
            return Err(Error::sandbox(format!("can't mount at {at}: in the image it leads to {hidden}"))
                .hint("mount at another path"));
        }
        let source = bind.source.to_string_lossy();
        self::bind(root, &source, at).map_err(|error| failed(error.into()))?;
        if bind.read_only {
            make_read_only(root, at).map_err(|error| failed(error.into()))?;
        }
        Ok(())
    })
}

/// Directories that svp needs: a mount may not hide them, nor anything in the later ones.
const NEEDED: [&str; 6] = ["/", "/service", "/proc", "/sys", "/dev", "/service/bin"];

/// Returns the directory that svp needs and that a mount at `path` would hide, wholly or in part, through a symbolic
/// link of the image.
fn hidden_by(root: BorrowedFd<'_>, path: &str) -> std::io::Result<Option<&'static str>> {
    // Where the kernel finds a path in the root: links are resolved.
    let place = |path: &Path| {
        let found = open_in_root(root, path, OFlags::PATH)?;
        std::fs::read_link(proc_path(found.as_fd()))
    };
    let mount = place(Path::new(path))?;
    let hides = |(n, needed): &(usize, &&'static str)| {
        let name = needed.trim_start_matches('/');
        // By its own name a mount below it is what was asked for.
        let whole = *n > 1 && !Path::new(path).starts_with(name);
        place(&Path::new(".").join(name))
            .is_ok_and(|needed| mount == needed || (whole && mount.starts_with(&needed)))
    };
    Ok(NEEDED.iter().enumerate().find(hides).map(|(_, needed)| *needed))
}

/// Creates a mount point (a directory, or an empty file) and its parent directories, unless they exist.
fn create_mount_point(root: BorrowedFd<'_>, path: &str, is_dir: bool) -> std::io::Result<()> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let open = |depth: usize| {
        let path = if depth == 0 { ".".to_owned() } else { names[..depth].join("/") };
        open_in_root(root, Path::new(&path), OFlags::PATH)
    };
    for depth in 0..names.len() {
        let missing = match open(depth + 1) {
            Ok(_) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let last = depth + 1 == names.len();
        if !missing {
            continue;
        }
        let parent = open(depth)?;
        if last && !is_dir {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, names[depth], flags, Mode::from(0o644))?;
        } else {
            rustix::fs::mkdirat(&parent, names[depth], Mode::from(0o755))?;
        }
    }
    Ok(())
}

fn mask(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    let Some(here) = existing(root, path)? else { return Ok(()) };
    let stat = rustix::fs::statat(&here, "", AtFlags::EMPTY_PATH)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        let flags =
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", proc_path(here.as_fd()), "tmpfs", flags, c"size=0,mode=755")
    } else {
        mount_bind_recursive("/dev/null", proc_path(here.as_fd()))
    }
}

/// Makes `path`, which is a mount, and all mounts below it read-only.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    read_only::apply(&target(root, path)?)
}

/// Opens `path` inside the root, resolving links inside the root.
fn target(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// As [`target`]; `None` if nothing exists at the path. No other failure may leave a path visible or writable.
fn existing(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    match target(root, path) {
        Ok(here) => Ok(Some(here)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in a container's /dev.
pub(super) const DEVICES: [&str; 13] = [
    "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
    "urandom", "zero",
];

/// Returns the mounts of every container: /proc and /dev.
///
/// `tty_group`: whether the id map contains group 5 (tty), which owns terminals.
/// `shm`: the size of /dev/shm, if it is limited.
pub(in crate::sandbox) fn proc_and_dev(tty_group: bool, shm: Option<u64>) -> Vec<Step> {
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut steps = vec![Step::Mount("proc".into(), "proc", closed, String::new())];
    let read_only = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
    steps.extend(read_only.map(|name| Step::ReadOnly(format!("proc/{name}"))));
    let masked = [
        "acpi",
        "asound",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "timer_list",
        "timer_stats",
    ];
    steps.extend(masked.map(|name| Step::Mask(format!("proc/{name}"))));
    let dev = MountFlags::NOSUID | MountFlags::NOEXEC;
    steps.push(Step::Mount(
        "dev".into(),
        "tmpfs",
        dev,
        "mode=755,size=65536k,nr_inodes=65536".into(),
    ));
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let at = format!("dev/{name}");
        steps.push(Step::File(at.clone(), Vec::new()));
        steps.push(Step::Bind { source: format!("/dev/{name}"), at, read_only: false });
    }
    steps.push(Step::Dir("dev/pts".into(), 0o755));
    let group = if tty_group { ",gid=5" } else { "" };
    let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    steps.push(Step::Mount("dev/pts".into(), "devpts", dev, options));
    steps.push(Step::Dir("dev/shm".into(), 0o1777));
    let size = shm.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    steps.push(Step::Mount(
        "dev/shm".into(),
        "tmpfs",
        closed,
        format!("mode=1777,nr_inodes=65536{size}"),
    ));
    for (name, to) in [
        ("dev/ptmx", "pts/ptmx"),
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
    ] {
        steps.push(Step::Symlink(name.into(), to.into()));
    }
    steps
}

/// Returns the mounts of the host's programs, read-only, and nothing else of the host: enough to run a pack's query.
///
/// Includes `etc/alternatives` because Debian's awk is a link into it, and the dynamic loader's cache because the
/// loader is slow or fails without it; excludes the rest of /etc, /var, /run and the home directories.
pub(in crate::sandbox) fn host_tools() -> Vec<Step> {
    let mut steps = vec![Step::Dir("usr".into(), 0o755), bind_host("usr")];
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let path = Path::new("/").join(name);
        if let Ok(link) = path.read_link() {
            let link = link.to_string_lossy().into_owned();
            steps.push(Step::Symlink(name.into(), link));
        } else if path.is_dir() {
            steps.push(Step::Dir(name.into(), 0o755));
            steps.push(bind_host(name));
        }
    }
    steps.push(Step::Dir("etc".into(), 0o755));
    for name in ["etc/ld.so.cache", "etc/ld.so.conf"] {
        if Path::new("/").join(name).is_file() {
            steps.push(Step::File(name.into(), Vec::new()));
            steps.push(bind_host(name));
        }
    }
    for name in ["etc/ld.so.conf.d", "etc/alternatives"] {
        if Path::new("/").join(name).is_dir() {
            steps.push(Step::Dir(name.into(), 0o755));
            steps.push(bind_host(name));
        }
    }
    steps.push(Step::Dir("tmp".into(), 0o1777));
    steps.push(Step::Dir("proc".into(), 0o755));
    steps.push(Step::Dir("dev".into(), 0o755));
    steps.push(Step::Dir("service".into(), 0o755));
    steps
}

/// The directories of [`host_tools`] that belong to the container.
pub(super) const WRITABLE: [&str; 3] = ["/tmp", "/dev", "/proc"];

fn bind_host(name: &str) -> Step {
    Step::Bind { source: format!("/{name}"), at: name.into(), read_only: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_needs_no_mask() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("missing", dir.path().join("dangling")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let long = "x".repeat(300);
        for (path, expected) in [
            ("missing", true),
            ("missing/below", true),
            ("dangling", true),
            ("file/below", false),
            ("loop", false),
            ("loop/below", false),
            (&long, false),
        ] {
            for step in [Step::Mask(path.into()), Step::ReadOnly(path.into())] {
                let applied = apply(root.as_fd(), &[step]);
                assert_eq!(applied.is_ok(), expected, "{path}: {applied:?}");
                if let Err(error) = applied {
                    assert!(error.to_string().contains(path), "{error}");
                }
            }
        }
    }
}
