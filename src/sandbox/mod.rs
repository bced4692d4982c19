//! The sandbox: one user namespace, and stages in it that unpack, run, diff and remove.
//!
//! svp itself never enters a namespace, which a threaded program can't. It starts *stages*: fresh starts
//! of itself, from a sealed copy in memory, that join the user namespace, make the other namespaces, and
//! do one thing. They work in the *tree area*, a directory of the container's root, by relative paths and
//! by the descriptors they are handed.
//!
//! | file | what it does |
//! |---|---|
//! | `spec` | what to run, as plain data |
//! | `userns/` | the user namespace and its id map |
//! | `stage/`, `stages` | the protocol of stages; the table of all of them |
//! | `container`, `run`, `init`, `mounts`, `overlay`, `network`, `netlink`, `privileges`, `seccomp`, `mknod` | a container |
//! | `resources`, `cgroup` | what a service may use of the machine |
//! | `shield`, `carry`, `doors`, `relay` | what a private network keeps a container from; what pasta can't carry; links |
//! | `service`, `keeper` | a service's container and its components |
//! | `join`, `user` | a command in a container that runs, and who it is |
//! | `volume` | what outlives a container |
//! | `saved` | what an image has for backups; copies of what outlives a container |
//! | `trees` | unpack, diff, remove |
//! | `directory` | unpack into a directory of the caller's |
//! | `area` | the tree area: unpacked layers, scratch places, locks |
//! | `verify` | whether unpacked layers still are what their blobs say |
//! | `unpacked` | the unpacked layers of every id map: listing, measuring, removing |

mod area;
mod carry;
mod cgroup;
mod container;
mod directory;
mod doors;
mod init;
mod join;
mod keeper;
mod mknod;
mod mounts;
mod netlink;
mod network;
mod overlay;
mod privileges;
mod relay;
mod resources;
mod run;
mod saved;
mod seccomp;
mod service;
mod shield;
mod spec;
mod stage;
mod stages;
mod trees;
mod unpacked;
mod user;
mod userns;
mod verify;
mod volume;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use area::{DiffOptions, LayerSource, Scratch, layer_sources};
pub use cgroup::why_unbounded;
pub use directory::unpack_into;
pub use doors::{Listen, MAX_LINKS, link_address};
pub use join::{JoinSpec, Joined, Signaller, Stdio, join};
pub use network::{Forward, Transport, why_not_private as why_no_private_network};
pub use relay::{Door, open as open_socket, serve};
pub use resources::{Resources, parse_cpus, parse_memory, parse_pids};
pub use run::Output;
pub use saved::SavedVolume;
pub use service::{Component, Event, MAX_COMPONENTS, Service, ServiceSpec};
pub use spec::{Allowed, Bind, End, Limits, Network, Overlay, Rootfs, RunSpec, Stream};
pub(crate) use stage::process::close_inherited;
pub use stages::run_if_stage;
pub use trees::WrittenLayer;
pub use unpacked::Unpacked;
pub use userns::idmap::{Extent, How, IdMap};
pub use verify::Altered;

use crate::error::Result;

/// A user namespace, and the directory whose trees belong to its root.
#[derive(Debug)]
pub struct Sandbox {
    namespace: OwnedFd,
    map: IdMap,
    area: PathBuf,
}

impl Sandbox {
    /// Makes the user namespace, and under `trees` the area for its id map; sweeps what was left there by
    /// commands that were killed.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with what to do about it, if this host lets the
    /// caller make no user namespace; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn enter(trees: &Path) -> Result<Sandbox> {
        let map = IdMap::for_caller()?;
        let area = area::make(trees, &map)?;
        let namespace = userns::namespace::create(&map)?;
        let sandbox = Sandbox { namespace, map, area };
        sandbox.sweep();
        Ok(sandbox)
    }

    /// A sandbox without a tree area, for [`Rootfs::HostTools`] alone.
    ///
    /// # Errors
    /// As [`Sandbox::enter`].
    pub fn without_area() -> Result<Sandbox> {
        let map = IdMap::for_caller()?;
        let namespace = userns::namespace::create(&map)?;
        Ok(Sandbox { namespace, map, area: PathBuf::from("/") })
    }

    /// Which of the host's users the container's are.
    pub fn map(&self) -> &IdMap {
        &self.map
    }

    fn area(&self) -> &Path {
        &self.area
    }

    fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn namespace_fd(&self) -> &OwnedFd {
        &self.namespace
    }
}
