//! The one system call that no library wraps safely as we need it.
#![allow(unsafe_code)]

use std::io;

/// One instruction of classic BPF.
pub use libc::sock_filter as BpfInstruction;

/// Installs a seccomp filter for this thread and what it starts, without giving up setuid programs.
///
/// seccompiler and the other wrappers set `no_new_privs` first, which would break `su` and `sudo` in a
/// container. The kernel doesn't ask for that from a process with CAP_SYS_ADMIN in its user namespace.
///
/// # Errors
/// What the kernel says; EACCES without CAP_SYS_ADMIN.
pub fn install_seccomp_filter(program: &[BpfInstruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter` during the call and keeps no pointer;
    // `program` outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&program),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
