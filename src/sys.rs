//! Wraps the system calls that no library offers in the form needed here: seccomp without `no_new_privs` and
//! with a listener, signal dispositions, another process's resource limits, attributes of a mount tree, Landlock.
//!
//! seccompiler and other wrappers set `no_new_privs` first, which would break `su` and `sudo` in a container.
//! The kernel doesn't require it from a process with CAP_SYS_ADMIN in its user namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One instruction of classic BPF.
pub(crate) use libc::sock_filter as BpfInstruction;

/// Installs a seccomp filter for this thread and its children.
///
/// # Errors
/// The kernel's errors; EACCES without CAP_SYS_ADMIN.
pub(crate) fn install_seccomp_filter(program: &[BpfInstruction]) -> io::Result<()> {
    install(program, 0).map(drop)
}

/// Installs a seccomp filter that may return SECCOMP_RET_USER_NOTIF; returns the listener descriptor.
///
/// # Errors
/// The kernel's errors; EBUSY if another filter of this process has a listener.
pub(crate) fn install_seccomp_listener(program: &[BpfInstruction]) -> io::Result<OwnedFd> {
    let fd = install(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the call returns a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn install(program: &[BpfInstruction], flags: libc::c_ulong) -> io::Result<i32> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter` during the call and keeps no pointer;
    // `program` outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    if result >= 0 { Ok(result as i32) } else { Err(io::Error::last_os_error()) }
}

/// A system call that waits for the supervisor's response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    id: u64,
    /// The caller's pid in this process's pid namespace.
    pub pid: u32,
    /// The system call number.
    pub call: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Receives the next system call from a listener; blocks until there is one.
///
/// # Errors
/// The kernel's errors; ENOENT if the caller was killed meanwhile.
pub(crate) fn receive_notification(listener: impl AsFd) -> io::Result<Notification> {
    // SAFETY: all-zero bytes are a valid value of this structure of integers, and the kernel requires them;
    // the kernel writes no more than the structure.
    let (result, notification) = unsafe {
        let mut notification: libc::seccomp_notif = std::mem::zeroed();
        let fd = listener.as_fd().as_raw_fd();
        let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
        let result = libc::ioctl(fd, request, std::ptr::from_mut(&mut notification));
        (result, notification)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Notification {
        id: notification.id,
        pid: notification.pid,
        call: i64::from(notification.data.nr),
        arguments: notification.data.args,
    })
}

/// Returns whether the call is still waiting. Check after opening anything by the caller's pid, which the kernel
/// may have reused.
pub(crate) fn still_waits(listener: impl AsFd, notification: &Notification) -> bool {
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads eight bytes.
    let result = unsafe {
        libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_ID_VALID, std::ptr::from_ref(&notification.id))
    };
    result == 0
}

/// Completes a waiting call: it returns 0 if `errno` is 0, else fails with `errno`.
///
/// # Errors
/// The kernel's errors; ENOENT if the caller was killed meanwhile.
pub(crate) fn answer_notification(
    listener: impl AsFd,
    notification: &Notification,
    errno: i32,
) -> io::Result<()> {
    let mut answer =
        libc::seccomp_notif_resp { id: notification.id, val: 0, error: -errno, flags: 0 };
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes no more than the structure, which outlives the call.
    let result =
        unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, std::ptr::from_mut(&mut answer)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Resets every signal to its default disposition: a signal that svp's caller ignores (`nohup`, a shell's
/// `&`) would stay ignored in every program that this process starts.
pub(crate) fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler, so no code of this process can run in one. The call fails
        // harmlessly for signals that can't be set (SIGKILL, the C library's own).
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ignores SIGXFSZ, so that a write beyond the limit on the size of files fails with EFBIG instead of ending this
/// process. [`default_signals`] undoes it for programs of a container.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Returns whether this process inherited the signal as ignored.
pub(crate) fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero action is valid to overwrite; with a null new action the call changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Copies the resource limits of another process to this one, capped at this process's hard limits. A limit
/// stays unchanged if the other process is gone or the kernel refuses.
pub(crate) fn copy_limits_of(pid: u32) {
    // RLIMIT_CPU to RLIMIT_RTTIME: all of them.
    for resource in 0..16 {
        let mut theirs = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        let mut ours = theirs;
        let none = std::ptr::null();
        // SAFETY: the kernel reads and writes no more than these structures, which outlive the calls.
        unsafe {
            if libc::prlimit64(pid as libc::pid_t, resource, none, &raw mut theirs) == 0
                && libc::prlimit64(0, resource, none, &raw mut ours) == 0
            {
                ours.rlim_max = ours.rlim_max.min(theirs.rlim_max);
                ours.rlim_cur = ours.rlim_max.min(theirs.rlim_cur);
                libc::prlimit64(0, resource, &raw const ours, std::ptr::null_mut());
            }
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Installs a no-op handler for every signal that would end this process, so that signals only interrupt its
/// system calls; fault signals keep their defaults. execve(2) resets the handlers.
pub(crate) fn survive_signals() {
    const FAULTS: [i32; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGABRT,
    ];
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| !FAULTS.contains(signal)) {
        // SAFETY: the handler does nothing, which is safe wherever it interrupts. The otherwise all-zero
        // action is valid: no flags, so that system calls are interrupted, and no other signal is blocked.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Sends a signal to the process of a pidfd. Real-time signals have no safe wrapper.
pub(crate) fn signal_process(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the null pointer asks the kernel to fill in the details itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes a detached mount and all mounts below it read-only, without devices, set-id programs and execution.
///
/// # Errors
/// The kernel's errors; ENOSYS before Linux 5.12.
pub(crate) fn set_read_only(tree: impl AsFd) -> io::Result<()> {
    let set = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    set_mount_attributes(tree, set, 0)
}

/// Sets attributes (MOUNT_ATTR_*) of a mount and of all mounts below it, and their propagation (MS_*) unless 0.
/// Attributes that they have already stay.
///
/// # Errors
/// The kernel's errors; ENOSYS before Linux 5.12.
pub(crate) fn set_mount_attributes(tree: impl AsFd, set: u64, propagation: u64) -> io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation, user_namespace: 0 };
    // SAFETY: the kernel reads the structure, whose size is given, and the empty path; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct landlock_ruleset_attr`, of the first version.
#[repr(C)]
struct LandlockRuleset {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct LandlockPathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Returns the version of the kernel's Landlock.
///
/// # Errors
/// ENOSYS or EOPNOTSUPP without Landlock.
pub(crate) fn landlock_version() -> io::Result<u32> {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<LandlockRuleset>();
    // SAFETY: with this flag, a null pointer and size 0 the call only returns a number.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Creates a Landlock ruleset that refuses these kinds of access to files, except by its rules.
///
/// # Errors
/// The kernel's errors.
pub(crate) fn landlock_ruleset(handled: u64) -> io::Result<OwnedFd> {
    let ruleset = LandlockRuleset { handled_access_fs: handled };
    // SAFETY: the kernel reads the structure, whose size is given, during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(&ruleset),
            size_of::<LandlockRuleset>(),
            0_u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// Adds a rule that allows these kinds of access to a file, or to all files below a directory.
///
/// # Errors
/// The kernel's errors; EINVAL for access that the ruleset does not handle.
pub(crate) fn landlock_allow(ruleset: impl AsFd, tree: impl AsFd, access: u64) -> io::Result<()> {
    const PATH_BENEATH: u32 = 1;
    let rule = LandlockPathBeneath { allowed_access: access, parent_fd: tree.as_fd().as_raw_fd() };
    // SAFETY: the kernel reads the structure during the call; both descriptors are open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            PATH_BENEATH,
            std::ptr::from_ref(&rule),
            0_u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Restricts this thread and its children to a ruleset, irrevocably. Needs `no_new_privs` or CAP_SYS_ADMIN.
///
/// # Errors
/// The kernel's errors.
pub(crate) fn landlock_restrict(ruleset: impl AsFd) -> io::Result<()> {
    let fd = ruleset.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open; the call takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
