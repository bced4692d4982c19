//! Loading: every image of an archive, of whichever kind it is, under the names that it has there.

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

/// An image that was brought into the store.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its manifest.
    pub descriptor: Descriptor,
    /// Its name in the archive, in the store's form: without Docker Hub's host.
    pub names: Vec<Reference>,
}

/// Brings all images of the archive `file` (`-` is standard input) into the store. Nothing is tagged.
///
/// An archive that is both an OCI layout's and docker's, as docker writes since version 25, is read as the layout,
/// which keeps the manifests.
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
                "{shown} is no archive of images: it has neither {INDEX} nor {}",
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

/// An index lists an image once for each of its names.
fn add(loaded: &mut Vec<Loaded>, descriptor: Descriptor, names: Vec<Reference>) {
    match loaded.iter_mut().find(|other| other.descriptor.digest == descriptor.digest) {
        Some(other) => other.names.extend(names),
        None => loaded.push(Loaded { descriptor, names }),
    }
}

/// The image name of an index entry. `org.opencontainers.image.ref.name` is `REPO:TAG` if svp and skopeo
/// wrote it, and only a tag if containerd and docker did.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let own = entry.ref_name().filter(|name| name.contains([':', '/']));
    let full = entry.annotations.get(CONTAINERD_NAME).map(String::as_str);
    let name = own.or(full).or(entry.ref_name())?;
    name.parse().ok().map(Reference::without_default_registry)
}
