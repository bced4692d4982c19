//! Creates a user namespace, and joins it in a stage.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

use super::cause::no_user_namespace;
use super::idmap::IdMap;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::{check_parent, die_with_parent};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply_with};

/// Request: create a user namespace and return its descriptor. No descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct UserNamespaceRequest;

/// Creates a user namespace with this id map.
pub(in crate::sandbox) fn create(map: &IdMap) -> Result<OwnedFd> {
    let mut stage = Stage::start(Path::new("/"), &UserNamespaceRequest, &[])?;
    let ((), mut fds) = stage.recv()?;
    let namespace = fds.pop().ok_or_else(|| Error::sandbox("no user namespace"))?;
    // An interrupt kills the stage that the map is for.
    map.write(stage.pid()).map_err(interrupt::or_interrupted)?;
    stage.send(&(), &[])?;
    Ok(namespace)
}

impl Request for UserNamespaceRequest {
    const NAME: &'static str = "user-namespace";
    type Answer = ();

    fn serve(self, channel: &Channel, _: Descriptors) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(no_user_namespace)?;
        let namespace = std::fs::File::open("/proc/self/ns/user")
            .map_err(|error| Error::io("open", "/proc/self/ns/user", error))?;
        reply_with(channel, &(), &[namespace.into()])?;
        // The parent writes the map before it lets this process end.
        let _ = channel.recv::<()>();
        Ok(())
    }
}

/// Sets the supplementary groups. The kernel denies that with a single-id map alone: then the process keeps the caller's
/// groups, which have no number in the namespace.
pub(in crate::sandbox) fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    match setgroups(groups) {
        Err(nix::errno::Errno::EPERM) if is_denied(std::fs::read("/proc/self/setgroups")) => Ok(()),
        other => other,
    }
}

/// Whether `/proc/self/setgroups` says that the namespace has no setgroups(2).
fn is_denied(setgroups: std::io::Result<Vec<u8>>) -> bool {
    setgroups.is_ok_and(|text| text.trim_ascii() == b"deny")
}

/// Joins the user namespace in a stage and becomes its root.
pub(in crate::sandbox) fn join(channel: &Channel, namespace: OwnedFd) -> Result<()> {
    let failed = |errno: nix::errno::Errno| {
        Error::sandbox("can't join the user namespace of svp").source(errno)
    };
    setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(failed)?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    set_groups(&[])
        .map_err(|errno| Error::sandbox("can't drop the caller's groups").source(errno))?;
    setresgid(root.1, root.1, root.1).map_err(failed)?;
    setresuid(root.0, root.0, root.0).map_err(failed)?;
    // Fails only for an invalid value.
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    die_with_parent();
    check_parent(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setgroups_may_fail_in_a_namespace_that_denies_it_alone() {
        assert!(is_denied(Ok(b"deny\n".to_vec())));
        assert!(!is_denied(Ok(b"allow\n".to_vec())));
        assert!(!is_denied(Ok(Vec::new())));
        assert!(!is_denied(Err(std::io::ErrorKind::NotFound.into())));
    }
}
