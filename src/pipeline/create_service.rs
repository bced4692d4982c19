//! `svp run`: creates a service from an instance's image.

use super::image_role::{self, ImageRole};
use super::query;
use crate::error::{Context, Error, Result};
use crate::oci::{Digest, Image, Reference};
use crate::pack::Answers;
use crate::pack::query::{EnvVar, HealthSettings, StopSignal};
use crate::progress::{Reporter, ServiceNote};
use crate::random_name::random_name;
use crate::sandbox::{Forward, HostAccess, MAX_COMPONENTS, Network, Resources, Sandbox};
use crate::secret::Secret;
use crate::service::InstanceState;
use crate::service::health_watch::{HealthWatch, OnUnhealthy};
use crate::service::host_name::HostName;
use crate::service::image_config::{self, ImageVolume};
use crate::service::link_spec::LinkSpec;
use crate::service::links;
use crate::service::mount::{Mount, MountSource};
use crate::service::name::{check_name, default_name};
use crate::service::prepare::{allocate_ports, exposed_ports, unpublished, warn_about_taken_ports};
use crate::service::record::{FORMAT, LogLimits, Record, Restart};
use crate::service::service_dir::ServiceDir;
use crate::service::status::now;
use crate::service::volume::setup;
use crate::store::Store;

/// A request to create a service.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    /// The image.
    pub image: Reference,
    /// The components to run; all if none.
    pub components: Vec<String>,
    /// The service's name, if not the image's.
    pub name: Option<String>,
    /// The host name, if not that of the instance.
    pub hostname: Option<HostName>,
    /// The network.
    pub network: Network,
    /// The parts of the host that a private network may reach.
    pub host_access: HostAccess,
    /// Additional host ports that are forwarded to the service.
    pub publish: Vec<Forward>,
    /// The services that it is linked to: it reaches them and has their environment.
    pub links: Vec<LinkSpec>,
    /// Variables, and the secrets that the store doesn't have.
    pub env: Vec<(String, String)>,
    /// Volumes and directories mounted into it.
    pub mounts: Vec<Mount>,
    /// Its resource limits.
    pub resources: Resources,
    /// Use volumes that were created for another setup.
    pub reuse_volumes: bool,
    /// The restart policy.
    pub restart: Restart,
    /// How its health is watched, as far as the user says so.
    pub health: HealthSettings,
    /// What to do when it is unhealthy.
    pub on_unhealthy: Option<OnUnhealthy>,
    /// The program to run instead of `/service/bin/run`.
    pub entrypoint: Option<String>,
    /// Remove it when it has ended.
    pub remove: bool,
    /// Limits of its log.
    pub logs: LogLimits,
}

/// Creates a service from an image without starting it.
///
/// On failure no service is left.
///
/// # Errors
/// Of every kind; each names the operation that failed.
pub(crate) fn create_service(
    request: &CreateRequest,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<(ServiceDir, Record)> {
    let found = store.resolve(&request.image)?;
    let image = store.load_image(&found.manifest)?;
    let name = name_of(request, &found.name)?;
    let service_dir = ServiceDir::of(store.root(), &name)?;
    check_image(&image, &request.image, request)?;
    image_config::check(image.config(), &found.name)?;
    check_mounts(&request.mounts)?;
    check_network(request, reporter)?;
    let sandbox = Sandbox::create(&store.layout().trees())?;
    let mut answers = query::all_in_image(store, &sandbox, &image, None, reporter)?;
    let state = InstanceState::load(store, &found.manifest)?;
    if let Some(state) = &state {
        answers.env = state.env.iter().map(|(n, v)| variable(n, v)).collect();
    }
    override_env(&mut answers.env, &request.env);
    for link in &request.links {
        check_link(&ServiceDir::existing(store.root(), &link.service)?.record()?)?;
    }
    let (secrets, mut more_env) = secrets(&answers, state.as_ref(), request)?;
    let own = state.as_ref().is_some_and(|state| state.secrets == secrets);
    let setup = if secrets.is_empty() { None } else { Some(setup::id_of(store, &secrets)?) };
    more_env.retain(|(name, _)| answers.env.iter().all(|variable| variable.name != *name));
    let pack = answers.health.as_ref().map(|health| health.settings).unwrap_or_default();
    let health_watch = HealthWatch::combine(request.health, request.on_unhealthy, pack)?;
    let pair = |EnvVar { name, value }: &EnvVar| (name.clone(), value.clone());
    let env = answers.env.iter().map(pair).collect();
    let mut record = Record {
        format: FORMAT,
        id: random_name(),
        name: name.clone(),
        hostname: hostname(request, &image),
        image: found.name.clone(),
        manifest: found.manifest,
        created: now(),
        components: components(&answers, &request.components)?,
        entrypoint: vec![request.entrypoint.clone().unwrap_or_else(|| "/service/bin/run".into())],
        cwd: "/service".into(),
        secrets_given: setup.is_some() && !own,
        setup,
        secrets,
        reuse_volumes: request.reuse_volumes,
        env,
        links: request.links.clone(),
        more_env,
        health: answers.health.as_ref().map(|health| health.command.clone()),
        health_watch,
        network: request.network,
        host_access: request.host_access,
        address: None,
        ports: Vec::new(),
        published: match request.network {
            Network::Private => request.publish.clone(),
            _ => Vec::new(),
        },
        mounts: mounts(&name, &image, &request.mounts, Vec::new(), reporter),
        resources: request.resources,
        restart: request.restart,
        stop_signal: stop_signal(&answers, &image)?.0,
        stop_seconds: answers.stop.and_then(|stop| stop.seconds),
        remove: request.remove,
        logs: request.logs,
        candidate_for: None,
    };
    links::check(&record, &image, &links::resolve(store.root(), &record)?)?;
    let ports = ports(&answers, &image)?;
    match record.network {
        Network::Private => {
            record.ports = ports;
            allocate_ports(store.root(), &mut record, reporter)?;
        }
        Network::Host => warn_about_taken_ports(&ports, reporter),
        Network::None => {}
    }
    setup::check(store, &sandbox, &record, &image, Some(reporter))?;
    service_dir.create(&record)?;
    Ok((service_dir, record))
}

/// Returns the ports of the pack, else those that the image exposes, not yet forwarded from the host.
pub(super) fn ports(answers: &Answers, image: &Image) -> Result<Vec<Forward>> {
    match &answers.exposed_ports()[..] {
        [] => exposed_ports(image),
        ports => Ok(ports.iter().copied().map(unpublished).collect()),
    }
}

pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: value.to_owned() }
}

/// Overrides variables of the pack with the user's. This also changes the clients' environment, and the ports derived
/// from it.
pub(super) fn override_env(env: &mut [EnvVar], given: &[(String, String)]) {
    for variable in env {
        if let Some((_, value)) = given.iter().rev().find(|(name, _)| *name == variable.name) {
            variable.value.clone_from(value);
        }
    }
}

fn check_image(image: &Image, reference: &Reference, request: &CreateRequest) -> Result<()> {
    match image_role::role_of(image) {
        ImageRole::Instance => Ok(()),
        _ if request.entrypoint.is_some() => Ok(()),
        ImageRole::Base => {
            Err(Error::usage(format!("{reference} is a base image, not an instance of a service"))
                .hint(format!(
                    "set an instance up: `svp setup -i {reference} -t NAME`, then `svp run NAME`"
                )))
        }
        ImageRole::Foreign => {
            Err(Error::usage(format!("{reference} is not the image of a servicepack"))
                .hint("`svp build` makes one from a pack; podman runs other images"))
        }
    }
}

/// Refuses two mounts at the same path, one of which would hide the other.
fn check_mounts(mounts: &[Mount]) -> Result<()> {
    for (n, mount) in mounts.iter().enumerate() {
        if mounts[..n].iter().any(|other| other.at == mount.at) {
            return Err(Error::usage(format!("two mounts have the path {}", mount.at))
                .hint("mount each at a path of its own"));
        }
    }
    Ok(())
}

/// Refuses options that the chosen network does not support.
fn check_network(request: &CreateRequest, reporter: &dyn Reporter) -> Result<()> {
    let private = request.network == Network::Private;
    if !private && request.host_access != HostAccess::default() {
        return Err(Error::usage("--allow is for a private network").hint(
            "the service reaches the whole host with --network host, and nothing with none",
        ));
    }
    if !private && !request.publish.is_empty() {
        reporter.note(ServiceNote::PublishedWithoutNetwork.into());
    }
    Ok(())
}

fn check_link(other: &Record) -> Result<()> {
    if other.network == Network::Private {
        return Ok(());
    }
    Err(Error::usage(format!("can't link to {}: it has no address of its own", other.name))
        .hint("it was run with --network host or none; run it in a private network"))
}

fn name_of(request: &CreateRequest, image: &str) -> Result<String> {
    if let Some(name) = &request.name {
        return check_name(name).map(|()| name.clone());
    }
    let name = default_name(image);
    check_name(&name).hint("choose a name with --name").map(|()| name)
}

pub(super) fn components(answers: &Answers, wanted: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !answers.components.contains(name)) {
        let known = match &answers.components[..] {
            [] => "the service has no components".to_owned(),
            names => format!("its components are: {}", names.join(", ")),
        };
        return Err(Error::usage(format!("there is no component {unknown}")).hint(known));
    }
    if answers.components.len() > MAX_COMPONENTS {
        return Err(Error::bad_input(format!(
            "a service can't have more than {MAX_COMPONENTS} components"
        )));
    }
    let mut names = answers.components.clone();
    if !wanted.is_empty() {
        names.retain(|name| wanted.contains(name));
    }
    Ok(names)
}

/// Returns the requested host name, else the one that the instance was set up under, which its data may contain.
fn hostname(request: &CreateRequest, image: &Image) -> Option<String> {
    let of_setup = || match image_role::role_of(image) {
        ImageRole::Instance => HostName::of_image(image),
        _ => None,
    };
    request.hostname.clone().or_else(of_setup).map(|name| name.as_str().to_owned())
}

type Variables = Vec<(String, String)>;

/// Returns the instance's secrets, from the user or else from its state, and the user's other variables.
fn secrets(
    answers: &Answers,
    state: Option<&InstanceState>,
    request: &CreateRequest,
) -> Result<(Vec<(String, Secret)>, Variables)> {
    let known = state.map(|state| state.secrets.clone()).unwrap_or_default();
    let (mine, others): (Variables, Variables) =
        request.env.iter().cloned().partition(|(name, _)| answers.secrets.contains(name));
    let mut secrets = Vec::new();
    let mut missing = Vec::new();
    for name in &answers.secrets {
        let given = mine.iter().rev().find(|(given, _)| given == name);
        let kept = known.iter().find(|(known, _)| known == name);
        match (given, kept) {
            (Some((_, value)), _) => {
                secrets.push((name.clone(), Secret::new(name, value.clone())?))
            }
            (None, Some((_, secret))) => secrets.push((name.clone(), secret.clone())),
            (None, None) => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok((secrets, others));
    }
    let missing = missing.join(", ");
    Err(Error::usage(format!(
        "{} was not set up here: its secrets {missing} are not known",
        request.image
    ))
    .hint("give them with --env-file FILE, one NAME=VALUE per line, as `svp setup` printed them"))
}

/// The image's volumes and the user's mounts; the user's take precedence at equal paths.
///
/// The volumes of the image get names other than those in `named`.
pub(super) fn mounts(
    name: &str,
    image: &Image,
    more: &[Mount],
    mut named: Vec<String>,
    reporter: &dyn Reporter,
) -> Vec<Mount> {
    let mut mounts = more.to_vec();
    for volume in image_config::volumes(image.config()) {
        let at = match volume {
            ImageVolume::At(at) => at,
            ImageVolume::Ignored(path, reason) => {
                reporter.note(ServiceNote::VolumeIgnored { path, reason }.into());
                continue;
            }
        };
        if mounts.iter().any(|mount| mount.at == at) {
            continue;
        }
        let volume = volume_name(name, &at, &named);
        named.push(volume.clone());
        mounts.push(Mount { source: MountSource::Volume(volume), at, read_only: false });
    }
    // A mount below another must follow it.
    mounts.sort_by(|a, b| a.at.cmp(&b.at));
    mounts
}

/// Returns the name of the volume at a path: the path, with characters that a file name can't have replaced. Where that
/// is ambiguous (`/a/b` and `/a-b`) or too long, a digest of the path is used.
fn volume_name(service: &str, at: &str, named: &[String]) -> String {
    const LONGEST: usize = 100;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let slug: String = at.trim_matches('/').chars().map(plain).collect();
    let name = format!("{service}.{slug}");
    if slug.len() <= LONGEST && !named.contains(&name) {
        return name;
    }
    let head = &slug[..slug.len().min(LONGEST)];
    format!("{service}.{head}-{}", Digest::of(at.as_bytes()).short())
}

/// Returns the stop signal: the pack's, else that of the image, which it has from its base.
pub(super) fn stop_signal(answers: &Answers, image: &Image) -> Result<StopSignal> {
    if let Some(stop) = answers.stop {
        return Ok(stop.signal);
    }
    let signal = image.config().stop_signal().map(str::parse::<StopSignal>).transpose();
    Ok(signal
        .context("the image's StopSignal")
        .hint("let the pack answer `bin/query stop`, such as SIGTERM 10")?
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_are_unique() {
        let first = volume_name("web", "/a/b", &[]);
        assert_eq!(first, "web.a-b");
        let second = volume_name("web", "/a-b", std::slice::from_ref(&first));
        assert!(second.starts_with("web.a-b-") && second != first, "{second}");
        let long = volume_name("web", &format!("/{}", "x".repeat(300)), &[]);
        assert!(long.len() < 200, "{long}");
        check_name(&second).unwrap();
    }
}
