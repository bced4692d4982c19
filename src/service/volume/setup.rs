//! Refuses a volume whose data has the secrets of another setup: the service would be healthy, and nobody could log in.
//!
//! Setups have random ids, which say nothing about their secrets; setups with equal secrets share one. A volume's
//! record has the id of the setup that it was created for. docs/decisions/081-volumes-and-setups.md has the reasons.

use crate::error::{Error, Result};
use crate::oci::Image;
use crate::progress::{Reporter, Warning};
use crate::random_name::random_name;
use crate::sandbox::{Sandbox, VolumeRecord};
use crate::secret::Secret;
use crate::service::instance_state::InstanceState;
use crate::service::mount::{MountSource, mount_point};
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::now;
use crate::store::Store;

type Secrets = [(String, Secret)];

/// Returns the id of the setup with these secrets; a new one if no instance and no service has them.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn id_of(store: &Store, secrets: &Secrets) -> Result<String> {
    let found = known(store)?.into_iter().find(|(_, theirs)| equal(theirs, secrets));
    Ok(found.map_or_else(random_name, |(id, _)| id))
}

/// The setups whose secrets are in this store: those of its instances and services.
fn known(store: &Store) -> Result<Vec<(String, Vec<(String, Secret)>)>> {
    let mut known: Vec<_> = InstanceState::all(store)?
        .into_iter()
        .map(|(file, state)| (state.setup.unwrap_or(file), state.secrets))
        .collect();
    for service in ServiceDir::all(store.root())? {
        // Other commands report damaged services.
        let Ok(record) = service.record() else { continue };
        known.extend(record.setup.map(|id| (id, record.secrets)));
    }
    Ok(known)
}

fn equal(a: &Secrets, b: &Secrets) -> bool {
    a.len() == b.len() && a.iter().all(|one| b.contains(one))
}

/// The volumes that were created for other setups of `instance` than `setup`: with other secrets.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub(crate) fn volumes_of_others(
    store: &Store,
    sandbox: &Sandbox,
    (instance, setup): (&str, &str),
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for tree in super::list::volumes(&store.layout().trees())? {
        if !sandbox.holds(&tree) {
            continue;
        }
        // `svp volume ls` reports unreadable records.
        let Ok(record) = VolumeRecord::read(&tree.path()) else { continue };
        let same = record.instance.as_deref() == Some(instance);
        if same && record.setup.is_some_and(|other| other != setup) {
            names.push(tree.key().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Record {
    /// The record of a volume that is created for this service.
    pub(in crate::service) fn volume_record(&self) -> VolumeRecord {
        VolumeRecord {
            service: Some(self.candidate_for.as_ref().unwrap_or(&self.name).clone()),
            instance: Some(self.image.clone()),
            setup: self.setup.clone(),
            ..VolumeRecord::new(now())
        }
    }
}

/// Refuses volumes that were created for another setup, whose secrets are not those of the service. Warns, if there is
/// a `reporter`, about volumes whose secrets are unknown where the user gave those of the service.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) with the ways out; [`Kind::BadInput`](crate::error::Kind::BadInput) if
/// the record of a volume is damaged.
pub(crate) fn check(
    store: &Store,
    sandbox: &Sandbox,
    record: &Record,
    image: &Image,
    reporter: Option<&dyn Reporter>,
) -> Result<()> {
    let Some(ours) = record.setup.as_ref().filter(|_| !record.reuse_volumes) else {
        return Ok(());
    };
    for mount in record.mounts.iter().filter(|mount| !mount.read_only) {
        let MountSource::Volume(name) = &mount.source else { continue };
        let Some(volume) = sandbox.volume_record(name)? else { continue };
        let Some(theirs) = volume.setup.as_ref().filter(|theirs| *theirs != ours) else {
            continue;
        };
        // Services of different packs may share a volume, but not as the data directory of both.
        let same = volume.instance.as_deref() == Some(&record.image);
        let is_data = || {
            image.config().volumes().iter().any(|at| mount_point(at).is_ok_and(|at| at == mount.at))
        };
        if !same && !is_data() {
            continue;
        }
        let other = known(store)?.iter().any(|(id, _)| id == theirs);
        if other || !record.secrets_given {
            return Err(other_setup(name, &volume, record));
        }
        if let Some(reporter) = reporter {
            reporter.warning(Warning::VolumeOfUnknownSetup { volume: name.clone() });
        }
    }
    Ok(())
}

fn other_setup(name: &str, volume: &VolumeRecord, record: &Record) -> Error {
    let whose = match volume.instance.as_deref() {
        Some(instance) if instance != record.image => format!("the instance {instance}"),
        _ => format!("another setup of {}", record.image),
    };
    Error::usage(format!(
        "the volume {name} was created for {whose}: its data has the secrets of that setup, so that nobody could log \
         in with those of {}",
        record.image
    ))
    .hint(format!(
        "to keep the data, run with that setup's secrets, as `svp setup` printed them: `svp run --env-file FILE {0}`; \
         to start anew, remove the data with `svp volume rm {name}` (`svp volume export {name} -o FILE` saves it \
         first); `svp run --reuse-volumes {0}` takes the volume as it is",
        record.image
    ))
}
