//! What the network reaches. Nothing is sent but to loopback addresses.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use crate::attempt::{Answer, Probe, closed, errno, none, open};

pub fn probes() -> Vec<Probe> {
    vec![
        Probe::new("network", "reaches a server on the host's 127.0.0.1", || loopback("127.0.0.1")),
        Probe::new("network", "reaches a server on the host's [::1]", || loopback("[::1]")),
        Probe::new("network", "reaches an abstract socket of the host", || {
            let Ok(name) = std::env::var("SVP_PROBES_ABSTRACT") else { return none("no host") };
            match UnixAddr::from_abstract_name(name).and_then(|at| UnixStream::connect_addr(&at)) {
                Ok(_) => open("connected"),
                Err(error) => closed(error),
            }
        }),
        // Connecting a UDP socket looks up a route and sends nothing.
        Probe::new("network", "has a route to 169.254.169.254, the metadata of clouds", || {
            route("0.0.0.0:0", "169.254.169.254:80")
        }),
        Probe::new("network", "has a route to fd00:ec2::254, the metadata of clouds", || {
            route("[::]:0", "[fd00:ec2::254]:80")
        }),
        Probe::new("network", "sets the flags of an interface", || {
            // struct ifreq: the name, then the flags.
            let mut request = [0_u8; 40];
            request[..2].copy_from_slice(b"lo");
            // SAFETY: SIOCGIFFLAGS and SIOCSIFFLAGS read and write a struct ifreq.
            let result = unsafe {
                let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
                libc::ioctl(socket, libc::SIOCGIFFLAGS as _, request.as_mut_ptr());
                libc::ioctl(socket, libc::SIOCSIFFLAGS as _, request.as_mut_ptr())
            };
            if result == 0 { open("set") } else { closed(errno()) }
        }),
    ]
}

fn loopback(host: &str) -> Answer {
    let Ok(port) = std::env::var("SVP_PROBES_PORT") else { return none("no host") };
    let Ok(at) = format!("{host}:{port}").parse::<SocketAddr>() else { return none("no port") };
    match TcpStream::connect_timeout(&at, Duration::from_secs(3)) {
        Ok(_) => open("connected"),
        Err(error) => closed(error),
    }
}

fn route(from: &str, to: &str) -> Answer {
    let socket = match UdpSocket::bind(from) {
        Ok(socket) => socket,
        Err(error) => return closed(error),
    };
    match socket.connect(to).and_then(|()| socket.local_addr()) {
        Ok(from) => open(format!("from {}", from.ip())),
        Err(error) => closed(error),
    }
}
