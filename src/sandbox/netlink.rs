//! What svp asks of a network namespace, as netlink messages: interfaces, addresses, routes, rules and policies.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::netlink::{self as numbers, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

const NETLINK_ROUTE: Option<Protocol> = None;
const NETLINK_XFRM: Option<Protocol> = Some(numbers::XFRM);
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;
const REQUEST_ACK: u16 = 1 | 4;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
/// A gateway is on the link whatever its address.
const ON_LINK: u32 = 4;
/// A rule's action: say that the address can't be reached.
const UNREACHABLE: u8 = 7;
/// A policy's direction and action.
const POLICY_OUT: u8 = 1;
const POLICY_BLOCK: u8 = 1;

/// The index of the loopback interface, in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// A network: an address and how many of its bits count.
pub(super) type Prefix = (IpAddr, u8);

/// Brings an interface up.
///
/// # Errors
/// What the kernel says.
pub(super) fn bring_up(index: u32) -> io::Result<()> {
    let mut body = interface(index);
    body[8..].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes().repeat(2));
    ask(RTM_NEWLINK, REQUEST_ACK, &body)
}

/// Makes a pair of interfaces: `name` here, `peer` in the network namespace `there`.
///
/// # Errors
/// What the kernel says; EOPNOTSUPP if it has no such interfaces.
pub(super) fn make_pair(name: &str, peer: &str, there: BorrowedFd<'_>) -> io::Result<()> {
    let mut other = interface(0);
    other.extend(attribute(3, &text(peer)));
    other.extend(attribute(28, &there.as_raw_fd().to_ne_bytes()));
    let kind = attribute(1, &text("veth"));
    let data = attribute(2, &attribute(1, &other));
    let mut body = interface(0);
    body.extend(attribute(3, &text(name)));
    body.extend(attribute(18, &[kind, data].concat()));
    ask(RTM_NEWLINK, REQUEST_ACK | CREATE | EXCLUSIVE, &body)
}

/// The index of an interface.
///
/// # Errors
/// What the kernel says.
pub(super) fn index_of(name: &str) -> io::Result<u32> {
    use rustix::net::netdevice;
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::name_to_index(&any, name)?)
}

/// Gives an interface an address.
///
/// # Errors
/// What the kernel says.
pub(super) fn add_address(index: u32, address: Ipv4Addr, bits: u8) -> io::Result<()> {
    // struct ifaddrmsg: family, bits, flags, scope, index. IFA_ADDRESS, IFA_LOCAL.
    let mut body = vec![libc::AF_INET as u8, bits, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(1, &address.octets()));
    body.extend(attribute(2, &address.octets()));
    ask(RTM_NEWADDR, REQUEST_ACK | CREATE | REPLACE, &body)
}

/// Leads everything that has no other route to `gateway`, which is on the link of an interface.
///
/// # Errors
/// What the kernel says.
pub(super) fn add_default_route(index: u32, gateway: IpAddr) -> io::Result<()> {
    let (family, octets) = parts(gateway);
    // struct rtmsg: family, destination bits, source bits, tos, table, protocol, scope, type, flags.
    let mut body = vec![family, 0, 0, 0];
    body.extend([libc::RT_TABLE_MAIN, 4, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
    body.extend(ON_LINK.to_ne_bytes());
    // RTA_OIF, RTA_GATEWAY.
    body.extend(attribute(4, &index.to_ne_bytes()));
    body.extend(attribute(5, &octets));
    ask(RTM_NEWROUTE, REQUEST_ACK | CREATE | REPLACE, &body)
}

/// Adds a route that makes connecting to a network fail at once.
///
/// # Errors
/// What the kernel says.
pub(super) fn refuse_route_to((address, bits): Prefix) -> io::Result<()> {
    let (family, octets) = parts(address);
    let mut body = vec![family, bits, 0, 0];
    body.extend([libc::RT_TABLE_MAIN, 4, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE]);
    body.extend(0u32.to_ne_bytes());
    // RTA_DST.
    body.extend(attribute(1, &octets));
    ask(RTM_NEWROUTE, REQUEST_ACK | CREATE | REPLACE, &body)
}

/// Adds a rule that makes reaching a network fail at once, by whatever interface it is tried.
///
/// # Errors
/// What the kernel says; that the rule is there is none.
pub(super) fn refuse(to: Prefix, priority: u32) -> io::Result<()> {
    match ask(RTM_NEWRULE, REQUEST_ACK | CREATE | EXCLUSIVE, &rule(to, priority)) {
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

/// Adds a policy of IPsec's that blocks what leaves for a network of IPv4. For a socket that is bound to an
/// interface the kernel takes a refusal for a missing route, and sends all the same.
///
/// # Errors
/// What the kernel says; EPROTONOSUPPORT if it has no IPsec.
pub(super) fn block(address: Ipv4Addr, bits: u8) -> io::Result<()> {
    // struct xfrm_userpolicy_info: a selector (destination, source, ports and their masks, family, bits of both,
    // protocol, interface, user), limits and counts of its life, priority, index, direction, action, flags, share.
    let mut body = vec![0; 168];
    body[..4].copy_from_slice(&address.octets());
    body[40..42].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    body[42] = bits;
    // The first four limits are of bytes and packets: none.
    body[56..88].fill(0xff);
    body[160] = POLICY_OUT;
    body[161] = POLICY_BLOCK;
    ask_of(NETLINK_XFRM, XFRM_MSG_UPDPOLICY, REQUEST_ACK, &body)
}

/// struct ifinfomsg: family, pad, type, index, flags, change mask.
fn interface(index: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    body
}

/// An attribute: length, kind, value, and what fills it up to four bytes.
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

fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    ask_of(NETLINK_ROUTE, kind, flags, body)
}

fn ask_of(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let flags_of_socket = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags_of_socket, protocol)?;
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0u8; 4096];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsgerr behind the header: zero, or an errno made negative.
    let code = answer.get(16..20).filter(|_| length >= 20).ok_or(io::ErrorKind::InvalidData)?;
    match i32::from_ne_bytes(code.try_into().expect("four bytes")) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
