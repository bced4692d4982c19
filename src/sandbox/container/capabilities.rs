//! The capabilities of a container's root: Docker's default set without CAP_NET_RAW.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::stdio::{dup2_stderr, stdout};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::{Error, Result};

/// Docker's default set without CAP_NET_RAW, as in podman: pasta would forward raw packets to the host's
/// loopback. All capabilities apply to the user namespace only.
pub(super) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Drops every capability outside [`KEPT`], irrevocably.
///
/// Until now this process had more capabilities than the service, which therefore could not trace it. With equal
/// capabilities the service could: it would find the caller's terminal or svp's log at `/proc/PID/fd/2`, and could read
/// the terminal's input. So this function first makes the process non-dumpable and redirects its standard error to
/// /dev/null. A program that this process executes can be traced again.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the kernel refuses.
pub(in crate::sandbox) fn drop_capabilities() -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        Error::sandbox("can't drop capabilities").source(std::io::Error::from(error))
    };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    // Standard output of a stage is /dev/null.
    dup2_stderr(stdout()).map_err(failed)?;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if KEPT.contains(capability) {
            continue;
        }
        // EINVAL: past the last capability that the kernel supports.
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability).map_err(failed)?,
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    match clear_ambient_capability_set() {
        // EINVAL: a kernel without ambient capabilities.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(failed(error)),
    }
    let sets =
        CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed)
}
