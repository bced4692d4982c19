//! Describes a container, and creates it in its stage.

use std::fs::File;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::watch::Bounds;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::sandbox::create::Sandbox;
use crate::sandbox::network::link_listeners::{self, LinkListener};
use crate::sandbox::network::netlink;
use crate::sandbox::network::resolver::{self, Resolver};
use crate::sandbox::spec::{Bind, HostAccess, Network, Rootfs};
use crate::sandbox::stage::protocol::reply_with;
use crate::sandbox::trees::overlay;
use crate::sandbox::userns::cause::no_namespaces;

/// A container, with everything that its stages need to know about the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct Container {
    pub(in crate::sandbox) rootfs: Rootfs,
    /// The additional bind mounts, in this order.
    pub(in crate::sandbox) binds: Vec<Bind>,
    pub(in crate::sandbox) hostname: String,
    /// Whether group 5 (tty) is in the id map.
    pub(in crate::sandbox) tty_group: bool,
    /// Whether it has a private network namespace.
    pub(in crate::sandbox) own_network: bool,
    /// Whether svp connects that namespace before anything runs.
    attach: bool,
    pub(in crate::sandbox) resolv_conf: String,
    pub(in crate::sandbox) hosts: String,
    /// The listeners for links, next to the container's network.
    pub(in crate::sandbox) listen: Vec<LinkListener>,
    /// The limits that its init enforces.
    pub(in crate::sandbox) bounds: Bounds,
}

impl Container {
    /// Whether svp connects its network namespace before anything runs.
    pub(in crate::sandbox) fn attaches(&self) -> bool {
        self.attach
    }

    /// Returns the listeners for links that its stage opens.
    pub(in crate::sandbox) fn link_listeners(&self) -> &[LinkListener] {
        if self.own_network { &self.listen } else { &[] }
    }
}

impl Sandbox {
    /// Describes a container in one of the three networks; also returns its resolver.
    pub(in crate::sandbox) fn container(
        &self,
        rootfs: Rootfs,
        binds: Vec<Bind>,
        hostname: &str,
        network: Network,
        host_access: HostAccess,
    ) -> (Container, Resolver) {
        let resolver = match network {
            Network::Private => Resolver::private(host_access),
            Network::Host => Resolver::of_host(),
            Network::None => Resolver::none(),
        };
        let container = Container {
            rootfs,
            binds,
            hostname: hostname.to_owned(),
            tty_group: self.map().gids.iter().any(|e| e.inside <= 5 && 5 - e.inside < e.count),
            own_network: network != Network::Host,
            attach: network == Network::Private,
            resolv_conf: resolver.file.clone(),
            hosts: resolver::hosts(hostname, network != Network::None, host_access),
            listen: Vec::new(),
            bounds: Bounds::default(),
        };
        (container, resolver)
    }
}

/// Creates the namespaces, the overlay and the network, in the stage. The caller then starts the container's init.
pub(in crate::sandbox) fn create(channel: &Channel, container: &Container) -> Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if container.own_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).map_err(|errno| no_namespaces("the container's namespaces", errno))?;
    match unshare(CloneFlags::CLONE_NEWCGROUP) {
        // EINVAL: the kernel has no cgroup namespaces.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(no_namespaces("a cgroup namespace", errno)),
    }
    overlay::make_private()?;
    if let Rootfs::Layers(layers) = &container.rootfs {
        overlay::enter(layers)?;
        overlay::make_scaffold()?;
        overlay::mount_merged(layers)?;
    }
    if container.own_network {
        prepare_network(channel, container)?;
        if !container.link_listeners().is_empty() {
            reply_with(channel, &(), &link_listeners::open(container.link_listeners())?)?;
        }
    }
    Ok(())
}

fn prepare_network(channel: &Channel, container: &Container) -> Result<()> {
    let failed = |what: &str, error| Error::sandbox(what.to_owned()).source(error);
    netlink::bring_up(netlink::LOOPBACK)
        .map_err(|error| failed("can't bring up the loopback interface", error))?;
    if !container.attach {
        return Ok(());
    }
    let namespace = File::open("/proc/self/ns/net")
        .map_err(|error| failed("can't open the network namespace", error))?;
    reply_with(channel, &(), &[namespace.into()])?;
    let go = channel.recv::<()>().map_err(|error| failed("can't receive from svp", error))?;
    go.map(drop).ok_or_else(|| Error::sandbox("svp has ended"))
}
