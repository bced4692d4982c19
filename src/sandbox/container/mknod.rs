//! Emulates `mknod` for device nodes that a script creates.
//!
//! The kernel refuses devices in user namespaces. So a seccomp filter intercepts `mknod` and `mknodat` of character
//! and block devices, and the container's init creates the stand-in that an unpacked layer has for a device: an empty
//! file with a record of the device, which the diff reads. A device in a layer gives no access by itself: creating
//! it requires the privilege of the engine that unpacks the layer.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, XattrFlags, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::entry::EntryKind;
use crate::layer::meta::{NODE, node_record};
use crate::sys::{
    self, BpfInstruction, Notification, answer_notification, receive_notification, still_waits,
};

const CAP_MKNOD: u32 = 27;
const PAGE: usize = 4096;

/// Installs the filter; returns the descriptor that [`serve`] listens on, or `None` if another filter has
/// a listener already (svp in a container whose engine has one): then `mknod` fails as usual.
pub(in crate::sandbox) fn install() -> Option<OwnedFd> {
    sys::install_seccomp_listener(&program()?).ok()
}

/// Answers the intercepted calls of a container, whose init this process is, until all its processes have ended.
fn serve(listener: &OwnedFd) {
    // Otherwise the calls fail once the listener is closed.
    if let Ok(proc) = open_proc() {
        answer_calls(listener, &proc);
    }
}

/// Starts a thread that answers the calls of a container's listener: [`serve`].
pub(super) fn start_server(listener: OwnedFd) -> Result<()> {
    let started = std::thread::Builder::new().spawn(move || serve(&listener));
    started.map(drop).map_err(|error| {
        Error::sandbox("can't start the thread that answers mknod").not_started(error)
    })
}

/// The listener of a command, and a pidfd of the init of the container that it has joined.
pub(super) type Joined = (OwnedFd, OwnedFd);

/// Starts a thread that answers the calls of a command that joins a container; it waits for the listener. Start it
/// before this process joins the container's PID namespace: afterwards the kernel creates no threads. `None` if no
/// process is left for it: then `mknod` fails.
pub(super) fn joined_server() -> Option<Sender<Joined>> {
    let (sender, receiver) = channel::<Joined>();
    let serve = move || {
        if let Ok((listener, init)) = receiver.recv() {
            serve_joined(&listener, &init);
        }
    };
    std::thread::Builder::new().spawn(serve).ok().map(|_| sender)
}

/// As [`serve`], for a command that has joined the container of `init`. This thread joins the container's mount
/// namespace, so that no path of the container leads out of it.
fn serve_joined(listener: &OwnedFd, init: &OwnedFd) {
    let joined = || -> Option<OwnedFd> {
        // The listener names callers by their PIDs here, and only the host's procfs knows these.
        let proc = open_proc().ok()?;
        unshare(CloneFlags::CLONE_FS).ok()?;
        setns(init, CloneFlags::CLONE_NEWNS).ok()?;
        Some(proc)
    };
    if let Some(proc) = joined() {
        answer_calls(listener, &proc);
    }
}

fn open_proc() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn answer_calls(listener: &OwnedFd, proc: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => {}
            Ok(_) => return,
        }
        // Fails if the caller has been killed meanwhile.
        let Ok(call) = receive_notification(listener) else { continue };
        let errno = create_stand_in(listener, proc, &call).err().map_or(0, Errno::raw_os_error);
        // ENOENT: the calling process is gone.
        let _ = answer_notification(listener, &call, errno);
    }
}

/// Creates the stand-in for the device that the caller requests.
fn create_stand_in(
    listener: &OwnedFd,
    proc: &OwnedFd,
    call: &Notification,
) -> rustix::io::Result<()> {
    let [a, b, c, d, ..] = call.arguments;
    let (dir, path, mode, dev) = if call.call == libc::SYS_mknodat {
        (a as i32, b, c as u32, d)
    } else {
        (libc::AT_FDCWD, a, b as u32, c)
    };
    let caller = Caller::of(proc, call.pid).ok_or(Errno::PERM)?;
    let path = read_path(call.pid, path)?;
    // The kernel uses only the lower 32 bits.
    let dev = dev & u64::from(u32::MAX);
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let kind = if mode & libc::S_IFMT == libc::S_IFBLK {
        EntryKind::BlockDevice
    } else {
        EntryKind::CharDevice
    };
    // This process creates the file as root, so the caller must be root: other users may lack write access to the
    // directory. Device 0:0 is overlayfs's whiteout, which is refused even for root.
    if !caller.may_make_devices
        || caller.uid != 0
        || (kind == EntryKind::CharDevice && (major, minor) == (0, 0))
    {
        return Err(Errno::PERM);
    }
    let (parent, name) = open_parent(proc, call.pid, dir, &path)?;
    if !still_waits(listener, call) {
        return Err(Errno::SRCH);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, &name, flags, Mode::RUSR)?;
    let finish = || {
        rustix::fs::fsetxattr(&file, NODE, &node_record(kind, major, minor), XattrFlags::CREATE)?;
        let set_group_id = rustix::fs::fstat(&parent)?.st_mode & libc::S_ISGID != 0;
        let gid = (!set_group_id).then(|| rustix::fs::Gid::from_raw(caller.gid));
        rustix::fs::fchown(&file, None, gid)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777 & !caller.umask))
    };
    finish().inspect_err(|_| {
        // Best effort: report the original error.
        let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::empty());
    })
}

/// Opens the parent directory of a path as the caller would.
fn open_parent(
    proc: &OwnedFd,
    pid: u32,
    dir: i32,
    path: &[u8],
) -> rustix::io::Result<(OwnedFd, PathBuf)> {
    if path.ends_with(b"/") {
        return Err(Errno::NOENT);
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let name = path.file_name().ok_or(Errno::EXIST)?.into();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |link: &str| rustix::fs::openat(proc, format!("{pid}/{link}"), flags, Mode::empty());
    let root = open("root")?;
    let start = if path.is_absolute() {
        open("root")?
    } else if dir == libc::AT_FDCWD {
        open("cwd")?
    } else {
        open(&format!("fd/{dir}"))?
    };
    let Some(parent) = parent else { return Ok((start, name)) };
    let opened = if path.is_absolute() {
        openat2(&root, parent, flags, Mode::empty(), ResolveFlags::IN_ROOT)?
    } else if same(&root, &rustix::fs::open("/", flags, Mode::empty())?)? {
        openat2(&start, parent, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?
    } else {
        // If the script has called chroot, a relative path must not leave its starting directory.
        openat2(&start, parent, flags, Mode::empty(), ResolveFlags::BENEATH)?
    };
    Ok((opened, name))
}

fn same(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// The credentials of a caller.
struct Caller {
    uid: u32,
    gid: u32,
    umask: u32,
    may_make_devices: bool,
}

impl Caller {
    fn of(proc: &OwnedFd, pid: u32) -> Option<Caller> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let status = rustix::fs::openat(proc, format!("{pid}/status"), flags, Mode::empty());
        let text = std::io::read_to_string(std::fs::File::from(status.ok()?)).ok()?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        // Real, effective, saved and file system id.
        let id = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
        let effective = u64::from_str_radix(field("CapEff")?, 16).ok()?;
        Some(Caller {
            uid: id("Uid")?,
            gid: id("Gid")?,
            umask: u32::from_str_radix(field("Umask")?, 8).ok()?,
            may_make_devices: effective >> CAP_MKNOD & 1 == 1,
        })
    }
}

/// Reads a path from the caller's memory, one page at a time: the next page may not be mapped.
fn read_path(pid: u32, address: u64) -> rustix::io::Result<Vec<u8>> {
    let mut path = Vec::new();
    let mut address = address as usize;
    while path.len() < libc::PATH_MAX as usize {
        let length = PAGE - address % PAGE;
        let mut piece = vec![0; length];
        let remote = [RemoteIoVec { base: address, len: length }];
        let local = &mut [IoSliceMut::new(&mut piece)];
        let read = process_vm_readv(Pid::from_raw(pid as i32), local, &remote)
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        if read == 0 {
            return Err(Errno::FAULT);
        }
        if let Some(end) = piece[..read].iter().position(|byte| *byte == 0) {
            path.extend_from_slice(&piece[..end]);
            return if path.is_empty() { Err(Errno::NOENT) } else { Ok(path) };
        }
        path.extend_from_slice(&piece[..read]);
        address += read;
    }
    Err(Errno::NAMETOOLONG)
}

/// Returns the filter: `mknod` and `mknodat` with the mode of a device wait for an answer; all other calls are
/// allowed. `None` on an architecture with unknown call numbers.
fn program() -> Option<Vec<BpfInstruction>> {
    let arch: u32 = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        _ => return None,
    };
    // struct seccomp_data: nr at 0, arch at 4, six arguments of eight bytes from 16 on.
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |value, yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let answer = |value| step(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let argument = |n: u32| if cfg!(target_endian = "big") { 20 + 8 * n } else { 16 + 8 * n };
    #[cfg(target_arch = "x86_64")]
    let mknod = libc::SYS_mknod as u32;
    // Other architectures have mknodat only.
    #[cfg(not(target_arch = "x86_64"))]
    let mknod = u32::MAX;
    Some(vec![
        load(4),
        equal(arch, 0, 9),
        load(0),
        equal(mknod, 1, 0),
        equal(libc::SYS_mknodat as u32, 2, 6),
        // The mode is argument 1 of mknod, 2 of mknodat.
        load(argument(1)),
        step(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        load(argument(2)),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, libc::S_IFMT),
        equal(libc::S_IFCHR, 2, 0),
        equal(libc::S_IFBLK, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_USER_NOTIF),
    ])
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> BpfInstruction {
    BpfInstruction { code: code as u16, jt, jf, k }
}
