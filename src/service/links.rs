//! Links: the services that one reaches, and whose environment it has.
//!
//! In a private network 127.83.x.y is the service's own loopback, so each link has another address there, and svp
//! listens on it for every port of the other's, and carries what comes to the other's address on the host. It does
//! not matter which of the two was started first.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::place::Place;
use super::record::Record;
use crate::error::{Error, Result};
use crate::sandbox::{
    Forward, Listen, MAX_LINKS, Network, Transport, link_address, why_no_private_network,
};

/// A port of a service that another is linked to.
#[derive(Debug)]
pub struct Link {
    root: PathBuf,
    name: String,
    port: u16,
    protocol: Transport,
}

impl Link {
    /// Where it is now: a service may get another address when it starts, and be removed.
    pub(super) fn leads(&self) -> Vec<SocketAddr> {
        let record = Place::existing(&self.root, &self.name).and_then(|place| place.record());
        let ports = record.map(|record| record.ports).unwrap_or_default();
        let same = |forward: &&Forward| {
            (forward.container, forward.protocol) == (self.port, self.protocol)
        };
        ports.iter().filter(same).map(|forward| forward.host).collect()
    }
}

/// The records of the services that one is linked to.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if there is no such service any more.
pub fn linked(root: &Path, record: &Record) -> Result<Vec<Record>> {
    let find = |link: &String| {
        let place = Place::existing(root, link).map_err(|_| {
            let name = &record.name;
            Error::usage(format!("there is no service {link} any more, which {name} is linked to"))
                .hint(format!(
                    "run it again, or `svp rm {name}` and run {name} without --link {link}"
                ))
        })?;
        place.record()
    };
    record.links.iter().map(find).collect()
}

/// Where svp listens for a service, and where that leads.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if there are too many links.
pub fn doors(root: &Path, record: &Record, linked: &[Record]) -> Result<(Vec<Listen>, Vec<Link>)> {
    if linked.len() > MAX_LINKS {
        return Err(Error::usage(format!("a service of more than {MAX_LINKS} links")));
    }
    let mut doors = (Vec::new(), Vec::new());
    if record.network == Network::Host {
        return Ok(doors);
    }
    for (link, other) in linked.iter().enumerate() {
        for forward in &other.ports {
            // The number that the other has inside: its environment says that one.
            doors.0.push(Listen { link, port: forward.container, protocol: forward.protocol });
            doors.1.push(Link {
                root: root.to_owned(),
                name: other.name.clone(),
                port: forward.container,
                protocol: forward.protocol,
            });
        }
    }
    Ok(doors)
}

/// The environment that the links give a service, with addresses that are valid in it.
pub fn environment(record: &Record, linked: &[Record]) -> Vec<(String, String)> {
    let private = match record.network {
        Network::Host => false,
        Network::None => true,
        Network::Auto => why_no_private_network().is_none(),
    };
    let one = |(link, other): (usize, &Record)| match private {
        true => other.client_environment(&link_address(link).to_string()),
        false => other.host_environment(),
    };
    linked.iter().enumerate().flat_map(one).collect()
}
