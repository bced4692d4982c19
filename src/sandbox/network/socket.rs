//! Sockets that svp listens on for a container.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::ports::Transport;

/// A socket that was opened by [`open`].
#[derive(Debug)]
pub enum RelaySocket {
    /// Listens for connections.
    Tcp(TcpListener),
    /// Takes datagrams.
    Udp(UdpSocket),
}

impl RelaySocket {
    /// Of a descriptor that came from another process.
    pub fn of(fd: OwnedFd, protocol: Transport) -> RelaySocket {
        match protocol {
            Transport::Tcp => RelaySocket::Tcp(fd.into()),
            Transport::Udp => RelaySocket::Udp(fd.into()),
        }
    }
}

/// Opens a socket at an address of this process's network. One of IPv6 is that alone.
///
/// # Errors
/// What the kernel says.
pub fn open(at: SocketAddr, protocol: Transport) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Transport::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Transport::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    if protocol == Transport::Tcp {
        rustix::net::listen(&socket, 128)?;
    }
    Ok(socket)
}
