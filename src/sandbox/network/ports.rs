//! Published ports and their protocols.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A port of the host that is forwarded to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The address on which the host listens.
    pub host: SocketAddr,
    /// The port in the container.
    pub container: u16,
    /// The protocol.
    pub protocol: Transport,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
