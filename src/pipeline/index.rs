//! `svp index`: creates a multi-platform index.

use std::collections::BTreeMap;

use super::copy;
use super::image_role;
use crate::error::{Error, Result};
use crate::oci::media_type::INDEX;
use crate::oci::{Descriptor, Index, Platform, Reference};
use crate::progress::Reporter;
use crate::source::{PullOptions, Source, pull_all};
use crate::store::Store;

/// A request to create an index.
#[derive(Debug)]
pub(crate) struct IndexRequest {
    /// The images, or indexes whose images to add.
    pub sources: Vec<Source>,
    /// The tag.
    pub tag: Reference,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// How to pull.
    pub pull: PullOptions,
    /// Replace an instance that has the name.
    pub force: bool,
}

/// A new index.
#[derive(Debug)]
pub(crate) struct Indexed {
    /// The index.
    pub descriptor: Descriptor,
    /// Its images, with their platforms.
    pub images: Vec<Descriptor>,
}

/// Creates an index of the images, in their order, and tags it. Each image's platform comes from its config.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if two images are for the same platform, or an instance has the name;
/// else as [`pull_all`].
pub(crate) fn index(
    request: &IndexRequest,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Indexed> {
    image_role::check_tag(&request.tag)?;
    image_role::refuse_instance_name(store, &request.tag, request.force)?;
    let mut images: Vec<(Descriptor, &Source)> = Vec::new();
    for source in &request.sources {
        let found = pull_all(source, store, &request.pull, reporter)?;
        if found.is_empty() {
            return Err(Error::bad_input(format!("{source} is an index without images")));
        }
        for image in found {
            add(&mut images, image, source)?;
        }
    }
    let images: Vec<Descriptor> = images.into_iter().map(|(image, _)| image).collect();
    let mut index = Index::new(images.clone());
    index.annotations = request.annotations.clone();
    let bytes = index.encode();
    let descriptor = Descriptor::of(INDEX, &bytes);
    store.put_blob(&bytes)?;
    copy::tag(store, &request.tag, &descriptor, request.force)?;
    Ok(Indexed { descriptor, images })
}

/// Adds an image unless it is present. Fails for a second image of the same platform, which no client would find.
fn add<'a>(
    images: &mut Vec<(Descriptor, &'a Source)>,
    image: Descriptor,
    source: &'a Source,
) -> Result<()> {
    let platform =
        image.platform.clone().filter(|p| !p.os.is_empty() && !p.architecture.is_empty());
    let platform = platform.ok_or_else(|| {
        Error::bad_input(format!("{source}: the image's config has no platform"))
            .hint("`svp import --platform` creates an image with a platform")
    })?;
    let same = |other: &Platform| platform.rank(other) == Some(0);
    match images.iter().find(|(other, _)| other.platform.as_ref().is_some_and(same)) {
        Some((other, _)) if other.digest == image.digest => {}
        Some((_, other)) => {
            return Err(Error::usage(format!("{other} and {source} are both for {platform}"))
                .hint("an index has one image for each platform: leave one of them out"));
        }
        None => images.push((Descriptor { annotations: BTreeMap::new(), ..image }, source)),
    }
    Ok(())
}
