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
use crate::sys::install_seccomp_filter;

/// Installs the filter. Needs CAP_SYS_ADMIN in the user namespace, or `no_new_privs`: call it before dropping
/// capabilities.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the kernel rejects it.
pub(in crate::sandbox) fn install() -> Result<()> {
    install_seccomp_filter(&program::build()).map_err(|error| {
        Error::sandbox("the kernel rejects svp's seccomp filter")
            .source(error)
            .hint("svp needs a kernel with CONFIG_SECCOMP_FILTER: see `svp check`")
    })
}
