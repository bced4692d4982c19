//! `svp upgrade`: takes a service to the image that its tag names now. The user's choices, the address, the volumes and
//! the secrets stay; all that the image and its pack decide is asked again.

use std::time::Duration;

use super::create_service::{components, mounts, override_env, ports, stop_signal, variable};
use super::image_role::{self, ImageRole};
use super::query;
use crate::error::{Context, Error, Result};
use crate::oci::{Image, Reference};
use crate::pack::Answers;
use crate::pack::query::{EnvVar, HealthSettings};
use crate::progress::{Reporter, ServiceNote, Step};
use crate::sandbox::{Forward, Network, Sandbox};
use crate::secret::Secret;
use crate::service::InstanceState;
use crate::service::backup::upgrade::Upgrade;
use crate::service::health_watch::HealthWatch;
use crate::service::image_config;
use crate::service::links;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::store::{Store, TagRecord};

/// A request to upgrade a service.
#[derive(Debug)]
pub(crate) struct UpgradeRequest {
    /// The new image, if not the one that the service's tag names.
    pub image: Option<Reference>,
    /// Time limit for the new service to become healthy.
    pub limit: Duration,
}

/// The image of a service, with what its pack and its instance state say.
struct Version {
    image: Image,
    answers: Answers,
    state: Option<InstanceState>,
}

/// Upgrades a service. On failure the service is unchanged, and runs if it ran before.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image,
/// [`Kind::Usage`](crate::error::Kind::Usage) if it is not one of the same instance,
/// [`Kind::Script`](crate::error::Kind::Script) if the new service is not healthy in time; others name the operation.
pub(crate) fn upgrade_service(
    request: &UpgradeRequest,
    store: &Store,
    service_dir: &ServiceDir,
    reporter: &dyn Reporter,
) -> Result<()> {
    let sandbox = Sandbox::create(&store.layout().trees())?;
    let upgrade = Upgrade::begin(store, &sandbox, service_dir)?;
    let old = service_dir.record()?;
    let service = old.name.clone();
    let reference = request.image.clone().map_or_else(|| old.image.parse::<Reference>(), Ok)?;
    let found = store.resolve(&reference).hint(format!(
        "name the new image: `svp upgrade {service} --image REF`; `svp images` lists them"
    ))?;
    let digest = found.manifest.digest;
    if digest == old.manifest.digest {
        let image = found.name.clone();
        if request.image.is_some() && image != old.image {
            service_dir.save(&Record { image: image.clone(), ..old })?;
        }
        let digest = digest.to_string();
        reporter.note(ServiceNote::UpToDate { service, image, digest }.into());
        return Ok(());
    }
    let load = |manifest| -> Result<Version> {
        let image = store.load_image(manifest)?;
        let answers = query::all_in_image(store, &sandbox, &image, None, reporter)?;
        Ok(Version { image, answers, state: InstanceState::load(store, manifest)? })
    };
    let image = store.load_image(&found.manifest)?;
    check_role(&image, &old, &found)?;
    image_config::check(image.config(), &found.name)?;
    let (before, after) = (load(&old.manifest)?, load(&found.manifest)?);
    let image = found.name.clone();
    reporter.step(Step::Upgrade { service: service.clone(), image, digest: digest.to_string() });
    let new = record(old, found, &before, after, store, reporter)?;
    upgrade.run(new, request.limit, reporter)?;
    reporter.note(ServiceNote::FilesLeft { service }.into());
    Ok(())
}

fn check_role(image: &Image, old: &Record, found: &TagRecord) -> Result<()> {
    let own_program = old.entrypoint.first().is_some_and(|program| program != "/service/bin/run");
    if own_program || image_role::role_of(image) == ImageRole::Instance {
        return Ok(());
    }
    let (service, image) = (&old.name, &found.name);
    Err(Error::usage(format!("{image} is not the image of an instance, as {service} needs it"))
        .hint(format!("set it up: `svp setup -i {image} -t {} --keep-secrets`", old.image)))
}

/// Describes the service with the new image.
fn record(
    old: Record,
    found: TagRecord,
    before: &Version,
    after: Version,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Record> {
    let Version { image, mut answers, state } = after;
    let secrets = secrets(&old, &found, before, &answers, state.as_ref())?;
    if let Some(state) = &state {
        answers.env = state.env.iter().map(|(n, v)| variable(n, v)).collect();
    }
    let mut more_env = [overridden(&old, before), old.more_env.clone()].concat();
    override_env(&mut answers.env, &more_env);
    more_env.retain(|(name, _)| answers.env.iter().all(|variable| variable.name != *name));
    let pair = |EnvVar { name, value }: &EnvVar| (name.clone(), value.clone());
    let all = old.components == before.answers.components;
    let wanted = if all { Vec::new() } else { old.components.clone() };
    let named = old.volume_names().map(str::to_owned).collect();
    let health_watch = health_watch(&old, &before.answers, &answers)?;
    let new = Record {
        image: found.name,
        manifest: found.manifest,
        components: components(&answers, &wanted)?,
        secrets,
        env: answers.env.iter().map(pair).collect(),
        more_env,
        health: answers.health.as_ref().map(|health| health.command.clone()),
        health_watch,
        ports: match old.network {
            Network::Private => kept_ports(&old, ports(&answers, &image)?),
            _ => old.ports.clone(),
        },
        mounts: mounts(&old.name, &image, &old.mounts, named, reporter),
        stop_signal: stop_signal(&answers, &image)?.0,
        stop_seconds: answers.stop.and_then(|stop| stop.seconds),
        ..old
    };
    links::check(&new, &image, &links::resolve(store.root(), &new)?)?;
    Ok(new)
}

/// Returns how the health is watched: as the new pack says, unless the user has decided otherwise.
fn health_watch(old: &Record, before: &Answers, after: &Answers) -> Result<Option<HealthWatch>> {
    let of_pack = |answers: &Answers| {
        let settings = answers.health.as_ref().map(|health| health.settings).unwrap_or_default();
        HealthWatch::combine(HealthSettings::default(), None, settings)
    };
    if old.health_watch == of_pack(before)? { of_pack(after) } else { Ok(old.health_watch) }
}

/// Returns the variables of the pack that the user has set to other values.
fn overridden(old: &Record, before: &Version) -> Vec<(String, String)> {
    let own = |name: &String| match &before.state {
        Some(state) => state.env.iter().find(|(other, _)| other == name).map(|(_, value)| value),
        None => before.answers.env.iter().find(|own| own.name == *name).map(|own| &own.value),
    };
    old.env.iter().filter(|(name, value)| own(name) != Some(value)).cloned().collect()
}

/// Keeps the host's ports of those that the service had already.
fn kept_ports(old: &Record, mut ports: Vec<Forward>) -> Vec<Forward> {
    for port in &mut ports {
        let same =
            |had: &&Forward| (had.container, had.protocol) == (port.container, port.protocol);
        if let Some(had) = old.ports.iter().find(same) {
            *port = *had;
        }
    }
    ports
}

/// Returns the secrets of the new service: those that it has, and those that only the new pack asks for.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if the image is of another instance, or lacks a secret.
fn secrets(
    old: &Record,
    found: &TagRecord,
    before: &Version,
    answers: &Answers,
    state: Option<&InstanceState>,
) -> Result<Vec<(String, Secret)>> {
    let value = |secrets: &[(String, Secret)], name: &str| {
        secrets.iter().find(|(other, _)| other == name).map(|(_, secret)| secret.clone())
    };
    let set_up = state.map(|state| &state.secrets[..]).unwrap_or_default();
    // The user may have given the service other secrets than those that it was set up with.
    let known = before.state.as_ref().map_or(&old.secrets[..], |state| &state.secrets[..]);
    let common: Vec<&String> =
        answers.secrets.iter().filter(|name| value(&old.secrets, name).is_some()).collect();
    let other = common.iter().find(|name| {
        let (was, is) = (value(known, name), value(set_up, name));
        matches!((was, is), (Some(was), Some(is)) if was.expose() != is.expose())
    });
    let keep =
        format!("`svp setup -i BASE -t {} --keep-secrets` sets it up with the same", old.image);
    if other.is_some() || (common.is_empty() && !old.secrets.is_empty()) {
        let (image, service) = (&found.name, &old.name);
        return Err(Error::usage(format!(
            "{image} is another instance than {service}: it was set up with other secrets"
        ))
        .hint(format!("{keep}; or run it as another service: `svp run {image} --name NAME`")));
    }
    let secret = |name: &String| {
        let found = value(&old.secrets, name).or_else(|| value(set_up, name));
        let missing = || Error::usage(format!("the secret {name} of {} is not known", old.image));
        found.map(|secret| (name.clone(), secret)).ok_or_else(missing).hint(&keep)
    };
    answers.secrets.iter().map(secret).collect()
}
