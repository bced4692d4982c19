//! Restricts a private network after pasta has connected it: blocks the addresses that a container must not reach.
//!
//! pasta forwards all traffic, including traffic to the host's loopback. The container's own loopback shadows those
//! addresses, but a process can bypass it without privilege by binding its socket to pasta's interface
//! (SO_BINDTODEVICE), so routes are not enough. Routing rules apply before routes, on every interface; but for IPv4 the
//! kernel ignores them for a socket bound to an interface, so an IPsec policy blocks these packets. Raw packets would
//! bypass all of this, so containers don't get CAP_NET_RAW.

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

/// The address of the host's loopback in a container, if access to the host is allowed.
pub(in crate::sandbox) const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The IPv6 counterpart of [`HOST`]: without it, pasta maps the gateway. Blocked along with all link-local addresses.
pub(in crate::sandbox) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Cloud metadata services: they serve credentials that a pack's script must not get.
const CLOUD_METADATA: [Prefix; 2] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 128),
];
/// The loopbacks. The container's loopback still works: the kernel looks up local addresses first.
const LOOPBACKS: [Prefix; 2] =
    [(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)];
/// IPv6 link-local addresses: the gateway is reachable through them too.
const LINK_LOCAL: Prefix = (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);

/// The maximum size of a routing table: enough for all routes of the internet.
const MAX_TABLE: u64 = 256 << 20;

/// The priority of the rules; the kernel's rule for local addresses has 0.
const PRIORITY: u32 = 100;

/// Request: install rules in a network namespace. Descriptors: the user namespace, the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct EgressFilterRequest {
    /// The gateways to block.
    gateways: Vec<Prefix>,
    /// The gateways of the host's default routes, which pasta copies.
    defaults: Vec<IpAddr>,
    /// Whether the container may reach the host's loopback: the default route then leads to [`HOST`].
    host: bool,
}

/// Installs the rules in a network namespace; keeps existing rules.
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
            false => {
                gateways().map_err(no_routes)?.into_iter().map(whole).chain([LINK_LOCAL]).collect()
            }
        },
        defaults: default_gateways().map_err(no_routes)?,
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
        .map_err(|errno| Error::sandbox("can't join the network namespace").source(errno))?;
    // Without access to the host, block its address too: it would be routed to the network.
    let no_host = (!request.host).then_some(&(IpAddr::V4(HOST), 32));
    let blocked = LOOPBACKS.iter().chain(&CLOUD_METADATA).chain(&request.gateways).chain(no_host);
    for network in blocked {
        let added = netlink::add_unreachable_rule(*network, PRIORITY);
        blocked_or_absent(*network, added).map_err(|error| not_blocked(*network, error))?;
        if let (IpAddr::V4(address), bits) = *network {
            netlink::add_block_policy(address, bits)
                .map_err(|error| not_blocked(*network, error))?;
        }
    }
    if request.host {
        let added =
            pasta_interface().and_then(|index| netlink::add_default_route(index, HOST.into()));
        added.map_err(|error| Error::sandbox("can't add the route to the host").source(error))?;
    } else {
        add_missing_routes(&request.defaults)
            .map_err(|error| Error::sandbox("can't add the default route").source(error))?;
    }
    Ok(())
}

/// Passes over the one failure that blocks the network by itself: a kernel without IPv6 sends no packet of it.
fn blocked_or_absent((address, _): Prefix, added: std::io::Result<()>) -> std::io::Result<()> {
    match added {
        Err(error) if address.is_ipv6() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            Ok(())
        }
        other => other,
    }
}

fn not_blocked((address, bits): Prefix, error: std::io::Error) -> Error {
    Error::sandbox(format!("can't block {address}/{bits} in the private network"))
        .source(error)
        .hint(
            "use a kernel with CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES and CONFIG_XFRM_USER (as root: \
             modprobe xfrm_user), or --network none, or --network host, which reaches all that this host reaches",
        )
}

fn no_routes(error: std::io::Error) -> Error {
    Error::sandbox("can't read this host's routes, which tell the gateways to block")
        .source(error)
        .hint("mount /proc: as root: mount -t proc proc /proc")
}

/// Adds the default routes that a restarted pasta could not add: the rules are in place by then, and the kernel rejects
/// a gateway that they block, unless the route is flagged on-link. pasta ignores that error.
fn add_missing_routes(gateways: &[IpAddr]) -> std::io::Result<()> {
    let existing = default_gateways()?;
    let v6 = has_global_v6()?;
    for is_v4 in [true, false] {
        let missing = !existing.iter().any(|gateway| gateway.is_ipv4() == is_v4) && (is_v4 || v6);
        let gateway = gateways.iter().find(|gateway| gateway.is_ipv4() == is_v4);
        if let (true, Some(&gateway)) = (missing, gateway) {
            netlink::add_default_route(pasta_interface()?, gateway)?;
        }
    }
    Ok(())
}

/// Whether this network has a global IPv6 address.
fn has_global_v6() -> std::io::Result<bool> {
    // Fields: address, interface index, prefix length, scope, …
    let scope = |line: &str| Some(line.split_whitespace().nth(3)? == "00");
    Ok(read_v6("if_inet6")?.lines().any(|line| scope(line) == Some(true)))
}

/// Returns the index of pasta's interface: the one with routes.
fn pasta_interface() -> std::io::Result<u32> {
    let routes = read("route")?;
    let names = routes.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let name = names.into_iter().find(|name| !["lo", link_listeners::INTERFACE].contains(name));
    netlink::index_of(name.ok_or(std::io::ErrorKind::NotFound)?)
}

/// Returns the gateways of this process's network, without IPv6 link-local ones, which are blocked as a whole.
///
/// # Errors
/// Those of reading the kernel's tables.
pub(in crate::sandbox) fn gateways() -> std::io::Result<Vec<IpAddr>> {
    let (v4, v6) = (read("route")?, read_v6("ipv6_route")?);
    Ok(v4.lines().filter_map(gateway_v4).chain(v6.lines().filter_map(gateway_v6)).collect())
}

/// Returns the gateways of the default routes.
fn default_gateways() -> std::io::Result<Vec<IpAddr>> {
    let (v4, v6) = (read("route")?, read_v6("ipv6_route")?);
    let v4 = v4.lines().skip(1).filter(|line| is_default_v4(line)).filter_map(gateway_v4);
    let v6 = v6.lines().filter(|line| is_default_v6(line)).filter_map(gateway_v6);
    Ok(v4.chain(v6).collect())
}

/// Reads a table of the kernel's network as a whole: a route that is not read would not be blocked.
fn read(table: &str) -> std::io::Result<String> {
    let mut text = String::new();
    let file = File::open(format!("/proc/thread-self/net/{table}"))?;
    file.take(MAX_TABLE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TABLE {
        return Err(std::io::Error::other(format!("{table} has more than {MAX_TABLE} bytes")));
    }
    Ok(text)
}

/// As [`read`]; a kernel without IPv6 does not have its tables.
fn read_v6(table: &str) -> std::io::Result<String> {
    match read(table) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn is_default_v4(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
}

fn is_default_v6(line: &str) -> bool {
    line.strip_prefix("00000000000000000000000000000000 00 ").is_some()
}

/// Parses the gateway in a line of /proc/net/route: interface, destination, gateway, …; addresses in the machine's byte
/// order.
fn gateway_v4(line: &str) -> Option<IpAddr> {
    let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
    (gateway != 0).then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
}

/// Parses the gateway in a line of /proc/net/ipv6_route: destination, prefix length, source, prefix length, gateway, …
fn gateway_v6(line: &str) -> Option<IpAddr> {
    let gateway = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
    let gateway = Ipv6Addr::from(gateway);
    (!gateway.is_unspecified() && !gateway.is_unicast_link_local()).then_some(IpAddr::V6(gateway))
}

impl HostAccess {
    /// The access of builds: a CI machine's proxy is often at the gateway.
    pub(in crate::sandbox) const BUILD: HostAccess = HostAccess { gateway: true, host: false };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ipv6_that_the_kernel_lacks_needs_no_rule() {
        let failed = |errno| Err(std::io::Error::from_raw_os_error(errno));
        let [v4, v6] = LOOPBACKS;
        assert!(blocked_or_absent(v4, Ok(())).is_ok());
        assert!(blocked_or_absent(v6, failed(libc::EAFNOSUPPORT)).is_ok());
        assert!(blocked_or_absent(v4, failed(libc::EAFNOSUPPORT)).is_err());
        for errno in [libc::EPERM, libc::EOPNOTSUPP, libc::ENOMEM, libc::EPROTONOSUPPORT] {
            assert!(blocked_or_absent(v6, failed(errno)).is_err());
            assert!(blocked_or_absent(v4, failed(errno)).is_err());
        }
    }

    #[test]
    fn gateways_are_read_from_routes() {
        let line = "eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        assert_eq!(gateway_v4(line).unwrap(), "10.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(gateway_v4("eth0\t0002000A\t00000000\t0001"), None);
        assert!(is_default_v4(line) && !is_default_v4(&line.replace("eth0\t0", "eth0\t1")));
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0";
        assert_eq!(gateway_v6(v6), "2001:db8::1".parse().ok());
        assert!(is_default_v6(v6) && !is_default_v6(&v6.replacen("0 00 ", "0 01 ", 1)));
        assert_eq!(gateway_v6(&v6.replace("20010db8", "fe800000")), None);
    }
}
