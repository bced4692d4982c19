//! Relays connections and datagrams between networks, where pasta cannot.
//!
//! A link relays from a service's network to an address of another service on the host; some published ports relay
//! into a service's network in the same way. Memory and descriptors are bounded: by limits on the connections and
//! senders of each port and on their total.

use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use super::socket::RelaySocket;
use super::{link_listeners, netlink};
use crate::sandbox::stage::fd_limit::FdReservation;

/// The maximum number of concurrent connections of a port; further ones wait.
const MAX_CONNECTIONS: usize = 1024;
/// The stack size of a connection's two threads: their buffers are on the heap.
const STACK: usize = 256 << 10;
/// The maximum number of tracked senders of datagrams to a port; the one that was silent longest is evicted.
const MAX_SENDERS: usize = 256;
/// How long a silent sender of datagrams stays tracked.
const SENDER_TIMEOUT: Duration = Duration::from_secs(120);
/// The number of datagrams to relay before serving the other sockets.
const BATCH: usize = 64;
/// The interval of checks whether the service is still running.
const TICK: Duration = Duration::from_millis(500);
/// The pause before a retry if no descriptors are available.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Returns the targets to try, in order, for a peer's address. Called for each connection.
pub(crate) type Targets<'a> = dyn Fn(IpAddr) -> Vec<SocketAddr> + Sync + 'a;

/// Relays one port until `over` returns true.
pub(crate) fn serve(socket: &RelaySocket, to: &Targets<'_>, over: &dyn Fn() -> bool) {
    match socket {
        RelaySocket::Tcp(listener) => serve_tcp(listener, to, over),
        RelaySocket::Udp(socket) => serve_udp(socket, to, over),
    }
}

/// Returns targets in this process's network: the loopback for a peer on a loopback, else the network's own address,
/// because services trust peers on their own loopback (CVE-2021-20199).
pub(in crate::sandbox) fn local_targets(port: u16, peer: IpAddr) -> Vec<SocketAddr> {
    if peer.is_loopback() {
        return targets(port, peer, &[]);
    }
    // Addresses of pasta's interface only: the other interface leads to the linked services.
    let links = match netlink::index_of(link_listeners::INTERFACE) {
        Ok(index) => index,
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => 0,
        Err(_) => return Vec::new(),
    };
    let all = netlink::addresses().unwrap_or_default();
    let own: Vec<IpAddr> = all.into_iter().filter(|a| a.0 != links).map(|a| a.1).collect();
    targets(port, peer, &own)
}

/// Returns the targets for a peer; none for a remote peer if the network has no address.
fn targets(port: u16, peer: IpAddr, own: &[IpAddr]) -> Vec<SocketAddr> {
    let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let to = if peer.is_loopback() { &loopbacks[..] } else { own };
    // The first address of each family, starting with the peer's family.
    let of = |v4: bool| to.iter().find(|ip| ip.is_ipv4() == v4);
    let both = [of(peer.is_ipv4()), of(!peer.is_ipv4())];
    both.into_iter().flatten().map(|ip| (*ip, port).into()).collect()
}

/// Waits at most one tick; returns for each socket whether it is readable.
fn ready<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>) -> Vec<bool> {
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
    let mut fds: Vec<PollFd<'_>> =
        sockets.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&pause)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return vec![false; fds.len()],
        Err(_) => {
            std::thread::sleep(RETRY_PAUSE);
            return vec![false; fds.len()];
        }
    }
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

fn serve_tcp(listener: &TcpListener, to: &Targets<'_>, over: &dyn Fn() -> bool) {
    let open = Arc::new(AtomicUsize::new(0));
    // Non-blocking: a client that disconnects before `accept()` must not stall the loop.
    let _ = listener.set_nonblocking(true);
    while !over() {
        if !ready(std::iter::once(listener.as_fd()))[0] {
            continue;
        }
        // Two descriptors: the accepted connection, and the one to its target.
        let reservation = Some(()).filter(|()| open.load(Ordering::SeqCst) < MAX_CONNECTIONS);
        let Some(reservation) = reservation.and_then(|()| FdReservation::take(2)) else {
            std::thread::sleep(RETRY_PAUSE);
            continue;
        };
        let (near, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => {
                // Such as EMFILE: retry after a pause.
                std::thread::sleep(RETRY_PAUSE);
                continue;
            }
        };
        open.fetch_add(1, Ordering::SeqCst);
        let count = open.clone();
        let to = to(peer.ip());
        let spawned = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            let _reservation = reservation;
            // If the target can't be reached, the client sees its connection closed.
            let _ = near.set_nonblocking(false).and_then(|()| relay_connection(&near, &to));
            drop(near);
            count.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Relays one connection in both directions, each until its end.
fn relay_connection(near: &TcpStream, to: &[SocketAddr]) -> io::Result<()> {
    let mut far = Err(io::ErrorKind::NotFound.into());
    for at in to {
        far = TcpStream::connect_timeout(at, Duration::from_secs(10));
        if far.is_ok() {
            break;
        }
    }
    let far = far?;
    for stream in [near, &far] {
        // An optimisation: the connection works without it.
        let _ = stream.set_nodelay(true);
        enable_keepalive(stream);
    }
    std::thread::scope(|scope| {
        let back =
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || copy(near, &far));
        if back.is_ok() {
            copy(&far, near);
        }
    });
    Ok(())
}

/// Enables keepalive: the kernel detects within two minutes that the peer has vanished.
fn enable_keepalive(stream: &TcpStream) {
    // An optimisation: the connection works without it.
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15)))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, 4))
        .and_then(|()| sockopt::set_socket_keepalive(stream, true));
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(length @ 1..) if to.write_all(&buffer[..length]).is_ok() => {}
            _ => break,
        }
    }
    // Close this direction only: the other one may continue.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// A sender of datagrams, and the socket for the replies.
struct Sender {
    peer: SocketAddr,
    far: UdpSocket,
    heard: Instant,
    refused: bool,
    _reservation: FdReservation,
}

fn serve_udp(near: &UdpSocket, to: &Targets<'_>, over: &dyn Fn() -> bool) {
    let mut senders: Vec<Sender> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    // Fails only for an invalid descriptor.
    let _ = near.set_nonblocking(true);
    while !over() {
        senders.retain(|sender| !sender.refused && sender.heard.elapsed() < SENDER_TIMEOUT);
        let sockets = std::iter::once(near.as_fd()).chain(senders.iter().map(|s| s.far.as_fd()));
        let ready = ready(sockets);
        for (sender, _) in senders.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            for _ in 0..BATCH {
                match sender.far.recv(&mut buffer) {
                    Ok(length) => {
                        sender.heard = Instant::now();
                        // The peer may be gone.
                        let _ = near.send_to(&buffer[..length], sender.peer);
                    }
                    // Nothing listens at the target any more: look the target up again for the next datagram.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        sender.refused = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        for _ in 0..BATCH {
            if !ready[0] {
                break;
            }
            let Ok((length, peer)) = near.recv_from(&mut buffer) else { break };
            if let Some(sender) = sender_of(&mut senders, peer, to) {
                sender.heard = Instant::now();
                sender.refused |= sender.far.send(&buffer[..length]).is_err();
            }
        }
    }
}

/// Returns the sender with this address; adds a new one, evicting the one that was silent longest if necessary.
fn sender_of<'a>(
    senders: &'a mut Vec<Sender>,
    peer: SocketAddr,
    to: &Targets<'_>,
) -> Option<&'a mut Sender> {
    if let Some(known) = senders.iter().position(|sender| sender.peer == peer) {
        return senders.get_mut(known);
    }
    let at = *to(peer.ip()).first()?;
    let any: IpAddr =
        if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut reservation =
        Some(()).filter(|()| senders.len() < MAX_SENDERS).and_then(|()| FdReservation::take(1));
    if reservation.is_none() {
        let silent = senders.iter().enumerate().min_by_key(|(_, sender)| sender.heard)?.0;
        senders.swap_remove(silent);
        reservation = FdReservation::take(1);
    }
    let _reservation = reservation?;
    let far = UdpSocket::bind((any, 0)).ok()?;
    far.connect(at).ok()?;
    far.set_nonblocking(true).ok()?;
    senders.push(Sender { peer, far, heard: Instant::now(), refused: false, _reservation });
    senders.last_mut()
}

#[cfg(test)]
mod tests {
    use super::super::ports::Transport;
    use super::super::socket::open;
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn socket(protocol: Transport) -> (RelaySocket, SocketAddr) {
        let socket =
            RelaySocket::of(open("127.0.0.1:0".parse().unwrap(), protocol).unwrap(), protocol);
        let at = match &socket {
            RelaySocket::Tcp(listener) => listener.local_addr(),
            RelaySocket::Udp(socket) => socket.local_addr(),
        };
        (socket, at.unwrap())
    }

    #[test]
    fn each_direction_ends_independently() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = far.local_addr().unwrap().port();
        let to = |peer| local_targets(port, peer);
        let (near, at) = socket(Transport::Tcp);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&near, &to, &|| over.load(Ordering::SeqCst)));
            // The server replies only after it has read everything.
            scope.spawn(|| {
                let (mut stream, _) = far.accept().unwrap();
                let mut message = Vec::new();
                stream.read_to_end(&mut message).unwrap();
                message.reverse();
                stream.write_all(&message).unwrap();
            });
            let mut stream = TcpStream::connect(at).unwrap();
            let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            back.reverse();
            assert!(back == bytes);
            over.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn each_sender_of_datagrams_gets_its_own_replies_even_beyond_the_limit() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at_far = far.local_addr().unwrap();
        let to = |_| vec![at_far];
        let (near, at) = socket(Transport::Udp);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&near, &to, &|| over.load(Ordering::SeqCst)));
            scope.spawn(|| {
                let mut buffer = [0; 2000];
                far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                while !over.load(Ordering::SeqCst) {
                    if let Ok((length, peer)) = far.recv_from(&mut buffer) {
                        far.send_to(&buffer[..length], peer).unwrap();
                    }
                }
            });
            // More than are tracked at once: the first are evicted, and added again when they send.
            let clients: Vec<UdpSocket> =
                (0..MAX_SENDERS + 20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            for round in 0..2 {
                for (number, client) in clients.iter().enumerate() {
                    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    client.connect(at).unwrap();
                    let message = format!("{round} {number}");
                    client.send(message.as_bytes()).unwrap();
                    let mut answer = [0; 100];
                    let length = client.recv(&mut answer).unwrap();
                    assert_eq!(answer[..length], *message.as_bytes());
                }
            }
            over.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn the_number_of_senders_is_bounded() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at_far = far.local_addr().unwrap();
        let to = |_| vec![at_far];
        let mut senders = Vec::new();
        for port in 1..1000 {
            assert!(sender_of(&mut senders, ([127, 0, 0, 1], port).into(), &to).is_some());
        }
        assert_eq!(senders.len(), MAX_SENDERS);
        assert!(senders.iter().any(|sender| sender.peer.port() == 999));
    }

    #[test]
    fn a_remote_peer_is_not_relayed_to_the_loopback() {
        let own = ["192.0.2.7", "192.0.2.8", "2001:db8::7"].map(|ip| ip.parse().unwrap());
        let to = |peer: &str, own: &[IpAddr]| {
            let targets = targets(80, peer.parse().unwrap(), own).into_iter();
            targets.map(|at| at.to_string()).collect::<Vec<_>>()
        };
        for own in [&own[..], &[]] {
            assert_eq!(to("127.3.2.1", own), ["127.0.0.1:80", "[::1]:80"]);
            assert_eq!(to("::1", own), ["[::1]:80", "127.0.0.1:80"]);
        }
        assert_eq!(to("198.51.100.1", &own), ["192.0.2.7:80", "[2001:db8::7]:80"]);
        assert_eq!(to("2001:db8::1", &own), ["[2001:db8::7]:80", "192.0.2.7:80"]);
        // Falls back to an address of the other family; without an address there is no target.
        assert_eq!(to("2001:db8::1", &own[..1]), ["192.0.2.7:80"]);
        assert_eq!(to("2001:db8::1", &[]), [""; 0]);
        assert_eq!(to("198.51.100.1", &[]), [""; 0]);
    }
}
