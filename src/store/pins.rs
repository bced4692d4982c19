//! What services hold: the images of their records, whatever becomes of the tags.

use std::fs;
use std::io;

use serde::Deserialize;

use super::{Store, TagRecord};
use crate::error::{Error, IoContext, Result};
use crate::oci::Descriptor;

/// The part of a service's record that matters here.
#[derive(Debug, Deserialize)]
pub struct Pin {
    /// The service's name.
    pub name: String,
    /// The manifest or index of its image.
    pub manifest: Descriptor,
}

impl Store {
    /// Every image that must stay: those of the tags and those of services, under the names of these.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's or a service's file is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn roots(&self) -> Result<Vec<TagRecord>> {
        let mut roots = self.tags()?.collect::<Result<Vec<_>>>()?;
        for (_, pin) in self.pinned()? {
            let Pin { name, manifest } = pin?;
            let name = format!("of the service {name}");
            roots.push(TagRecord { name, manifest, created: None });
        }
        Ok(roots)
    }

    /// What each service holds, by the name of its directory.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if they can't be listed; an item is
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if that service's file is damaged.
    pub fn pinned(&self) -> Result<Vec<(String, Result<Pin>)>> {
        let dir = self.root().join("services");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.io("list", &dir)?,
        };
        let mut pinned = Vec::new();
        for entry in entries {
            let entry = entry.io("list", &dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path().join("service.json");
            let text = match fs::read(&path) {
                // It is being removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.io("read", &path),
            };
            let pin = text.and_then(|text| {
                serde_json::from_slice(&text).map_err(|error| {
                    Error::bad_input(format!("the service's {} is damaged", path.display()))
                        .source(error)
                        .hint("`svp rm --force` with its name removes it, for what it held isn't known")
                })
            });
            pinned.push((name, pin));
        }
        Ok(pinned)
    }

    /// The services whose image is `descriptor`'s.
    ///
    /// # Errors
    /// As [`Store::reach`].
    pub fn services_of(&self, descriptor: &Descriptor) -> Result<Vec<String>> {
        let roots = self.roots()?.into_iter();
        let of_it = roots.filter(|root| root.manifest.digest == descriptor.digest);
        Ok(of_it
            .filter_map(|root| Some(root.name.strip_prefix("of the service ")?.to_owned()))
            .collect())
    }
}
