//! Addresses of services: each service has its own one in 127.83.0.0/16, so that several can listen on the same port.
//!
//! Other users of the host take addresses from the same range, and there is no common list: an address is free if its
//! ports can be bound.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::pack::query::Port;
use crate::sandbox::{Forward, Transport, open_socket};

/// The first unprivileged port, if the host does not report one.
const DEFAULT_UNPRIVILEGED_START: u16 = 1024;
/// Added to the number of a port that can't be bound: 80 becomes 8080.
const HIGH_PORT_OFFSET: u16 = 8000;
/// Two addresses that no service gets: a port in use on both is in use on all addresses.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 83, 0, 0);
const LAST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 83, 255, 255);

/// Finds an address on which `ports` are free; returns it with a forward for each port. Tries `kept` first, then
/// addresses that are not in `taken`, beginning at one derived from `seed`.
///
/// A port that can't be bound on any address, because it is privileged or a program listens on all addresses of the
/// host, is forwarded from a free high port instead: its number plus 8000, or the next free one.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if no address is free.
pub(crate) fn allocate(
    seed: &str,
    kept: Option<Ipv4Addr>,
    taken: &HashSet<Ipv4Addr>,
    ports: &[Port],
) -> Result<(Ipv4Addr, Vec<Forward>)> {
    let digest = Digest::of(seed.as_bytes());
    let start = u32::from_str_radix(&digest.hex()[..8], 16).unwrap_or_default() % 0xfffe;
    // Neither 127.83.0.0 nor 127.83.255.255.
    let nth = |n: u32| Ipv4Addr::from(0x7f53_0001 + (start + n) % 0xfffe);
    let first_free = unprivileged_start();
    let nowhere = |port: &Port| {
        let protocol = port.protocol;
        port.number < first_free
            || [FIRST_ADDRESS, LAST_ADDRESS].iter().all(|at| !is_free(*at, port.number, protocol))
    };
    let moved: Vec<bool> = ports.iter().map(nowhere).collect();
    let candidates = (0..4096).map(nth).filter(|address| !taken.contains(address));
    kept.into_iter()
        .chain(candidates)
        .find_map(|address| Some((address, forwards(address, ports, &moved)?)))
        .ok_or_else(|| {
            Error::sandbox("no address of 127.83.0.0/16 is free")
                .hint("stop services that are not needed, or run this one with --network host")
        })
}

/// The forwards on `address`, with `moved` ports under other numbers; `None` if a port is in use.
fn forwards(address: Ipv4Addr, ports: &[Port], moved: &[bool]) -> Option<Vec<Forward>> {
    let mut out: Vec<Forward> = Vec::new();
    for (port, moved) in ports.iter().zip(moved) {
        let protocol = port.protocol;
        let wanted = port.number;
        let number = if *moved {
            let named = |n: u16| ports.iter().any(|other| other.number == n);
            let given = |n: u16| out.iter().any(|f| f.host.port() == n && f.protocol == protocol);
            let first = wanted.checked_add(HIGH_PORT_OFFSET).unwrap_or(HIGH_PORT_OFFSET);
            (first..u16::MAX).find(|n| !named(*n) && !given(*n) && is_free(address, *n, protocol))
        } else {
            is_free(address, wanted, protocol).then_some(wanted)
        };
        let host = SocketAddr::from((address, number?));
        out.push(Forward { host, container: wanted, protocol });
    }
    Some(out)
}

/// Whether a socket could listen on an address and port.
pub(crate) fn is_free(address: impl Into<IpAddr>, port: u16, protocol: Transport) -> bool {
    try_listen(SocketAddr::from((address.into(), port)), protocol).is_ok()
}

/// Listens on an address and port for a moment.
///
/// # Errors
/// The kernel's error; `PermissionDenied` for a privileged port, even for root.
pub(crate) fn try_listen(at: SocketAddr, protocol: Transport) -> io::Result<()> {
    open_socket(at, protocol)?;
    // pasta drops root's privileges.
    match at.port() < unprivileged_start() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

/// The first port that needs no privileges.
pub(crate) fn unprivileged_start() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_UNPRIVILEGED_START)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn tcp(number: u16) -> Port {
        Port { number, protocol: Transport::Tcp }
    }

    #[test]
    fn a_taken_address_is_skipped_and_the_kept_one_comes_first() {
        let ports = [tcp(43_806), Port { number: 43_806, protocol: Transport::Udp }];
        let (first, forwards) = allocate("a", None, &HashSet::new(), &ports).unwrap();
        assert_eq!(first.octets()[..2], [127, 83]);
        assert_eq!(forwards.len(), 2);
        let _held = TcpListener::bind((first, 43_806)).unwrap();
        let (second, _) = allocate("a", Some(first), &HashSet::new(), &ports).unwrap();
        assert_ne!(first, second);
        let taken = HashSet::from([second]);
        let (third, _) = allocate("a", None, &taken, &ports).unwrap();
        assert!(third != first && third != second);
        let (again, _) = allocate("b", Some(second), &HashSet::new(), &ports).unwrap();
        assert_eq!(again, second);
    }

    #[test]
    fn a_port_in_use_on_all_addresses_moves_to_a_high_one() {
        let holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let held = holder.local_addr().unwrap().port();
        let (address, forwards) = allocate("d", None, &HashSet::new(), &[tcp(held)]).unwrap();
        assert_eq!(address.octets()[..2], [127, 83]);
        assert!(forwards[0].host.port() != held && forwards[0].container == held);
        assert!(is_free(address, forwards[0].host.port(), Transport::Tcp));
        drop(holder);
        let (_, forwards) = allocate("d", Some(address), &HashSet::new(), &[tcp(held)]).unwrap();
        assert_eq!(forwards[0].host.port(), held);
    }

    #[test]
    fn a_privileged_port_moves_to_a_high_one() {
        let (address, forwards) = allocate("c", None, &HashSet::new(), &[tcp(80)]).unwrap();
        let host = forwards[0].host;
        let expected = if unprivileged_start() > 80 { 8080 } else { 80 };
        assert_eq!(host, SocketAddr::from((address, expected)));
        assert_eq!(forwards[0].container, 80);
    }
}
