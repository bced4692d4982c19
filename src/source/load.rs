//! Loads all images of an OCI or Docker archive, with the names that they have there.

use std::path::Path;

use super::Source;
use super::docker_archive::{self, DockerArchiveSource};
use super::oci_archive::{INDEX, OciArchiveSource};
use super::pull::{PullOptions, from_image_source};
use super::tarball::{ARCHIVES, Tarball};
use crate::error::{Context, Error, Result};
use crate::oci::descriptor::CONTAINERD_NAME;
use crate::oci::{Descriptor, Reference};
use crate::progress::{Reporter, Step};
use crate::store::Store;

/// An image loaded into the store.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its manifest.
    pub descriptor: Descriptor,
    /// Its names in the archive, in the store's form: without Docker Hub's host.
    pub names: Vec<Reference>,
}

/// Loads all images of the archive `file` (`-` for standard input) into the store. Tags nothing.
///
/// An archive that is both an OCI layout and a Docker archive, as docker writes since version 25, is read as the
/// layout, which keeps the manifests.
///
/// # Errors
/// As [`pull`](super::pull()).
pub fn load(
    file: &Path,
    store: &Store,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<Vec<Loaded>> {
    reporter.step(Step::Load { file: file.display().to_string() });
    let tar = Tarball::open(file, store)?;
    let mut loaded = Vec::new();
    let path = || file.to_owned();
    if tar.find(INDEX).is_some() {
        let source = Source::OciArchive { file: path(), reference: None };
        options.signature_policy.check(&source, reporter)?;
        let archive = OciArchiveSource::open(&tar, None)?;
        for entry in archive.entries() {
            let image_source = OciArchiveSource::of_entry(&tar, entry.clone());
            let descriptor = from_image_source(&image_source, store, &options.platform, reporter)
                .context(file.display())?;
            add(&mut loaded, descriptor, name_of(entry).into_iter().collect());
        }
    } else {
        if tar.find(docker_archive::MANIFEST_JSON).is_none() {
            let shown = file.display();
            return Err(Error::bad_input(format!(
                "{shown} is not an image archive: it has neither {INDEX} nor {}",
                docker_archive::MANIFEST_JSON
            ))
            .hint(ARCHIVES));
        }
        let source = Source::DockerArchive { file: path(), reference: None };
        options.signature_policy.check(&source, reporter)?;
        for item in docker_archive::items(&tar)? {
            let image_source = DockerArchiveSource::open(&tar, &item)?;
            let descriptor = from_image_source(&image_source, store, &options.platform, reporter)
                .context(file.display())?;
            let names = item.tags().filter_map(|tag| tag.parse().ok());
            let names = names.map(Reference::without_default_registry).collect();
            add(&mut loaded, descriptor, names);
        }
    }
    Ok(loaded)
}

/// Adds an image, or names to an image added before: an index has an entry for each name of an image.
fn add(loaded: &mut Vec<Loaded>, descriptor: Descriptor, names: Vec<Reference>) {
    match loaded.iter_mut().find(|other| other.descriptor.digest == descriptor.digest) {
        Some(other) => other.names.extend(names),
        None => loaded.push(Loaded { descriptor, names }),
    }
}

/// Returns the image name of an index entry. svp and skopeo write `REPO:TAG` to
/// `org.opencontainers.image.ref.name`; containerd and docker write only the tag there.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let own = entry.ref_name().filter(|name| name.contains([':', '/']));
    let full = entry.annotations.get(CONTAINERD_NAME).map(String::as_str);
    let name = own.or(full).or(entry.ref_name())?;
    name.parse().ok().map(Reference::without_default_registry)
}
