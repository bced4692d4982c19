//! What services hold: the images of their records, whatever becomes of the tags.

use std::fs;
use std::io;

use serde::Deserialize;

use super::{Store, TagRecord};
use crate::error::{Error, IoContext, Result};
use crate::oci::Descriptor;

/// The part of a service's record that matters here.
#[derive(Deserialize)]
struct Pin {
    name: String,
    manifest: Descriptor,
}

impl Store {
    /// Every image that must stay: those of the tags and those of services, under the names of these.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's or a service's file is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn roots(&self) -> Result<Vec<TagRecord>> {
        let mut roots = self.tags()?.collect::<Result<Vec<_>>>()?;
        let dir = self.root().join("services");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(roots),
            other => other.io("list", &dir)?,
        };
        for entry in entries {
            let path = entry.io("list", &dir)?.path().join("service.json");
            let text = match fs::read(&path) {
                // It is being removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.io("read", &path)?,
            };
            let pin: Pin = serde_json::from_slice(&text).map_err(|error| {
                Error::bad_input(format!("the service's {} is damaged", path.display()))
                    .source(error)
            })?;
            let name = format!("of the service {}", pin.name);
            roots.push(TagRecord { name, manifest: pin.manifest, created: None });
        }
        Ok(roots)
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
