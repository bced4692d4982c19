//! Published ports and their protocols.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub(crate) use crate::oci::Transport;

/// A port of the host that is forwarded to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forward {
    /// The address on which the host listens.
    pub host: SocketAddr,
    /// The port in the container.
    pub container: u16,
    /// The protocol.
    pub protocol: Transport,
}

/// Parses `[ADDR:]HOST:CONTAINER[/udp]`. The default address is 127.0.0.1.
impl FromStr for Forward {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("invalid port to publish: {text:?}"))
                .hint("write [ADDRESS:]HOSTPORT:PORT[/udp], such as 8080:80")
        };
        let (numbers, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse().map_err(|_: Error| bad())?;
        let (rest, container) = numbers.rsplit_once(':').ok_or_else(bad)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
            Some((address, host)) => {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                (address.parse().map_err(|_| bad())?, host)
            }
        };
        let host = SocketAddr::new(address, port_number(host).ok_or_else(bad)?);
        Ok(Forward { host, container: port_number(container).ok_or_else(bad)?, protocol })
    }
}

/// Parses a port number in plain decimal: no sign, no leading zero.
fn port_number(text: &str) -> Option<u16> {
    let plain = text.starts_with(|c: char| matches!(c, '1'..='9'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports() {
        let of = |text: &str| text.parse::<Forward>().unwrap();
        let forward = of("8080:80");
        assert_eq!((forward.host.to_string().as_str(), forward.container), ("127.0.0.1:8080", 80));
        let forward = of("0.0.0.0:53:5353/udp");
        assert_eq!(
            (forward.host.to_string().as_str(), forward.protocol),
            ("0.0.0.0:53", Transport::Udp)
        );
        assert_eq!(of("[::1]:1:2").host.to_string(), "[::1]:1");
        for text in [
            "",
            "80",
            "x:80",
            "0:80",
            "80:0",
            "1:2:3:4",
            "80:80/sctp",
            "a.b:1:2",
            "080:80",
            "+80:80",
        ] {
            assert!(text.parse::<Forward>().is_err(), "{text:?}");
        }
    }
}
