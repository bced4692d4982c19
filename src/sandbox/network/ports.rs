//! Published ports and their protocols.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A port of the host that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The port in the container.
    pub container: u16,
    /// Over what.
    pub protocol: Transport,
}

/// What carries packets to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
