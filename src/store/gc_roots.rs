//! Garbage collection roots: the images of tags and of service records, independent of each other.

use std::fmt;
use std::fs;
use std::io;

use serde::Deserialize;

use super::{REPLACEMENT_JOURNAL, Store, StoreLayout};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, Digest};

/// The part of a service's record that matters to garbage collection.
#[derive(Debug, Deserialize)]
pub struct ServicePin {
    /// The service's name.
    pub name: String,
    /// The image's name when the service was created.
    #[serde(default)]
    pub image: String,
    /// The manifest or index of its image.
    pub manifest: Descriptor,
}

/// The part of a journal that matters to garbage collection: either version of the service may be the one that stays.
#[derive(Debug, Deserialize)]
struct JournalPins {
    old: ServicePin,
    new: ServicePin,
}

/// The owner of a garbage collection root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootOwner {
    /// A tag, `[REGISTRY/]REPO:TAG`.
    Tag(String),
    /// A service, by its name.
    Service(String),
}

/// Names the image by its owner.
impl fmt::Display for RootOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootOwner::Tag(name) => write!(f, "the image {name}"),
            RootOwner::Service(name) => write!(f, "the image of the service {name}"),
        }
    }
}

/// An image that garbage collection must keep.
#[derive(Clone, Debug)]
pub(super) struct GcRoot {
    /// The owner.
    pub(super) owner: RootOwner,
    /// The image's manifest or index.
    pub(super) manifest: Descriptor,
}

impl Store {
    /// Lists all garbage collection roots: the images of tags and services.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's or a service's file is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn gc_roots(&self) -> Result<Vec<GcRoot>> {
        let mut gc_roots = Vec::new();
        for tag in self.tags()? {
            let tag = tag?;
            gc_roots.push(GcRoot { owner: RootOwner::Tag(tag.name), manifest: tag.manifest });
        }
        for (_, pin) in self.service_pins()? {
            let ServicePin { name, manifest, .. } = pin?;
            gc_roots.push(GcRoot { owner: RootOwner::Service(name), manifest });
        }
        gc_roots.extend(self.journal_pins()?);
        Ok(gc_roots)
    }

    /// Lists the images in the journals of replacements that have not been completed.
    fn journal_pins(&self) -> Result<Vec<GcRoot>> {
        let dir = self.layout().services();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.io("list", &dir)?,
        };
        let mut pins = Vec::new();
        for entry in entries {
            let path = entry.io("list", &dir)?.path().join(REPLACEMENT_JOURNAL);
            let text = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Something else than a directory.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
                other => other.io("read", &path)?,
            };
            let journal: JournalPins = serde_json::from_slice(&text).map_err(|error| {
                Error::bad_input(format!("the journal {} is damaged", path.display())).source(error)
            })?;
            for ServicePin { name, manifest, .. } in [journal.old, journal.new] {
                pins.push(GcRoot { owner: RootOwner::Service(name), manifest });
            }
        }
        Ok(pins)
    }

    /// Lists the services that have the image or index `digest`.
    ///
    /// # Errors
    /// As [`Store::service_pins`].
    pub fn services_of(&self, digest: &Digest) -> Result<Vec<String>> {
        let pins = self.service_pins()?.into_iter().filter_map(|(_, pin)| pin.ok());
        let used = pins.filter(|pin| pin.manifest.digest == *digest);
        let mut names: Vec<String> = used.map(|pin| pin.name).collect();
        names.sort();
        Ok(names)
    }

    /// Lists the image of each service, by the name of the service's directory.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the services can't be listed; an item is
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if that service's file is damaged.
    pub fn service_pins(&self) -> Result<Vec<(String, Result<ServicePin>)>> {
        let dir = self.layout().services();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.io("list", &dir)?,
        };
        let mut service_pins = Vec::new();
        for entry in entries {
            let entry = entry.io("list", &dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = StoreLayout::service_record(&entry.path());
            let text = match fs::read(&path) {
                // The service is being removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.io("read", &path),
            };
            let pin = text.and_then(|text| {
                serde_json::from_slice(&text).map_err(|error| {
                    Error::bad_input(format!("service record {} is damaged", path.display()))
                        .source(error)
                        .hint(format!(
                            "remove the service with `svp rm --force {name}`: its image is unknown"
                        ))
                })
            });
            service_pins.push((name, pin));
        }
        Ok(service_pins)
    }
}
