//! Forwards the host's ports that pasta cannot.
//!
//! pasta (0.0~git20230309) supports only one target for each port number, whatever the address; it loses the replies to
//! datagrams if the port in the container differs; and it forwards connections from the host's loopback only (replies
//! to connections from the gateway could not be routed anyway). For all other ports, svp opens the sockets in the
//! host's network and passes them to a stage, which connects to the ports in the container's network.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::ports::{Forward, Transport};
use super::relay;
use super::socket::{self, RelaySocket};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::sandbox::stage::fd_limit;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request, reply};
use crate::sandbox::userns::namespace;

/// Request: forward ports into a network, in the order of their sockets. Descriptors: the user namespace, the network
/// namespace, the ports' sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct PortForwarderRequest {
    ports: Vec<Forward>,
}

/// Splits the ports into those that pasta can forward and those that it cannot.
pub(in crate::sandbox) fn split(forwards: &[Forward]) -> (Vec<Forward>, Vec<Forward>) {
    let mut seen = HashSet::new();
    let (mut pasta, mut ours) = (Vec::new(), Vec::new());
    for &forward in forwards {
        if forwards.iter().any(|other| covers(other, &forward)) {
            continue;
        }
        let moved = forward.protocol == Transport::Udp && forward.host.port() != forward.container;
        let on_loopback = forward.host.ip().is_loopback();
        if on_loopback && !moved && seen.insert((forward.protocol, forward.host.port())) {
            pasta.push(forward);
        } else {
            ours.push(forward);
        }
    }
    (pasta, ours)
}

/// Whether a port on all addresses makes the same port on one address redundant.
fn covers(all: &Forward, one: &Forward) -> bool {
    let mut same = *all;
    same.host.set_ip(one.host.ip());
    all.host.ip().is_unspecified()
        && !one.host.ip().is_unspecified()
        && all.host.is_ipv4() == one.host.is_ipv4()
        && same == *one
}

/// Starts the port forwarder; returns `None` if there are no ports.
pub(in crate::sandbox) fn start(
    user_namespace: &OwnedFd,
    network_namespace: &OwnedFd,
    ports: Vec<Forward>,
) -> Result<Option<Stage<PortForwarderRequest>>> {
    if ports.is_empty() {
        return Ok(None);
    }
    let mut sockets = Vec::new();
    for port in &ports {
        sockets.push(socket::open(port.host, port.protocol).map_err(|error| {
            Error::sandbox(format!("can't listen on {}", port.host)).source(error)
        })?);
    }
    let mut fds = vec![user_namespace.as_fd(), network_namespace.as_fd()];
    fds.extend(sockets.iter().map(AsFd::as_fd));
    let mut stage = Stage::start(Path::new("/"), &PortForwarderRequest { ports }, &fds)?;
    stage.recv::<()>()?;
    Ok(Some(stage))
}

impl Request for PortForwarderRequest {
    const NAME: &'static str = "port-forwarder";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        forward(channel, &self, fds.take()?, fds.rest())
    }
}

/// Forwards ports until this process is killed.
fn forward(
    channel: &Channel,
    request: &PortForwarderRequest,
    network: OwnedFd,
    sockets: Vec<OwnedFd>,
) -> Result<()> {
    setns(network, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::sandbox("can't join the network namespace").source(errno))?;
    fd_limit::raise_limit();
    reply(channel, &())?;
    std::thread::scope(|scope| {
        for (port, socket) in request.ports.iter().zip(sockets) {
            let socket = RelaySocket::of(socket, port.protocol);
            scope.spawn(move || {
                let to = |peer| relay::local_targets(port.container, peer);
                relay::serve(&socket, &to, &|| channel.is_hung_up())
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(host: &str, container: u16, protocol: Transport) -> Forward {
        Forward { host: host.parse().unwrap(), container, protocol }
    }

    #[test]
    fn pasta_gets_each_loopback_port_once_and_no_udp_port_with_another_number() {
        let own = forward("127.83.1.2:3306", 3306, Transport::Tcp);
        let udp = forward("127.83.1.2:3306", 3306, Transport::Udp);
        let here = forward("127.0.0.1:3306", 3306, Transport::Tcp);
        let there = forward("192.0.2.1:3306", 3306, Transport::Tcp);
        let moved = forward("127.83.1.2:8053", 53, Transport::Udp);
        assert_eq!(split(&[own, udp]), (vec![own, udp], vec![]));
        assert_eq!(split(&[own, here]), (vec![own], vec![here]));
        assert_eq!(split(&[own, moved]), (vec![own], vec![moved]));
        assert_eq!(split(&[own, there, here]), (vec![own], vec![there, here]));
    }

    #[test]
    fn a_port_on_all_addresses_makes_the_same_port_on_one_address_redundant() {
        let own = forward("127.83.1.2:3306", 3306, Transport::Tcp);
        let all = forward("0.0.0.0:3306", 3306, Transport::Tcp);
        let all_v6 = forward("[::]:3306", 3306, Transport::Tcp);
        assert_eq!(split(&[own, all]), (vec![], vec![all]));
        assert_eq!(split(&[own, all_v6]), (vec![own], vec![all_v6]));
        let other = forward("0.0.0.0:3306", 3307, Transport::Tcp);
        assert_eq!(split(&[own, other]), (vec![own], vec![other]));
    }
}
