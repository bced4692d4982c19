//! What a private network keeps a container from, once pasta has connected it.
//!
//! pasta carries whatever it is given, to the host's loopback too. The container's own loopback hides that only as
//! long as nobody asks for the other interface, which takes no privilege (SO_BINDTODEVICE), so routes are not
//! enough. Rules come before routes, whatever the interface; for IPv4 the kernel sends in spite of them, if an
//! interface was asked for, and there a policy of IPsec's blocks. Packets made by hand would pass all that:
//! CAP_NET_RAW is not left to containers.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::link_listeners;
use super::netlink::{self, Prefix};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::sandbox::spec::HostAccess;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Where a container finds the host's loopback, if that is allowed.
pub(in crate::sandbox) const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// pasta wants one of IPv6 too, else the gateway would be it. It is refused with all of its kind.
pub(in crate::sandbox) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Where clouds tell a machine its credentials: no business of a pack's script.
const CLOUD_METADATA: [Prefix; 2] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 128),
];
/// The loopbacks. The container's own come first: the kernel looks for its own addresses before all else.
const LOOPBACKS: [Prefix; 2] =
    [(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)];
/// The addresses of IPv6 by which the gateway is reached besides its others.
const LINK_LOCAL: Prefix = (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);

/// The order of the rules; the kernel's own for local addresses is 0.
const ORDER: u32 = 100;

/// Rules to put in a network namespace. The user namespace, the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct EgressFilterRequest {
    /// The gateways, if they are refused.
    gateways: Vec<Prefix>,
    /// The gateways of the host's default routes, which pasta copies.
    defaults: Vec<IpAddr>,
    /// Whether the way to the host's loopback is the way out.
    host: bool,
}

/// Puts the rules in a network namespace; those that are there already stay.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub(in crate::sandbox) fn start(
    user_namespace: &OwnedFd,
    network_namespace: &OwnedFd,
    host_access: HostAccess,
) -> Result<()> {
    let whole = |ip: IpAddr| (ip, if ip.is_ipv4() { 32 } else { 128 });
    let request = EgressFilterRequest {
        gateways: match host_access.gateway {
            true => Vec::new(),
            false => gateways().into_iter().map(whole).chain([LINK_LOCAL]).collect(),
        },
        defaults: default_gateways(),
        host: host_access.host,
    };
    let fds = [user_namespace.as_fd(), network_namespace.as_fd()];
    Stage::start(Path::new("/"), &request, &fds)?.finish()
}

impl Request for EgressFilterRequest {
    const NAME: &'static str = "egress-filter";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        install(&self, fds.take()?)
    }
}

fn install(request: &EgressFilterRequest, network: OwnedFd) -> Result<()> {
    setns(network, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::sandbox("can't enter the network namespace").source(errno))?;
    // Else what looks for the host there would be looked for on the network.
    let no_host = (!request.host).then_some(&(IpAddr::V4(HOST), 32));
    let refused = LOOPBACKS.iter().chain(&CLOUD_METADATA).chain(&request.gateways).chain(no_host);
    for network in refused {
        // Without rules there are routes, which hold all who don't ask for an interface. A network without
        // IPv6 has nothing to refuse.
        if netlink::refuse(*network, ORDER).is_err() {
            let _ = netlink::refuse_route_to(*network);
        }
        if let (IpAddr::V4(address), bits) = *network {
            // A kernel without IPsec holds all but those that ask for an interface.
            let _ = netlink::block(address, bits);
        }
    }
    if request.host {
        let led = way_out().and_then(|index| netlink::add_default_route(index, HOST.into()));
        led.map_err(|error| Error::sandbox("can't lead to the host").source(error))?;
    } else {
        // Not all that the host has pasta copies: what can't be led out was perhaps never to be.
        let _ = lead_out(&request.defaults);
    }
    Ok(())
}

/// Adds the default routes that pasta could not: where it is started again the rules are there before its routes, and
/// the kernel takes no gateway that they refuse, unless it is said to be on the link. pasta passes over that.
fn lead_out(gateways: &[IpAddr]) -> std::io::Result<()> {
    let there = default_gateways();
    let v6 = has_global_v6();
    for is_v4 in [true, false] {
        let missing = !there.iter().any(|gateway| gateway.is_ipv4() == is_v4) && (is_v4 || v6);
        let gateway = gateways.iter().find(|gateway| gateway.is_ipv4() == is_v4);
        if let (true, Some(&gateway)) = (missing, gateway) {
            netlink::add_default_route(way_out()?, gateway)?;
        }
    }
    Ok(())
}

/// Whether this network has an address of IPv6 that others can reach.
fn has_global_v6() -> bool {
    // Address, interface's index, length, scope, …
    let scope = |line: &str| Some(line.split_whitespace().nth(3)? == "00");
    read("/proc/thread-self/net/if_inet6").lines().any(|line| scope(line) == Some(true))
}

/// The interface that pasta has made: the one that has routes.
fn way_out() -> std::io::Result<u32> {
    let routes = read("/proc/thread-self/net/route");
    let names = routes.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let name = names.into_iter().find(|name| !["lo", link_listeners::HERE].contains(name));
    netlink::index_of(name.ok_or(std::io::ErrorKind::NotFound)?)
}

/// The gateways of this process's network. Of IPv6 those that are not link-local, which are refused as a whole.
pub(in crate::sandbox) fn gateways() -> Vec<IpAddr> {
    let v4 = read("/proc/thread-self/net/route");
    let v6 = read("/proc/thread-self/net/ipv6_route");
    v4.lines().filter_map(gateway_v4).chain(v6.lines().filter_map(gateway_v6)).collect()
}

/// Those of them to which everything goes that has no other route.
fn default_gateways() -> Vec<IpAddr> {
    let v4 = read("/proc/thread-self/net/route");
    let v6 = read("/proc/thread-self/net/ipv6_route");
    let v4 = v4.lines().skip(1).filter(|line| everywhere_v4(line)).filter_map(gateway_v4);
    let v6 = v6.lines().filter(|line| everywhere_v6(line)).filter_map(gateway_v6);
    v4.chain(v6).collect()
}

fn read(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    text
}

fn everywhere_v4(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
}

fn everywhere_v6(line: &str) -> bool {
    line.strip_prefix("00000000000000000000000000000000 00 ").is_some()
}

/// Interface, destination, gateway, …; addresses as the processor has them in memory.
fn gateway_v4(line: &str) -> Option<IpAddr> {
    let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
    (gateway != 0).then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
}

/// Destination, its length, source, its length, gateway, …
fn gateway_v6(line: &str) -> Option<IpAddr> {
    let gateway = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
    let gateway = Ipv6Addr::from(gateway);
    (!gateway.is_unspecified() && !gateway.is_unicast_link_local()).then_some(IpAddr::V6(gateway))
}

impl HostAccess {
    /// What builds may reach: a CI machine's proxy is often at the gateway.
    pub(in crate::sandbox) const BUILD: HostAccess = HostAccess { gateway: true, host: false };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_read_from_routes() {
        let line = "eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        assert_eq!(gateway_v4(line).unwrap(), "10.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(gateway_v4("eth0\t0002000A\t00000000\t0001"), None);
        assert!(everywhere_v4(line) && !everywhere_v4(&line.replace("eth0\t0", "eth0\t1")));
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0";
        assert_eq!(gateway_v6(v6), "2001:db8::1".parse().ok());
        assert!(everywhere_v6(v6) && !everywhere_v6(&v6.replacen("0 00 ", "0 01 ", 1)));
        assert_eq!(gateway_v6(&v6.replace("20010db8", "fe800000")), None);
    }
}
