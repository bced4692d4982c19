//! Links: a service reaches the services that it is linked to, and has their environment.
//!
//! In a private network 127.83.x.y is the service's own loopback, so each link has another address there. svp listens
//! on that address for every port of the linked service, and forwards connections to the linked service's address on
//! the host. The two services can be started in any order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::record::Record;
use super::service_dir::ServiceDir;
use crate::error::{Error, Result};
use crate::sandbox::{
    Forward, LinkListener, MAX_LINKS, Network, Transport, link_address, why_no_private_network,
};

/// A port of a linked service.
#[derive(Debug)]
pub(crate) struct Link {
    root: PathBuf,
    name: String,
    port: u16,
    protocol: Transport,
}

impl Link {
    /// Returns the port's current addresses: the service may get another address when it starts, or be removed.
    pub(super) fn targets(&self) -> Vec<SocketAddr> {
        let record = ServiceDir::existing(&self.root, &self.name)
            .and_then(|service_dir| service_dir.record());
        let ports = record.map(|record| record.ports).unwrap_or_default();
        let same = |forward: &&Forward| {
            (forward.container, forward.protocol) == (self.port, self.protocol)
        };
        ports.iter().filter(same).map(|forward| forward.host).collect()
    }
}

/// A linked service, and the index of the link.
pub(crate) type Linked = (usize, Record);

/// Returns the linked services that still exist: a running service continues without the others.
pub(crate) fn existing(root: &Path, record: &Record) -> Vec<Linked> {
    let find = |link: &String| ServiceDir::existing(root, link)?.record();
    let found = record.links.iter().map(find).enumerate();
    found.filter_map(|(link, other)| Some((link, other.ok()?))).collect()
}

/// Returns the names of the services that are linked to the service `name`.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn dependents(root: &Path, name: &str) -> Result<Vec<String>> {
    let records =
        ServiceDir::all(root)?.into_iter().filter_map(|service_dir| service_dir.record().ok());
    let users = records.filter(|other| other.name != name && other.links.iter().any(|l| l == name));
    Ok(users.map(|other| other.name).collect())
}

/// Returns the services that a service is linked to; it needs all of them to start.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if one of them no longer exists.
pub(crate) fn resolve(root: &Path, record: &Record) -> Result<Vec<Linked>> {
    let find = |(number, link): (usize, &String)| {
        let service_dir = ServiceDir::existing(root, link).map_err(|_| {
            let name = &record.name;
            Error::usage(format!("the service {link} no longer exists, but {name} is linked to it"))
                .hint(format!(
                    "run {link} again, or `svp rm {name}` and run {name} without --link {link}"
                ))
        })?;
        Ok((number, service_dir.record()?))
    };
    record.links.iter().enumerate().map(find).collect()
}

/// Returns the link listeners of a service, and their targets.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if there are too many links.
pub(crate) fn listeners(
    root: &Path,
    record: &Record,
    linked: &[Linked],
) -> Result<(Vec<LinkListener>, Vec<Link>)> {
    if linked.len() > MAX_LINKS {
        return Err(Error::usage(format!("a service can't have more than {MAX_LINKS} links")));
    }
    let mut listeners = (Vec::new(), Vec::new());
    if record.network == Network::Host {
        return Ok(listeners);
    }
    for (link, other) in linked {
        let link = *link;
        for forward in &other.ports {
            // The port inside the linked service, which is the one in its environment.
            listeners.0.push(LinkListener {
                link,
                port: forward.container,
                protocol: forward.protocol,
            });
            listeners.1.push(Link {
                root: root.to_owned(),
                name: other.name.clone(),
                port: forward.container,
                protocol: forward.protocol,
            });
        }
    }
    Ok(listeners)
}

/// Returns the environment from the links, with addresses that are valid inside the service.
pub(crate) fn environment(record: &Record, linked: &[Linked]) -> Vec<(String, String)> {
    let private = match record.network {
        Network::Host => false,
        Network::None => true,
        Network::Private => why_no_private_network().is_none(),
    };
    let one = |(link, other): &Linked| match private {
        true => other.client_environment(&link_address(*link).to_string()),
        false => other.host_environment(),
    };
    linked.iter().flat_map(one).collect()
}
