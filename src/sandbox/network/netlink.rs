//! Configures a network namespace with netlink messages: interfaces, addresses, routes, rules and policies.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{self as numbers, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

const NETLINK_ROUTE: Option<Protocol> = None;
const NETLINK_XFRM: Option<Protocol> = Some(numbers::XFRM);
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;
const REQUEST_ACK: u16 = 1 | 4;
const REQUEST_ALL: u16 = 1 | 0x300;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
/// RTNH_F_ONLINK: accept the gateway whatever its address.
const ON_LINK: u32 = 4;
/// FR_ACT_UNREACHABLE, the action of a rule.
const UNREACHABLE: u8 = 7;
/// XFRM_POLICY_OUT and XFRM_POLICY_BLOCK, the direction and the action of a policy.
const POLICY_OUT: u8 = 1;
const POLICY_BLOCK: u8 = 1;

/// The index of the loopback interface, in every network namespace.
pub(in crate::sandbox) const LOOPBACK: u32 = 1;

/// A prefix: an address and its number of significant bits.
pub(in crate::sandbox) type Prefix = (IpAddr, u8);

/// Brings an interface up.
///
/// # Errors
/// Errors of the kernel.
pub(in crate::sandbox) fn bring_up(index: u32) -> io::Result<()> {
    let mut body = interface(index);
    body[8..].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes().repeat(2));
    request(RTM_NEWLINK, REQUEST_ACK, &body)
}

/// Creates a pair of interfaces: `name` here, `peer` in the network namespace `there`.
///
/// # Errors
/// Errors of the kernel; EOPNOTSUPP without support for veth.
pub(in crate::sandbox) fn make_pair(
    name: &str,
    peer: &str,
    there: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut other = interface(0);
    other.extend(attribute(3, &text(peer)));
    other.extend(attribute(28, &there.as_raw_fd().to_ne_bytes()));
    let kind = attribute(1, &text("veth"));
    let data = attribute(2, &attribute(1, &other));
    let mut body = interface(0);
    body.extend(attribute(3, &text(name)));
    body.extend(attribute(18, &[kind, data].concat()));
    request(RTM_NEWLINK, REQUEST_ACK | CREATE | EXCLUSIVE, &body)
}

/// Returns the index of an interface.
///
/// # Errors
/// Errors of the kernel.
pub(in crate::sandbox) fn index_of(name: &str) -> io::Result<u32> {
    use rustix::net::netdevice;
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::name_to_index(&any, name)?)
}

/// Adds an address to an interface.
///
/// # Errors
/// Errors of the kernel.
pub(in crate::sandbox) fn add_address(index: u32, address: Ipv4Addr, bits: u8) -> io::Result<()> {
    // struct ifaddrmsg: family, bits, flags, scope, index. IFA_ADDRESS, IFA_LOCAL.
    let mut body = vec![libc::AF_INET as u8, bits, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(1, &address.octets()));
    body.extend(attribute(2, &address.octets()));
    request(RTM_NEWADDR, REQUEST_ACK | CREATE | REPLACE, &body)
}

/// Returns the addresses at which other hosts can reach this network, with the indices of their interfaces. Excludes
/// loopback, link-local and tentative addresses.
///
/// # Errors
/// Errors of the kernel.
pub(in crate::sandbox) fn addresses() -> io::Result<Vec<(u32, IpAddr)>> {
    let socket = socket_of(NETLINK_ROUTE)?;
    send(&socket, RTM_GETADDR, REQUEST_ALL, &[0; 8])?;
    let mut found = Vec::new();
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, body)) = next_message(&mut rest) {
            match kind {
                RTM_NEWADDR => found.extend(address(body)),
                // NLMSG_DONE, or an error.
                2 | 3 => return Ok(found),
                _ => {}
            }
        }
    }
}

/// Parses a struct ifaddrmsg and its attributes.
fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    // IFA_F_DADFAILED and IFA_F_TENTATIVE.
    let [_, _, flags, scope] = *body.first_chunk()?;
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    if index == LOOPBACK || scope != libc::RT_SCOPE_UNIVERSE || flags & 0x48 != 0 {
        return None;
    }
    let mut rest = body.get(8..)?;
    let mut found = None;
    while let Some((kind, value)) = next_attribute(&mut rest) {
        // Prefer IFA_LOCAL: on a point-to-point link IFA_ADDRESS is the address of the peer.
        if kind == 2 || (kind == 1 && found.is_none()) {
            found = match value.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
                16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
                _ => None,
            };
        }
    }
    Some((index, found?))
}

/// Splits the first message off an answer; returns its type and body.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    take(rest, length, 16).map(|body| (kind, body))
}

/// Splits the first attribute off a message; returns its type and value.
fn next_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = u16::from_ne_bytes(*rest.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
    take(rest, length, 4).map(|value| (kind, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize, header: usize) -> Option<&'a [u8]> {
    let body = rest.get(header..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(body)
}

/// Adds a default route to `gateway` through an interface, flagged on-link.
///
/// # Errors
/// Errors of the kernel.
pub(in crate::sandbox) fn add_default_route(index: u32, gateway: IpAddr) -> io::Result<()> {
    let (family, octets) = parts(gateway);
    // struct rtmsg: family, destination bits, source bits, tos, table, protocol, scope, type, flags.
    let mut body = vec![family, 0, 0, 0];
    body.extend([libc::RT_TABLE_MAIN, 4, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
    body.extend(ON_LINK.to_ne_bytes());
    // RTA_OIF, RTA_GATEWAY.
    body.extend(attribute(4, &index.to_ne_bytes()));
    body.extend(attribute(5, &octets));
    request(RTM_NEWROUTE, REQUEST_ACK | CREATE | REPLACE, &body)
}

/// Adds a rule that makes connections to a network fail immediately, on any interface.
///
/// # Errors
/// Errors of the kernel; an existing rule is not an error.
pub(in crate::sandbox) fn add_unreachable_rule(to: Prefix, priority: u32) -> io::Result<()> {
    match request(RTM_NEWRULE, REQUEST_ACK | CREATE | EXCLUSIVE, &rule(to, priority)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn rule((to, bits): Prefix, priority: u32) -> Vec<u8> {
    let (family, octets) = parts(to);
    // struct fib_rule_hdr: family, destination bits, source bits, tos, table, two unused, action, flags.
    let mut body = vec![family, bits, 0, 0, libc::RT_TABLE_MAIN, 0, 0, UNREACHABLE, 0, 0, 0, 0];
    // FRA_DST, FRA_PRIORITY.
    body.extend(attribute(1, &octets));
    body.extend(attribute(6, &priority.to_ne_bytes()));
    body
}

/// Adds an IPsec policy that blocks packets to an IPv4 network. For a socket bound to an interface, the kernel treats
/// an unreachable rule as a missing route, and sends the packet regardless.
///
/// # Errors
/// Errors of the kernel; EPROTONOSUPPORT without support for IPsec.
pub(in crate::sandbox) fn add_block_policy(address: Ipv4Addr, bits: u8) -> io::Result<()> {
    // struct xfrm_userpolicy_info: a selector (destination, source, ports and their masks, family, bits of both,
    // protocol, interface, user), lifetime limits and counters, priority, index, direction, action, flags, share.
    let mut body = vec![0; 168];
    body[..4].copy_from_slice(&address.octets());
    body[40..42].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    body[42] = bits;
    // The first four limits, of bytes and packets: unlimited.
    body[56..88].fill(0xff);
    body[160] = POLICY_OUT;
    body[161] = POLICY_BLOCK;
    request_on(NETLINK_XFRM, XFRM_MSG_UPDPOLICY, REQUEST_ACK, &body)
}

/// struct ifinfomsg: family, pad, type, index, flags, change mask.
fn interface(index: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    body
}

/// Encodes an attribute: length, type, value, and padding to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn text(text: &str) -> Vec<u8> {
    CString::new(text).expect("no NUL in our names").into_bytes_with_nul()
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    request_on(NETLINK_ROUTE, kind, flags, body)
}

fn socket_of(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

fn send(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    sendto(socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn request_on(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket = socket_of(protocol)?;
    send(&socket, kind, flags, body)?;
    let mut answer = [0u8; 4096];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // A struct nlmsgerr after the header: zero, or a negative errno.
    let code = answer.get(16..20).filter(|_| length >= 20).ok_or(io::ErrorKind::InvalidData)?;
    match i32::from_ne_bytes(code.try_into().expect("four bytes")) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_except_loopback_and_link_local_ones() {
        let message = |index: u32, scope: u8, attributes: &[Vec<u8>]| {
            let mut body = vec![libc::AF_INET as u8, 24, 0, scope];
            body.extend(index.to_ne_bytes());
            body.extend(attributes.concat());
            address(&body)
        };
        let [other, own] = [attribute(1, &[192, 0, 2, 1]), attribute(2, &[192, 0, 2, 9])];
        let label = attribute(3, b"eth0\0");
        let both = [other.clone(), own, label];
        assert_eq!(message(7, 0, &both), Some((7, "192.0.2.9".parse().unwrap())));
        assert_eq!(message(7, 0, &[other]), Some((7, "192.0.2.1".parse().unwrap())));
        assert_eq!(message(7, libc::RT_SCOPE_LINK, &both), None);
        assert_eq!(message(LOOPBACK, 0, &both), None);
        assert_eq!(message(7, 0, &[]), None);
        // A real answer of the kernel is read to its end.
        assert!(addresses().unwrap().iter().all(|(_, ip)| !ip.is_loopback()));
    }
}
