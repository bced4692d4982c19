//! Where svp listens for a service: for those that it is linked to.
//!
//! In the service's own network its sockets would take ports that the service itself wants: two databases of a kind
//! listen on the same. So they are in a network beside it, which has nothing else in it, and an address for each link.

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

/// The interfaces' names, in the service's network and in the one beside it.
pub(in crate::sandbox) const HERE: &str = "links";
const BESIDE: &str = "service";

/// The most services that one can be linked to.
pub const MAX_LINKS: usize = 200;

/// Where svp listens for a service, and leads to what it is linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkListener {
    /// Which of its links it is for.
    pub link: usize,
    /// The port.
    pub port: u16,
    /// Over what.
    pub protocol: Transport,
}

/// The address by which a service reaches the link with this number.
pub fn link_address(link: usize) -> Ipv4Addr {
    let number = u8::try_from(link + 2).unwrap_or(u8::MAX);
    Ipv4Addr::new(169, 254, 83, number)
}

/// Makes the network beside this process's, and the sockets in it.
pub(in crate::sandbox) fn open(wanted: &[LinkListener]) -> Result<Vec<OwnedFd>> {
    let failed = |error: std::io::Error| {
        Error::sandbox("can't make the network for the links").source(error)
    };
    let here = File::open("/proc/self/ns/net").map_err(failed)?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    let opened = beside(wanted, &here);
    setns(&here, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    let sockets = opened?;
    let up = || {
        let index = netlink::index_of(HERE)?;
        netlink::add_address(index, Ipv4Addr::new(169, 254, 83, 1), 24)?;
        netlink::bring_up(index)
    };
    up().map_err(failed)?;
    Ok(sockets)
}

fn beside(wanted: &[LinkListener], service: &File) -> Result<Vec<OwnedFd>> {
    let up = || {
        netlink::bring_up(netlink::LOOPBACK)?;
        netlink::make_pair(BESIDE, HERE, service.as_fd())?;
        let index = netlink::index_of(BESIDE)?;
        for listen in wanted {
            netlink::add_address(index, link_address(listen.link), 24)?;
        }
        netlink::bring_up(index)
    };
    up().map_err(|error: std::io::Error| {
        Error::sandbox("can't make a pair of network interfaces, which links need")
            .source(error)
            .hint("the kernel's module for them is veth; or run the service with --network host")
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

/// Receives the sockets that a container's stage was asked to open, in their order.
pub(in crate::sandbox) fn receive<R>(
    stage: &mut Stage<R>,
    wanted: &[LinkListener],
) -> Result<Vec<RelaySocket>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ((), fds) = stage.recv()?;
    if fds.len() != wanted.len() {
        return Err(Error::sandbox("some sockets for the links are missing"));
    }
    let sockets = fds.into_iter().zip(wanted);
    Ok(sockets.map(|(fd, listen)| RelaySocket::of(fd, listen.protocol)).collect())
}
