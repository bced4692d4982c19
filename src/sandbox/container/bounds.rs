//! Sets a command's limits of memory, processes and threads.
//!
//! What the user requests is enforced by a cgroup, or the command does not start. Defaults hold everywhere: the
//! container's init enforces them without a cgroup (`watch`).

use super::create::Container;
use super::watch::{Bounds, counts_by_namespace};
use crate::error::Result;
use crate::sandbox::cgroup::resources::Resources;
use crate::sandbox::cgroup::{self, Cgroup};
use crate::sandbox::spec::{Bound, End, Limits, Reached, RunEnd};

/// The processes and threads of svp in a command's container: the stage; init with the thread that answers mknod.
const OWN: u64 = 3;
/// The thread of init that watches.
const WATCH: u64 = 1;
/// The processes that connect its network: they have the same user.
const OF_NETWORK: u64 = 3;
/// The beginning of the names of these cgroups.
const NAME: &str = "build";

/// Moves the stage of a container into a cgroup with the limits that need one, and notes the others in the container.
/// The cgroup must outlive the container.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with a hint, if a requested limit can't be enforced.
pub(super) fn set(limits: &Limits, stage: u32, container: &mut Container) -> Result<Cgroup> {
    let requested = |bound| match bound {
        Some(Bound::Strict(amount)) => Some(amount),
        _ => None,
    };
    let own = OWN + WATCH + if container.attaches() { OF_NETWORK } else { 0 };
    let resources = Resources {
        memory: requested(limits.memory),
        pids: requested(limits.pids).map(|pids| pids + OWN),
        milli_cpus: None,
    };
    let mut bounds = Bounds { shm: limits.shm, own, ..Bounds::default() };
    if let Some(Bound::Watched(amount)) = limits.memory {
        bounds.memory = Some(amount);
    }
    if let Some(Bound::Watched(amount)) = limits.pids {
        bounds.pids = Some(amount);
    }
    let mut cgroup = Cgroup::default();
    if !resources.is_unbounded() {
        cgroup::sweep(NAME);
        let id = format!("{NAME}-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let (made, unbounded) = Cgroup::make(&id, &resources, stage);
        cgroup = made;
        if let Some(unbounded) = unbounded {
            // The number of processes has another bound that the kernel enforces.
            if unbounded.includes_memory() || !counts_by_namespace() {
                return Err(unbounded.into_error());
            }
            bounds.pids = requested(limits.pids);
        }
    }
    container.bounds = bounds;
    Ok(cgroup)
}

/// Adds what the cgroup has counted to the end of a command. The kernel may have killed svp's own processes in the
/// container, too.
pub(super) fn with_counters(end: Result<RunEnd>, cgroup: &Cgroup) -> Result<RunEnd> {
    let memory_kills = cgroup.memory_kills();
    let mut end = match end {
        Err(error) if memory_kills == 0 => return Err(error),
        Err(_) => End::Signaled(libc::SIGKILL).into(),
        Ok(end) => end,
    };
    let pids = end.reached.pids || cgroup.refused_pids() > 0;
    end.reached = Reached { memory_kills, pids, ..end.reached };
    Ok(end)
}
