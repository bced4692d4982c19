//! Links: a service reaches the services that it is linked to by their names, and has their environment.
//!
//! In a private network 127.83.x.y is the service's own loopback, so each link has another address there. svp listens
//! on that address for every port of the linked service, and forwards connections to the linked service's address on
//! the host. The two services can be started in any order.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::link_spec::{LinkSpec, is_reserved};
use super::record::Record;
use super::service_dir::ServiceDir;
use crate::error::{Error, Result};
use crate::oci::Image;
use crate::pack::query::why_refused;
use crate::progress::Silent;
use crate::sandbox::{
    Forward, HostsEntry, LinkListener, MAX_LINKS, Network, Transport, available_network,
    link_address,
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

/// A linked service.
#[derive(Debug)]
pub(crate) struct Linked {
    /// The index of the link, which decides its address.
    pub index: usize,
    /// The link.
    pub link: LinkSpec,
    /// The linked service.
    pub record: Record,
}

impl Linked {
    /// Returns its address inside the service `user`.
    fn address(&self, user: &Record) -> IpAddr {
        match has_own_network(user) {
            true => link_address(self.index).into(),
            false => self.record.ip(),
        }
    }

    /// Returns its variables, with addresses that are valid inside the service `user`.
    fn environment(&self, user: &Record) -> Vec<(String, String)> {
        let variables = match has_own_network(user) {
            true => self.record.client_environment(&self.address(user).to_string()),
            false => self.record.host_environment(),
        };
        let prefix = self.link.prefix();
        variables.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }
}

/// Returns the linked services that still exist: a running service continues without the others.
pub(crate) fn existing(root: &Path, record: &Record) -> Vec<Linked> {
    let find = |(index, link): (usize, &LinkSpec)| {
        let record = ServiceDir::existing(root, &link.service).and_then(|dir| dir.record()).ok()?;
        Some(Linked { index, link: link.clone(), record })
    };
    record.links.iter().enumerate().filter_map(find).collect()
}

/// Returns the names of the services that are linked to the service `name`.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn dependents(root: &Path, name: &str) -> Result<Vec<String>> {
    let records =
        ServiceDir::all(root)?.into_iter().filter_map(|service_dir| service_dir.record().ok());
    let uses = |other: &Record| other.links.iter().any(|link| link.service == name);
    let users = records.filter(|other| other.name != name && uses(other));
    Ok(users.map(|other| other.name).collect())
}

/// Returns the services that a service is linked to; it needs all of them to start.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if one of them no longer exists.
pub(crate) fn resolve(root: &Path, record: &Record) -> Result<Vec<Linked>> {
    let find = |(index, link): (usize, &LinkSpec)| {
        let other = &link.service;
        let service_dir = ServiceDir::existing(root, other).map_err(|_| {
            let name = &record.name;
            Error::usage(format!(
                "the service {other} no longer exists, but {name} is linked to it"
            ))
            .hint(format!(
                "run {other} again, or `svp rm {name}` and run {name} without --link {link}"
            ))
        })?;
        Ok(Linked { index, link: link.clone(), record: service_dir.record()? })
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
    for Linked { index, record: other, .. } in linked {
        let link = *index;
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

/// Whether a service has a network of its own, in which each link has an address.
fn has_own_network(record: &Record) -> bool {
    match record.network {
        Network::Host => false,
        Network::None => true,
        Network::Private => {
            !matches!(available_network(Network::Private, &Silent), Ok(Network::Host))
        }
    }
}

/// Returns the environment from the links, with addresses that are valid inside the service.
pub(crate) fn environment(record: &Record, linked: &[Linked]) -> Vec<(String, String)> {
    linked.iter().flat_map(|one| one.environment(record)).collect()
}

/// Returns the host names of the linked services inside the service: each has its alias, and its own name unless that
/// is the name of something else.
pub(crate) fn host_names(record: &Record, linked: &[Linked]) -> Vec<HostsEntry> {
    let mut taken: Vec<String> = vec![record.hostname().to_ascii_lowercase()];
    taken.extend(linked.iter().map(|one| one.link.host_name().to_ascii_lowercase()));
    let mut entry = |one: &Linked| {
        let mut names = vec![one.link.host_name().to_owned()];
        let own = one.link.service.to_ascii_lowercase();
        if !taken.contains(&own) && !is_reserved(&own) {
            names.push(one.link.service.clone());
            taken.push(own);
        }
        HostsEntry { address: one.address(record), names }
    };
    linked.iter().map(&mut entry).collect()
}

/// Checks a new service's links: all names and all variables inside it must be unambiguous.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) with the way out, which is an alias.
pub(crate) fn check(record: &Record, image: &Image, linked: &[Linked]) -> Result<()> {
    check_names(record)?;
    for one in linked {
        for (name, _) in one.environment(record) {
            if let Some(why) = why_refused(&name) {
                return Err(Error::usage(format!(
                    "the link {} would set {name}, which {why}",
                    one.link
                ))
                .hint("choose another alias"));
            }
        }
    }
    match collision(record, image, linked) {
        None => Ok(()),
        Some(Collision { first, link, names }) => {
            let both = match first {
                None => format!("{} and its link {link}", record.name),
                Some(first) => format!("the links {first} and {link}"),
            };
            let (service, all) = (&link.service, names.join(", "));
            Err(Error::usage(format!("{both} both set {all}"))
                .hint(format!(
                    "give it an alias: with --link {service}:ALIAS they are ALIAS_{} and so on, and the name ALIAS \
                     resolves to {service}",
                    names[0]
                )))
        }
    }
}

fn check_names(record: &Record) -> Result<()> {
    for (number, link) in record.links.iter().enumerate() {
        let name = link.host_name();
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        let service = &link.service;
        let hint = format!("give it an alias: --link {service}:ALIAS");
        if record.links[..number].contains(link) {
            return Err(Error::usage(format!("--link {link} is given twice")).hint(hint));
        }
        let why = if record.links[..number].iter().any(|other| same(other.host_name())) {
            "two links have that name"
        } else if same(record.hostname()) || same(&record.name) {
            "the service itself has that name"
        } else if is_reserved(name) {
            "it has another meaning as a host name"
        } else {
            continue;
        };
        return Err(Error::usage(format!("can't link to {service} as {name}: {why}")).hint(hint));
    }
    Ok(())
}

/// Variables that a link has in common with an earlier link, or with the service itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Collision {
    /// The earlier link; none for the service's own variables.
    pub first: Option<LinkSpec>,
    /// The link.
    pub link: LinkSpec,
    /// The names of the variables.
    pub names: Vec<String>,
}

/// Returns the first collision of variables. Those that the user sets with -e replace all others on purpose.
pub(crate) fn collision(record: &Record, image: &Image, linked: &[Linked]) -> Option<Collision> {
    let name_of = |variable: String| variable.split('=').next().unwrap_or_default().to_owned();
    let mut own: Vec<String> = image.config().env().into_iter().map(name_of).collect();
    own.extend(record.secrets.iter().map(|(name, _)| name.clone()));
    own.extend(record.env.iter().map(|(name, _)| name.clone()));
    let mut givers: Vec<(Option<&LinkSpec>, Vec<String>)> = vec![(None, own)];
    for one in linked {
        let theirs = one.environment(record).into_iter().map(|(name, _)| name);
        let is_free = |name: &String| record.more_env.iter().all(|(given, _)| given != name);
        let theirs: Vec<String> = theirs.filter(is_free).collect();
        for (first, known) in &givers {
            let names: Vec<String> =
                theirs.iter().filter(|name| known.contains(name)).cloned().collect();
            if !names.is_empty() {
                return Some(Collision { first: first.cloned(), link: one.link.clone(), names });
            }
        }
        givers.push((Some(&one.link), theirs));
    }
    None
}
