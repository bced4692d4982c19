//! Allows the system calls that services need, and refuses all others.
//!
//! A second line of defense behind the user namespace and the dropped capabilities, for the parts of the kernel with
//! the most vulnerabilities. The list is the default profile of the containers project (podman, buildah, CRI-O) for a
//! container with svp's capabilities, without what docker refuses: `calls.txt`, compared with both profiles by the unit
//! tests. docs/decisions/087-system-calls.md has the reasons.

mod calls;
mod program;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::sys::{BpfInstruction, install_seccomp_filter};

/// Installs the filter. Needs CAP_SYS_ADMIN in the user namespace, or `no_new_privs`: call it before dropping
/// capabilities.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the kernel rejects it.
pub(in crate::sandbox) fn install() -> Result<()> {
    install_program(&program::build())
}

/// Also refuses memory that belongs to no process, whose size svp can't see: memfds and shared memory of System V. A
/// query needs neither.
///
/// # Errors
/// As [`install`].
pub(in crate::sandbox) fn install_for_queries() -> Result<()> {
    // Of 32-bit programs: asm/unistd_32.h, where 117 is all of System V's IPC, and arm's table.
    let other: &[u32] = if cfg!(target_arch = "aarch64") { &[385, 307] } else { &[356, 395, 117] };
    let native = [libc::SYS_memfd_create as u32, libc::SYS_shmget as u32];
    install_program(&program::build_refusing([&native, other]))
}

fn install_program(program: &[BpfInstruction]) -> Result<()> {
    install_seccomp_filter(program).map_err(|error| {
        Error::sandbox("the kernel rejects svp's seccomp filter")
            .source(error)
            .hint("svp needs a kernel with CONFIG_SECCOMP_FILTER: see `svp check`")
    })
}
