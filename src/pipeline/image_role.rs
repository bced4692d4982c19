//! The role of an image in svp, and which tags may be overwritten: some secrets exist only in an instance's image, so
//! an instance is not replaced by accident.

use super::label::{LABEL_PHASE, Phase};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Image, Reference};
use crate::source::Source;
use crate::store::Store;

/// The role of an image in svp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageRole {
    /// Made by `svp build`.
    Base,
    /// Made by `svp setup`, or by `svp build --phase all`.
    Instance,
    /// Any other image.
    Foreign,
}

/// The role that an image's labels state.
pub(super) fn role_of(image: &Image) -> ImageRole {
    match image.config().label(LABEL_PHASE).and_then(|phase| phase.parse().ok()) {
        Some(Phase::Base) => ImageRole::Base,
        Some(Phase::Setup | Phase::All) => ImageRole::Instance,
        None => ImageRole::Foreign,
    }
}

/// The role of the image that a tag names, if the tag exists.
pub(super) fn role_of_tag(store: &Store, reference: &Reference) -> Result<Option<ImageRole>> {
    match store.tag(reference)? {
        None => Ok(None),
        // A tag whose image is damaged may be overwritten.
        Some(tag) => {
            Ok(Some(role_of_descriptor(store, &tag.manifest).unwrap_or(ImageRole::Foreign)))
        }
    }
}

/// Returns the role of an image; an index that contains an instance counts as an instance.
pub(super) fn role_of_descriptor(store: &Store, descriptor: &Descriptor) -> Result<ImageRole> {
    let mut found = ImageRole::Foreign;
    for image in store.images_of(descriptor)? {
        match role_of(&store.load_image(&image)?) {
            ImageRole::Instance => return Ok(ImageRole::Instance),
            other => found = other,
        }
    }
    Ok(found)
}

/// Refuses to give an instance's name to another image.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage), unless `force` is given.
pub(super) fn refuse_instance_tag(
    store: &Store,
    name: &Reference,
    image: &Descriptor,
    force: bool,
) -> Result<()> {
    let same = store.tag(name)?.is_some_and(|tag| tag.manifest.digest == image.digest);
    if same { Ok(()) } else { refuse_instance_name(store, name, force) }
}

/// Refuses to give an instance's name to a new image.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage), unless `force` is given.
pub(crate) fn refuse_instance_name(
    store: &Store,
    reference: &Reference,
    force: bool,
) -> Result<()> {
    if !force && role_of_tag(store, reference)? == Some(ImageRole::Instance) {
        return Err(Error::usage(format!(
            "{} is an instance, which has secrets",
            reference.tagged()
        ))
        .hint("choose another tag, or replace the instance with --force"));
    }
    Ok(())
}

/// Refuses to build on an instance: its secrets would be in a base image, and in all instances of that base image.
pub(super) fn refuse_instance_as_base(image: &Image, source: &Source) -> Result<()> {
    if role_of(image) != ImageRole::Instance {
        return Ok(());
    }
    Err(Error::bad_input(format!(
        "the base image {source} is an instance and contains its secrets"
    ))
    .hint("build on the base image that it was set up on, which its labels name"))
}

/// Refuses to set up an instance under an existing name.
pub(super) fn check_for_instance(store: &Store, reference: &Reference, may: bool) -> Result<()> {
    match !may && role_of_tag(store, reference)?.is_some() {
        true => Err(exists(reference)),
        false => Ok(()),
    }
}

/// The error for a name that exists already.
pub(super) fn exists(reference: &Reference) -> Error {
    Error::usage(format!("{} exists already", reference.tagged())).hint(
        "choose another tag, or replace it: with --keep-secrets it keeps its secrets, \
         with --force it gets fresh ones",
    )
}

/// Checks a reference to write to.
pub(super) fn check_tag(reference: &Reference) -> Result<()> {
    if reference.digest().is_some() || reference.as_digest().is_some() {
        return Err(Error::usage(format!("{reference} has a digest, so it can't be a tag"))
            .hint("write it as REPOSITORY:TAG"));
    }
    Ok(())
}
