//! Lists volumes with the services that use them, and removes unused ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sandbox::{CachedTree, Sandbox, VolumeRecord};
use crate::service::backup::cutover;
use crate::service::name::check_name;
use crate::service::service_dir::ServiceDir;
use crate::store::StoreLayout;

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// Its name.
    pub name: String,
    /// The directory of its data.
    pub data: PathBuf,
    /// Its record; `None` if it can't be read.
    pub record: Option<VolumeRecord>,
    /// Disk use, in bytes; `None` if the caller can't read it.
    pub bytes: Option<u64>,
    /// The services that use it.
    pub users: Vec<String>,
    /// Whether it belongs to an id map that the caller had before: services can't use it.
    pub other_ids: bool,
}

/// The services that use each volume.
#[derive(Debug, Default)]
pub(crate) struct Users {
    of: BTreeMap<String, BTreeSet<String>>,
    /// Why the volumes of some services are unknown.
    pub damaged: Vec<Error>,
}

impl Users {
    /// Reads the records of all services, and the journals of their restores.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn read(root: &Path) -> Result<Users> {
        let mut users = Users::default();
        let services = ServiceDir::all(root)?;
        for service in &services {
            match service.record() {
                Ok(record) => users.add(service, record.volume_names()),
                Err(error) => users.damaged.push(error),
            }
        }
        // Read journals after records: a restore writes its journal before it removes the record of the candidate.
        for service in &services {
            match cutover::volumes(service) {
                Ok(names) => users.add(service, names.iter().map(String::as_str)),
                Err(error) => users.damaged.push(error),
            }
        }
        Ok(users)
    }

    fn add<'a>(&mut self, service: &ServiceDir, volumes: impl Iterator<Item = &'a str>) {
        for volume in volumes {
            let users = self.of.entry(volume.to_owned()).or_default();
            users.insert(service.name().to_owned());
        }
    }

    /// The names of the services that use a volume.
    pub(crate) fn of(&self, volume: &str) -> Vec<String> {
        self.of.get(volume).into_iter().flatten().cloned().collect()
    }

    /// Whether any service uses a volume.
    pub(crate) fn has(&self, volume: &str) -> bool {
        self.of.contains_key(volume)
    }

    /// Fails if the volumes of any service are unknown.
    ///
    /// # Errors
    /// The first of [`Users::damaged`].
    pub(crate) fn whole(mut self) -> Result<Users> {
        if self.damaged.is_empty() { Ok(self) } else { Err(self.damaged.swap_remove(0)) }
    }
}

/// The error for a volume that does not exist.
pub(super) fn is_no_volume(name: &str) -> Error {
    Error::usage(format!("there is no volume {name}")).hint("`svp volume ls` lists the volumes")
}

/// Lists the volumes, sorted by name; only those called `names`, if any are given.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for a name that no volume has,
/// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub(crate) fn list(root: &Path, names: &[String], users: &Users) -> Result<Vec<Volume>> {
    names.iter().try_for_each(|name| check_name_of_volume(name))?;
    let trees = StoreLayout::new(root).trees();
    let mut found = volumes(&trees)?;
    if !names.is_empty() {
        found.retain(|tree| names.iter().any(|name| name == tree.key()));
    }
    if let Some(missing) = names.iter().find(|name| found.iter().all(|tree| tree.key() != **name)) {
        return Err(is_no_volume(missing));
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let sandbox = Sandbox::create(&trees)?;
    let (own, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|tree| sandbox.holds(tree));
    let sizes = sandbox.measure(&own)?.into_iter().map(Some);
    let mut volumes: Vec<Volume> =
        own.iter().zip(sizes).map(|(t, b)| volume(t, b, users)).collect();
    for tree in &others {
        let bytes = sandbox.measure(std::slice::from_ref(tree)).ok();
        let bytes = bytes.and_then(|sizes| sizes.first().copied());
        let other = Volume { other_ids: true, users: Vec::new(), ..volume(tree, bytes, users) };
        volumes.push(other);
    }
    volumes.sort_by(|a, b| (&a.name, a.other_ids).cmp(&(&b.name, b.other_ids)));
    Ok(volumes)
}

/// The volumes of every id map.
pub(in crate::service) fn volumes(trees: &Path) -> Result<Vec<CachedTree>> {
    let mut found = Sandbox::persistent_trees(trees)?;
    found.retain(CachedTree::is_volume);
    Ok(found)
}

fn volume(tree: &CachedTree, bytes: Option<u64>, users: &Users) -> Volume {
    let name = tree.key().to_owned();
    Volume {
        data: Sandbox::volume_data_at(&tree.path()),
        record: VolumeRecord::read(&tree.path()).ok(),
        users: users.of(&name),
        name,
        bytes,
        other_ids: false,
    }
}

/// Refuses names that are no volume's, such as paths. Those that svp itself made may be longer than a user's.
fn check_name_of_volume(name: &str) -> Result<()> {
    let head: String = name.chars().take(63).collect();
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if valid { check_name(&head) } else { check_name(name) }
}

/// Removes volumes with their data; none if one of them is used or missing.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for a volume that is missing or used;
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if a service is damaged, since its volumes are unknown;
/// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub(crate) fn remove(
    root: &Path,
    names: &[String],
    removed: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    names.iter().try_for_each(|name| check_name_of_volume(name))?;
    let trees = StoreLayout::new(root).trees();
    let found = volumes(&trees)?;
    let users = Users::read(root)?.whole()?;
    for name in names {
        if found.iter().all(|tree| tree.key() != name) {
            return Err(is_no_volume(name));
        }
        refuse_used(name, &users.of(name))?;
    }
    let sandbox = Sandbox::create(&trees)?;
    for name in names {
        // Again: a service may have been created meanwhile.
        refuse_used(name, &Users::read(root)?.whole()?.of(name))?;
        if sandbox.has_volume(name) {
            sandbox.remove_volume(name)?;
        } else {
            let same = found.iter().filter(|tree| tree.key() == name);
            sandbox.remove_cached(&same.cloned().collect::<Vec<_>>())?;
        }
        removed(name)?;
    }
    Ok(())
}

fn refuse_used(name: &str, users: &[String]) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let services = if users.len() == 1 { "service" } else { "services" };
    let all = users.join(", ");
    Err(Error::usage(format!("the volume {name} is used by the {services} {all}")).hint(format!(
        "`svp rm --force {0}` stops and removes the {services} and keeps the volume; \
         `svp rm --force --volumes {0}` removes the data too",
        users.join(" ")
    )))
}
