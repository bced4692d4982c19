//! Prepares a service's container from its record: unpacks layers, creates volumes, allocates ports.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::links::{self, Collision, Link, Linked};
use super::mount::MountSource;
use super::record::Record;
use super::service_dir::ServiceDir;
use super::volume::setup;
use super::{address, image_config};
use crate::error::{Error, Result};
use crate::oci::Image;
use crate::pack::query::Port;
use crate::progress::{PortReason, Reporter, ServiceNote, Silent, Step, Warning};
use crate::sandbox::{
    Bind, Forward, HostAccess, Network, Overlay, Sandbox, ServiceSpec, available_network,
    layer_sources, why_no_private_network,
};
use crate::store::Store;

/// Everything that a supervisor needs to run a service.
pub(crate) struct Prepared {
    /// The container.
    pub spec: ServiceSpec,
    /// The target of each link listener.
    pub links: Vec<Link>,
    /// The environment of all components.
    pub env: Vec<(String, String)>,
}

/// Prepares to start a service; saves its record again if its address or ports have changed.
///
/// # Errors
/// Those of unpacking; [`Kind::Sandbox`](crate::error::Kind::Sandbox) if no address is free.
pub(crate) fn prepare(
    store: &Store,
    sandbox: &Sandbox,
    service_dir: &ServiceDir,
    record: &mut Record,
    reporter: &dyn Reporter,
) -> Result<Prepared> {
    let image = store.load_image(&record.manifest)?;
    let overlay = sandbox.service_overlay(&record.id, layer_sources(store, &image), reporter)?;
    let linked = links::resolve(store.root(), record)?;
    let binds = binds(sandbox, record, &overlay, reporter)?;
    // After their creation: another command may have created them meanwhile.
    setup::check(store, sandbox, record, &image, None)?;
    if allocate_ports(store.root(), record, reporter)? {
        service_dir.save(record)?;
    }
    let (listen, links) = links::listeners(store.root(), record, &linked)?;
    warn_about_variables(record, &image, &linked, reporter);
    let spec = ServiceSpec {
        overlay,
        binds,
        hosts: links::host_names(record, &linked),
        hostname: record.hostname().to_owned(),
        network: record.network,
        forwards: [&record.ports[..], &record.published].concat(),
        host_access: record.host_access,
        listen,
        components: record.component_names().len(),
        resources: record.resources,
        id: record.id.clone(),
    };
    let env = record.environment(&image, links::environment(record, &linked))?;
    Ok(Prepared { spec, links, env })
}

/// Warns about variables that two links have in common since a linked service was created anew, or svp was updated.
fn warn_about_variables(
    record: &Record,
    image: &Image,
    linked: &[Linked],
    reporter: &dyn Reporter,
) {
    if let Some(Collision { first, link, names }) = links::collision(record, image, linked) {
        let service = record.name.clone();
        // The service's own variables replace those of links, and a later link those of an earlier one.
        let winner = if first.is_some() { link.service.clone() } else { service.clone() };
        let (link, variables) = (link.to_string(), names);
        reporter.warning(Warning::LinkVariables { service, link, variables, winner });
    }
}

fn binds(
    sandbox: &Sandbox,
    record: &Record,
    overlay: &Overlay,
    reporter: &dyn Reporter,
) -> Result<Vec<Bind>> {
    let mut binds = Vec::new();
    for mount in &record.mounts {
        binds.push(match &mount.source {
            MountSource::Host(path) => {
                Bind { source: path.into(), at: mount.at.clone(), read_only: mount.read_only }
            }
            MountSource::Volume(name) => {
                if sandbox.create_volume(name, overlay, &mount.at, &record.volume_record())? {
                    let (volume, at) = (name.clone(), mount.at.clone());
                    reporter.step(Step::CreateVolume { volume, at });
                }
                Sandbox::volume_bind(name, &mount.at, mount.read_only)
            }
        });
    }
    Ok(binds)
}

/// Returns the ports that an image exposes, not yet forwarded from the host.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image's `ExposedPorts` are invalid.
pub(crate) fn exposed_ports(image: &Image) -> Result<Vec<Forward>> {
    Ok(image_config::ports(image.config())?.into_iter().map(unpublished).collect())
}

/// A port that is not yet forwarded from the host.
pub(crate) fn unpublished(port: Port) -> Forward {
    let host = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Forward { host, container: port.number, protocol: port.protocol }
}

/// Allocates the service's ports on the host; returns whether the record has changed.
///
/// The service gets another address if its own is in use. A port that the user has published never moves.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if no address is free, or a published port can't be bound;
/// [`Kind::Usage`](crate::error::Kind::Usage) if a port is published twice.
pub(crate) fn allocate_ports(
    root: &Path,
    record: &mut Record,
    reporter: &dyn Reporter,
) -> Result<bool> {
    if record.network != Network::Private {
        return Ok(false);
    }
    if let Some(not) = why_no_private_network() {
        // Reported when the container starts.
        let network = available_network(Network::Private, &Silent)?;
        return use_other_network(record, network, &not.why, reporter);
    }
    check_published(&record.published)?;
    let ports: Vec<Port> =
        record.ports.iter().map(|f| Port { number: f.container, protocol: f.protocol }).collect();
    let taken = addresses_in_use(root, &record.name)?;
    let (address, forwards) = address::allocate(&record.id, record.address, &taken, &ports)?;
    let old = record.address.replace(address);
    let changed = old != Some(address) || forwards != record.ports;
    if let Some(old) = old.filter(|old| *old != address) {
        let service = record.name.clone();
        reporter.note(ServiceNote::AddressMoved { service, from: old, to: address }.into());
    }
    for forward in forwards.iter().filter(|forward| forward.host.port() != forward.container) {
        let reason = match forward.container < address::unprivileged_start() {
            true => PortReason::Privileged,
            false => PortReason::InUse,
        };
        let (port, to) = (forward.container, forward.host);
        reporter.note(ServiceNote::PortMoved { port, to, reason }.into());
    }
    record.ports = forwards;
    Ok(changed)
}

/// Sets the ports of a service that uses another network because it can't have a private one.
fn use_other_network(
    record: &mut Record,
    network: Network,
    why: &str,
    reporter: &dyn Reporter,
) -> Result<bool> {
    if !record.published.is_empty() || record.host_access != HostAccess::default() {
        return Err(Error::sandbox(format!("{why}, and -p and --allow need a private network"))
            .hint("fix that, or run the service without them: it then uses the network that the configuration or `svp check` names"));
    }
    if network == Network::Host {
        warn_about_taken_ports(&record.ports, reporter);
    }
    let mut changed = record.address.take().is_some();
    for forward in &mut record.ports {
        let host = SocketAddr::from((Ipv4Addr::LOCALHOST, forward.container));
        changed |= std::mem::replace(&mut forward.host, host) != host;
    }
    Ok(changed)
}

/// Warns about ports of a service in the host's network that another program uses: the service may fail to start, and
/// clients reach the other program.
pub(crate) fn warn_about_taken_ports(ports: &[Forward], reporter: &dyn Reporter) {
    let everywhere = std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let taken = |port: &&Forward| {
        let listened = address::try_listen((everywhere, port.container).into(), port.protocol);
        listened.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    for port in ports.iter().filter(taken) {
        reporter.note(ServiceNote::PortTaken { port: port.container }.into());
    }
}

/// Checks that the requested ports can be bound.
fn check_published(published: &[Forward]) -> Result<()> {
    for (number, forward) in published.iter().enumerate() {
        let Forward { host, protocol, .. } = *forward;
        if published[..number].iter().any(|other| (other.host, other.protocol) == (host, protocol))
        {
            return Err(Error::usage(format!("the port {host} is published twice")));
        }
        let Err(error) = address::try_listen(host, protocol) else { continue };
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "ports below {} need privileges on this host: publish it on another, such as {}",
                address::unprivileged_start(),
                8000_u16.saturating_add(host.port())
            ),
            io::ErrorKind::AddrNotAvailable => {
                "the host has no such address: `ip address` lists its own".to_owned()
            }
            io::ErrorKind::AddrInUse if host.ip().is_unspecified() => format!(
                "port {} is in use on one of the host's addresses already, perhaps by another svp service \
                 (see `ss -ln`): name the address to publish it on, or another port",
                host.port()
            ),
            _ => "another program uses that port (`ss -lnp` shows which): publish another with -p"
                .to_owned(),
        };
        return Err(Error::sandbox(format!("can't listen on {host}")).source(error).hint(hint));
    }
    Ok(())
}

/// The addresses of the other services.
fn addresses_in_use(root: &Path, name: &str) -> Result<HashSet<Ipv4Addr>> {
    let others =
        ServiceDir::all(root)?.into_iter().filter(|service_dir| service_dir.name() != name);
    // A damaged record holds no address.
    Ok(others.filter_map(|service_dir| service_dir.record().ok()?.address).collect())
}
