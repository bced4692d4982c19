//! The sandbox: one user namespace, and stages in it that unpack, run, diff and remove.
//!
//! svp itself never enters a namespace: a multi-threaded process can't join a user namespace. It starts *stages*: new
//! processes of svp, executed from a sealed copy in memory, that join the user namespace, create the other namespaces
//! and do one task each. They work in the *layer store*, a directory owned by the container's root, through relative
//! paths and the descriptors passed to them.
//!
//! | module | what it does |
//! |---|---|
//! | `create` | the user namespace and the layer store of a command |
//! | `spec` | the command to run and its container, as plain data |
//! | `stage`, `stages` | the protocol of stages; the table of all stages |
//! | `userns` | the user namespace and its id map |
//! | `trees` | unpacked layers, root file systems of builds and services, volumes |
//! | `container` | containers and their processes |
//! | `network` | the networks of containers |
//! | `cgroup` | resource limits of a service |
//! | `landlock` | restricts a stage or a query to its own files |
//! | `programs` | finds programs of the host |
//!
//! Lower modules never import higher ones: `stage`, then `userns`, `trees`, `network` and `cgroup`, then `container`;
//! `stages` alone imports them all.

mod cgroup;
mod container;
mod create;
mod landlock;
mod network;
mod programs;
mod spec;
mod stage;
mod stages;
mod trees;
mod userns;

pub(crate) use cgroup::resources::{Memory, MilliCpus, Pids, Resources, memory_amount};
pub(crate) use cgroup::why_unbounded;
pub(crate) use container::join::{JoinSpec, Joined, Signaller, Stdio, join};
pub(crate) use container::service::{Component, Event, MAX_COMPONENTS, Service, ServiceSpec};
pub(crate) use container::stdio::{input_pipe, output_pipe, set_nonblocking};
pub(crate) use create::Sandbox;
pub(crate) use landlock::why_no_landlock;
pub(crate) use network::availability::{
    available as available_network, why_not_private as why_no_private_network,
};
pub(crate) use network::link_listeners::{LinkListener, MAX_LINKS, link_address};
pub(crate) use network::ports::{Forward, Transport};
pub(crate) use network::relay::serve;
pub(crate) use network::socket::open as open_socket;
pub(crate) use spec::{
    Bind, Bound, End, HostAccess, HostsEntry, Limits, Network, Overlay, Reached, Rootfs, RunEnd,
    RunSpec, Stream, Watched,
};
pub(crate) use stage::process::close_inherited;
pub(crate) use stages::run_if_stage;
pub(crate) use trees::build_rootfs::{BuildRootfs, DiffOptions};
pub(crate) use trees::layer_cache::CachedTree;
pub(crate) use trees::layer_store::{LayerSource, layer_sources};
pub(crate) use trees::unpack_directory::unpack_into;
pub(crate) use trees::verify::AlteredLayer;
pub(crate) use trees::volume_archive::ArchivedVolume;
pub(crate) use trees::volume_record::VolumeRecord;
pub(crate) use userns::idmap::{IdMap, MapMethod};
pub(crate) use userns::subordinate::advice as subordinate_ids_advice;
