//! Which tags may be written to: an instance has secrets that its image alone knows, and is not replaced
//! by accident.

use super::label::{LABEL_PHASE, Phase};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Image, Reference};
use crate::source::Source;
use crate::store::Store;

/// What an image is to svp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Made by `svp build`.
    Base,
    /// Made by `svp setup`, or by `svp build --phase all`.
    Instance,
    /// Any other image.
    Foreign,
}

/// What an image's labels say it is.
pub(super) fn what(image: &Image) -> What {
    match image.config().label(LABEL_PHASE).and_then(|phase| phase.parse().ok()) {
        Some(Phase::Base) => What::Base,
        Some(Phase::Setup | Phase::All) => What::Instance,
        None => What::Foreign,
    }
}

/// What a tag stands for, if there is one.
pub(super) fn what_is(store: &Store, reference: &Reference) -> Result<Option<What>> {
    match store.tag(reference)? {
        None => Ok(None),
        // A tag whose image is damaged may be written over.
        Some(tag) => Ok(Some(what_of(store, &tag.manifest).unwrap_or(What::Foreign))),
    }
}

/// What an image is; an index with an instance among its images is as one.
pub(super) fn what_of(store: &Store, descriptor: &Descriptor) -> Result<What> {
    let mut found = What::Foreign;
    for image in store.images_of(descriptor)? {
        match what(&store.load_image(&image)?) {
            What::Instance => return Ok(What::Instance),
            other => found = other,
        }
    }
    Ok(found)
}

/// Refuses to give a name to an image while an instance has it, unless that is the same image.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage), unless `force` is given.
pub fn check_taken(store: &Store, name: &Reference, image: &Descriptor, force: bool) -> Result<()> {
    let same = store.tag(name)?.is_some_and(|tag| tag.manifest.digest == image.digest);
    if same { Ok(()) } else { check_for_base(store, name, force) }
}

/// Refuses to put an image that is no instance under the name of one.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage), unless `force` is given.
pub fn check_for_base(store: &Store, reference: &Reference, force: bool) -> Result<()> {
    if !force && what_is(store, reference)? == Some(What::Instance) {
        return Err(Error::usage(format!(
            "{} is an instance, which has secrets",
            reference.tagged()
        ))
        .hint("choose another tag, or replace the instance with --force"));
    }
    Ok(())
}

/// Refuses to build on an instance: its secrets would be in a base image, and in all instances of that.
pub(super) fn check_builds_on(image: &Image, source: &Source) -> Result<()> {
    if what(image) != What::Instance {
        return Ok(());
    }
    Err(Error::bad_input(format!("the base image {source} is an instance, whose secrets it holds"))
        .hint("build on the base image that it was set up on, which its labels name"))
}

/// Refuses to set up an instance under a name that exists.
pub(super) fn check_for_instance(store: &Store, reference: &Reference, may: bool) -> Result<()> {
    match !may && what_is(store, reference)?.is_some() {
        true => Err(exists(reference)),
        false => Ok(()),
    }
}

/// The error that a name which exists is refused with.
pub(super) fn exists(reference: &Reference) -> Error {
    Error::usage(format!("{} exists", reference.tagged())).hint(
        "choose another tag; or set it up anew with its secrets by --keep-secrets, \
         with fresh ones by --force",
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
