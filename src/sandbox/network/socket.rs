//! Opens sockets on which svp listens for a container.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::ports::Transport;

/// A socket opened by [`open`].
#[derive(Debug)]
pub(crate) enum RelaySocket {
    /// A listener for connections.
    Tcp(TcpListener),
    /// A socket for datagrams.
    Udp(UdpSocket),
}

impl RelaySocket {
    /// Wraps a descriptor received from another process.
    pub(crate) fn of(fd: OwnedFd, protocol: Transport) -> RelaySocket {
        match protocol {
            Transport::Tcp => RelaySocket::Tcp(fd.into()),
            Transport::Udp => RelaySocket::Udp(fd.into()),
        }
    }
}

/// Opens a socket at an address of this process's network. IPv6 sockets accept IPv6 only.
///
/// # Errors
/// Errors of the kernel.
pub(crate) fn open(at: SocketAddr, protocol: Transport) -> io::Result<OwnedFd> {
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
