//! The two things svp asks of a network namespace, as netlink messages: bring `lo` up, refuse an address.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::AsRawFd;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const REQUEST_ACK: u16 = 1 | 4;
const CREATE_REPLACE: u16 = 0x400 | 0x100;

/// Brings the loopback interface up; its index is 1 in every network namespace.
///
/// # Errors
/// What the kernel says.
pub(super) fn bring_loopback_up() -> io::Result<()> {
    // struct ifinfomsg: family, pad, type, index, flags, change mask.
    let mut body = vec![0, 0, 0, 0];
    body.extend(1i32.to_ne_bytes());
    body.extend((libc::IFF_UP as u32).to_ne_bytes());
    body.extend((libc::IFF_UP as u32).to_ne_bytes());
    ask(RTM_NEWLINK, REQUEST_ACK, &body)
}

/// Adds a route that makes connecting to one address fail at once.
///
/// # Errors
/// What the kernel says.
pub(super) fn refuse_route_to(address: IpAddr) -> io::Result<()> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // struct rtmsg: family, destination bits, source bits, tos, table, protocol, scope, type, flags.
    let mut body = vec![family as u8, (octets.len() * 8) as u8, 0, 0];
    body.extend([libc::RT_TABLE_MAIN, 4, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE]);
    body.extend(0u32.to_ne_bytes());
    // RTA_DST.
    body.extend(((octets.len() + 4) as u16).to_ne_bytes());
    body.extend(1u16.to_ne_bytes());
    body.extend(octets);
    ask(RTM_NEWROUTE, REQUEST_ACK | CREATE_REPLACE, &body)
}

fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0u8; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // struct nlmsgerr behind the header: zero, or an errno made negative.
    let code = answer.get(16..20).filter(|_| length >= 20).ok_or(io::ErrorKind::InvalidData)?;
    match i32::from_ne_bytes(code.try_into().expect("four bytes")) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
