//! Opens the listeners through which a service reaches its linked services.
//!
//! In the service's own network namespace these listeners would occupy ports that the service needs: two databases of
//! the same kind listen on the same port. So they are in a separate, otherwise empty network namespace, connected by a
//! veth pair, with one address for each link.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use super::netlink;
use super::ports::Transport;
use super::socket::{self, RelaySocket};
use crate::error::{Error, Result};
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::userns::cause::no_namespaces;

/// The names of the veth interfaces: in the service's network namespace, and in that of the listeners.
pub(in crate::sandbox) const INTERFACE: &str = "links";
const PEER: &str = "service";

/// The maximum number of links of a service.
pub(crate) const MAX_LINKS: usize = 200;

/// A listener in a service's network that leads to a linked service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkListener {
    /// The index of the link.
    pub link: usize,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Transport,
}

/// Returns the address at which a service reaches the link with this index.
pub(crate) fn link_address(link: usize) -> Ipv4Addr {
    let number = u8::try_from(link + 2).unwrap_or(u8::MAX);
    Ipv4Addr::new(169, 254, 83, number)
}

/// Creates the network namespace of the listeners, opens them in it, and connects it to this process's.
pub(in crate::sandbox) fn open(wanted: &[LinkListener]) -> Result<Vec<OwnedFd>> {
    let failed = |error: std::io::Error| {
        Error::sandbox("can't create the network for the links").source(error)
    };
    let here = File::open("/proc/self/ns/net").map_err(failed)?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| no_namespaces("the network for the links", errno))?;
    let opened = open_in_new_network(wanted, &here);
    setns(&here, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    let sockets = opened?;
    let up = || {
        let index = netlink::index_of(INTERFACE)?;
        netlink::add_address(index, Ipv4Addr::new(169, 254, 83, 1), 24)?;
        netlink::bring_up(index)
    };
    up().map_err(failed)?;
    Ok(sockets)
}

/// Connects this process's new network namespace to the service's, and opens the listeners in it.
fn open_in_new_network(wanted: &[LinkListener], service: &File) -> Result<Vec<OwnedFd>> {
    let up = || {
        netlink::bring_up(netlink::LOOPBACK)?;
        netlink::make_pair(PEER, INTERFACE, service.as_fd())?;
        let index = netlink::index_of(PEER)?;
        for listen in wanted {
            netlink::add_address(index, link_address(listen.link), 24)?;
        }
        netlink::bring_up(index)
    };
    up().map_err(|error: std::io::Error| {
        Error::sandbox("can't create the pair of network interfaces that links need")
            .source(error)
            .hint("load the kernel module veth, or run the service with --network host")
    })?;
    let mut sockets = Vec::new();
    for listen in wanted {
        let at = (link_address(listen.link), listen.port).into();
        sockets.push(socket::open(at, listen.protocol).map_err(|error| {
            Error::sandbox(format!("can't listen on {at} for a link")).source(error)
        })?);
    }
    Ok(sockets)
}

/// Receives the sockets that a container's stage has opened, in the order of the request.
pub(in crate::sandbox) fn receive<R>(
    stage: &mut Stage<R>,
    wanted: &[LinkListener],
) -> Result<Vec<RelaySocket>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ((), fds) = stage.recv()?;
    if fds.len() != wanted.len() {
        return Err(Error::sandbox("the stage returned too few sockets for the links"));
    }
    let sockets = fds.into_iter().zip(wanted);
    Ok(sockets.map(|(fd, listen)| RelaySocket::of(fd, listen.protocol)).collect())
}
