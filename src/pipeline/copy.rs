//! Copies images: `svp pull`, `push`, `copy`, `save` and `load`.
//!
//! Every copy goes through the store, where it is verified, and from there to its destination.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use super::image_role::{self, ImageRole, refuse_instance_tag};
use super::output::{self, Output};
use crate::error::{Context, Error, Result};
use crate::layer::settings::Settings;
use crate::oci::descriptor::REF_NAME;
use crate::oci::layout::is_ref_name;
use crate::oci::{Descriptor, Reference};
use crate::progress::Reporter;
use crate::source::{self, PullOptions, Source};
use crate::store::Store;

/// The destination of an image, in skopeo's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A name in the store.
    Local(Reference),
    /// A registry.
    Docker(Reference),
    /// A layout or an archive, and the image's name in it if that differs from its own: in a layout any valid ref name,
    /// written verbatim; in a docker-archive a reference.
    File(Output, Option<String>),
}

impl FromStr for Destination {
    type Err = Error;

    /// `docker://REF`, `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`, `docker-archive:FILE[:REF]` or a plain reference.
    /// `DIR` and `FILE` end at the first colon.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("docker://") {
            return Ok(Destination::Docker(rest.parse::<Reference>()?.with_default_registry()));
        }
        for transport in ["oci:", "oci-archive:", "docker-archive:"] {
            let Some(rest) = text.strip_prefix(transport) else { continue };
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name)),
                None => (rest, None),
            };
            let output: Output = format!("{transport}{path}").parse()?;
            match name {
                Some(name) if output.is_docker_archive() => drop(name.parse::<Reference>()?),
                Some(name) if !is_ref_name(name) => {
                    return Err(Error::usage(format!("{name:?} can't be a name in a layout"))
                        .hint("write letters, digits and - . _ : @ / + between"));
                }
                _ => {}
            }
            return Ok(Destination::File(output, name.map(str::to_owned)));
        }
        if source::is_foreign(text) {
            return Err(Error::usage(format!("{text:?} is not a destination that svp writes")).hint(
                "write docker://REF, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF], or a name for \
                 the store",
            ));
        }
        Ok(Destination::Local(text.parse()?))
    }
}

/// A request to copy an image.
#[derive(Debug)]
pub(crate) struct CopyRequest {
    /// The image.
    pub source: Source,
    /// The destination.
    pub destination: Destination,
    /// How to talk to registries.
    pub pull: PullOptions,
    /// How to compress the layers; `None` keeps them unchanged.
    pub compression: Option<Settings>,
    /// Replace an instance that has the name.
    pub force: bool,
    /// Let an instance's image, which holds secrets, leave the store.
    pub allow_secrets: bool,
}

/// The result of a copy.
#[derive(Debug)]
pub(crate) struct Copied {
    /// The manifest, as it is at the destination.
    pub descriptor: Descriptor,
    /// The name at the destination.
    pub name: Reference,
}

/// Copies an image from a source to a destination. Standard output is written by the caller.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for an instance's image that may not leave, or a name that is
/// missing or taken; otherwise the errors of [`source::pull()`] and of writing to the destination.
pub(crate) fn copy(
    request: &CopyRequest,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Copied> {
    let CopyRequest { source, destination, .. } = request;
    let name = name_at(source, destination)?;
    match destination {
        Destination::File(output, _) => {
            let outputs = std::slice::from_ref(output);
            output::check_compression(outputs, request.compression)?;
            output::check(outputs)?;
        }
        // A digest is the result of a push, not its target.
        Destination::Docker(name) => image_role::check_tag(name)?,
        Destination::Local(_) => {}
    }
    let mut descriptor = source::pull(source, store, &request.pull, reporter)?;
    if takes_one(destination) {
        // A docker-archive can't contain an index.
        descriptor = store.choose(&descriptor, &request.pull.platform).context(source)?;
    }
    if !matches!(destination, Destination::Local(_)) && !request.allow_secrets {
        check_secrets(store, &descriptor, source)?;
    }
    let descriptor = match destination {
        Destination::File(output, _) if !output.is_docker_archive() => {
            source::as_oci(&descriptor, store, reporter)?
        }
        _ => descriptor,
    };
    let descriptor = match request.compression {
        None => descriptor,
        Some(_) if takes_one(destination) => descriptor,
        Some(settings) => {
            source::recompress(&descriptor, settings, store, reporter).context(source)?
        }
    };
    let descriptor = Descriptor { annotations: name_in_layout(destination), ..descriptor };
    match destination {
        Destination::Local(_) => tag(store, &name, &descriptor, request.force)?,
        Destination::Docker(_) => {
            source::push(&descriptor, &name, store, &request.pull.client, reporter)?;
        }
        Destination::File(output, _) => {
            output::write(store, std::slice::from_ref(output), &descriptor, &name, reporter)?;
        }
    }
    Ok(Copied { descriptor, name })
}

/// Loads every image of an archive into the store and tags it, with `given` instead of its names in the archive if set.
///
/// # Errors
/// As [`source::load()`]; [`Kind::Usage`](crate::error::Kind::Usage) for a name that is missing or taken.
pub(crate) fn load(
    file: &Path,
    given: Option<&Reference>,
    force: bool,
    options: &PullOptions,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Vec<Copied>> {
    let loaded = source::load(file, store, options, reporter)?;
    let shown = file.display();
    if loaded.is_empty() {
        return Err(Error::bad_input(format!("{shown} has no images")));
    }
    if given.is_some() && loaded.len() > 1 {
        return Err(Error::usage(format!(
            "{shown} has {} images, but only one name is given",
            loaded.len()
        ))
        .hint("leave --tag out, or `svp pull` one of them"));
    }
    let mut tagged = Vec::new();
    for image in loaded {
        let names = given.map_or(image.names, |name| vec![name.clone()]);
        if names.is_empty() {
            let digest = image.descriptor.digest;
            return Err(Error::usage(format!("the image {digest} in {shown} has no name"))
                .hint("give it one with --tag"));
        }
        for name in names {
            tagged.push(Copied { descriptor: image.descriptor.clone(), name });
        }
    }
    for Copied { descriptor, name } in &tagged {
        refuse_instance_tag(store, name, descriptor, force)?;
    }
    for Copied { descriptor, name } in &tagged {
        tag(store, name, descriptor, force)?;
    }
    Ok(tagged)
}

/// Returns the name that an image from a source has in the store: its own.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if it has none.
pub(crate) fn own_name(source: &Source) -> Result<Reference> {
    let text = match source {
        Source::Local(reference) | Source::Docker(reference) => {
            // A digest is not a tag, but `NAME@DIGEST` is found through the tags of that digest.
            let of_digest = reference.tag_of_digest().filter(|_| reference.tag().is_none());
            return of_digest.map_or_else(|| reference.tagged().parse(), Ok);
        }
        Source::Oci { reference, .. }
        | Source::OciArchive { reference, .. }
        | Source::DockerArchive { reference, .. } => reference.as_deref(),
    };
    let parsed = text.and_then(|text| text.parse::<Reference>().ok());
    parsed
        .filter(|name| name.digest().is_none())
        .map(Reference::without_default_registry)
        .ok_or_else(|| {
            Error::usage(format!("{source} does not name the image"))
                .hint("name it: --tag with `svp pull`, or :REPO:TAG after a path")
        })
}

fn name_at(source: &Source, destination: &Destination) -> Result<Reference> {
    match destination {
        Destination::Local(name) => {
            image_role::check_tag(name)?;
            Ok(name.clone())
        }
        Destination::Docker(name) => Ok(name.clone()),
        // A name in a layout need not be a reference: the entry's own name differs from this one.
        Destination::File(_, Some(name)) => {
            name.parse().or_else(|_| own_name(source)).or_else(|_| "image".parse())
        }
        Destination::File(_, None) => own_name(source),
    }
}

/// The annotation that names the image in a layout as the user wrote it, if the user did.
fn name_in_layout(destination: &Destination) -> BTreeMap<String, String> {
    match destination {
        Destination::File(output, Some(name)) if !output.is_docker_archive() => {
            BTreeMap::from([(REF_NAME.to_owned(), name.clone())])
        }
        _ => BTreeMap::new(),
    }
}

/// Whether the destination takes a single image and can't have an index.
fn takes_one(destination: &Destination) -> bool {
    matches!(destination, Destination::File(output, _) if output.is_docker_archive())
}

fn check_secrets(store: &Store, descriptor: &Descriptor, source: &Source) -> Result<()> {
    match image_role::role_of_descriptor(store, descriptor)? {
        ImageRole::Instance => Err(Error::usage(format!(
            "{source} is an instance: its image holds secrets"
        ))
        .hint("all readers of the copy can read them; if that is intended, add --allow-secrets")),
        _ => Ok(()),
    }
}

/// Tags an image or an index of the store.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if an instance has it, unless `force` is given;
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image is damaged.
pub(crate) fn tag(
    store: &Store,
    name: &Reference,
    descriptor: &Descriptor,
    force: bool,
) -> Result<()> {
    image_role::check_tag(name)?;
    refuse_instance_tag(store, name, descriptor, force)?;
    store.set_tag(name, descriptor, created(store, descriptor)?.as_deref())
}

/// Returns when an image, or the newest image of an index, was created.
fn created(store: &Store, descriptor: &Descriptor) -> Result<Option<String>> {
    let mut youngest: Option<(jiff::Timestamp, String)> = None;
    let images = store.images_of(descriptor)?;
    for image in &images {
        let image = store.load_image(image)?;
        let Some(text) = image.config().created().map(str::to_owned) else { continue };
        match text.parse() {
            Ok(time) if youngest.as_ref().is_none_or(|(other, _)| time > *other) => {
                youngest = Some((time, text));
            }
            // The time of a single image is returned verbatim.
            Err(_) if images.len() == 1 => return Ok(Some(text)),
            _ => {}
        }
    }
    Ok(youngest.map(|(_, text)| text))
}
