//! Images in the archives of `docker save`: a `manifest.json` that lists configs, tags and layers.
//!
//! Such an archive has no image manifest, so svp creates one for the unchanged config, which keeps the image ID, and
//! the unchanged layers. The same archive gives the same manifest.

use std::collections::HashMap;
use std::io::{self, Read};

use serde::Deserialize;

use super::image_source::ImageSource;
use super::oci_layout::damaged;
use super::tarball::{Span, Tarball};
use crate::error::{Error, IoContext, Result};
use crate::layer::compress::{detect, read_full};
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST, parse};
use crate::oci::media_type::{CONFIG, Compression, MANIFEST};
use crate::oci::{Config, Descriptor, Digest, DigestReader, Manifest, Platform, Reference};

/// The file that identifies an archive of `docker save`.
pub(super) const MANIFEST_JSON: &str = "manifest.json";

/// One image of `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Item {
    /// Returns the names of the image in the archive.
    pub(super) fn tags(&self) -> impl Iterator<Item = &str> {
        self.repo_tags.iter().flatten().map(String::as_str)
    }

    /// Returns whether one of its names is `reference`, with or without Docker Hub's host.
    fn is_named(&self, reference: &str) -> bool {
        let full = |text: &str| {
            let reference = text.parse::<Reference>().ok()?;
            Some(reference.with_default_registry().tagged())
        };
        full(reference).is_some_and(|name| self.tags().any(|tag| full(tag).as_ref() == Some(&name)))
    }
}

/// Returns all images of the archive.
pub(super) fn items(tar: &Tarball) -> Result<Vec<Item>> {
    let shown = tar.path().display();
    let bytes = tar.read_small(MANIFEST_JSON, MAX_MANIFEST)?.ok_or_else(|| {
        Error::bad_input(format!(
            "{shown} has no {MANIFEST_JSON}: it is not an archive of docker save"
        ))
        .hint("for an archive of an OCI layout, write oci-archive:FILE")
    })?;
    parse(&bytes, &format!("{shown}: {MANIFEST_JSON}"))
}

/// Returns the image that `reference` names: `REPO:TAG`, or `@NUMBER` from 0; without a reference, the only one.
pub(super) fn choose(tar: &Tarball, reference: Option<&str>) -> Result<Item> {
    let shown = tar.path().display();
    let mut items = items(tar)?;
    let number =
        |text: &str| text.strip_prefix('@').and_then(|number| number.parse::<usize>().ok());
    let at = match reference {
        None if items.len() == 1 => Some(0),
        None => None,
        Some(text) => match number(text) {
            Some(number) => (number < items.len()).then_some(number),
            None => items.iter().position(|item| item.is_named(text)),
        },
    };
    if let Some(at) = at {
        return Ok(items.swap_remove(at));
    }
    let mut there: Vec<&str> = items.iter().flat_map(Item::tags).take(20).collect();
    if there.is_empty() {
        there.push("no named images; the first is @0");
    }
    let what = match reference {
        Some(name) => format!("no image {name:?}"),
        None => format!("{} images", items.len()),
    };
    Err(Error::bad_input(format!("{shown} has {what}")).hint(format!(
        "choose one by writing :REPO:TAG or :@NUMBER after the path; available: {}",
        there.join(", ")
    )))
}

/// An image in an archive.
pub(super) struct DockerArchiveSource<'a> {
    tar: &'a Tarball,
    blobs: HashMap<Digest, Span>,
    descriptor: Descriptor,
    manifest: Vec<u8>,
}

impl<'a> DockerArchiveSource<'a> {
    pub(super) fn open(tar: &'a Tarball, item: &Item) -> Result<Self> {
        let shown = tar.path().display();
        let find = |name: &str| {
            tar.find(name).ok_or_else(|| {
                Error::bad_input(format!("{shown} has no {name:?}, which its manifest names"))
                    .hint("the archive is damaged or cut off: save it again")
            })
        };
        let config = find(&item.config)?;
        let bytes = tar.read_small(&item.config, MAX_CONFIG)?.unwrap_or_default();
        let diff_ids = Config::parse(&bytes)?.diff_ids()?;
        let names = item.layers.as_deref().unwrap_or_default();
        if names.len() != diff_ids.len() {
            return Err(Error::bad_input(format!(
                "{shown} has {} layers and its config has {} diff IDs",
                names.len(),
                diff_ids.len()
            )));
        }
        let config_descriptor = Descriptor::of(CONFIG, &bytes);
        let mut blobs = HashMap::from([(config_descriptor.digest, config)]);
        let mut layers = Vec::new();
        for (name, diff_id) in names.iter().zip(diff_ids) {
            let span = find(name)?;
            let layer = descriptor_of(tar, span, diff_id)?;
            blobs.insert(layer.digest, span);
            layers.push(layer);
        }
        let manifest =
            Manifest { config: config_descriptor, layers, annotations: Default::default() }
                .encode();
        let descriptor = Descriptor::of(MANIFEST, &manifest);
        Ok(DockerArchiveSource { tar, blobs, descriptor, manifest })
    }
}

/// Returns the descriptor of a layer. A plain tar's digest is its diff ID, which is verified on reading; the digest of
/// a compressed layer is not recorded, so it is computed.
fn descriptor_of(tar: &Tarball, span: Span, diff_id: Digest) -> Result<Descriptor> {
    let mut head = [0; 6];
    let length = read_full(&mut tar.section(span), &mut head).io("read", tar.path())?;
    let compression = detect(&head[..length]);
    let digest = match compression {
        Compression::None => diff_id,
        _ => DigestReader::new(tar.section(span)).drain().io("read", tar.path())?.0,
    };
    Ok(Descriptor::new(compression.layer_media_type(), digest, span.size))
}

impl ImageSource for DockerArchiveSource<'_> {
    fn root(&self, _: &Platform) -> Result<(Descriptor, Vec<u8>)> {
        Ok((self.descriptor.clone(), self.manifest.clone()))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Err(Error::bad_input(format!("the archive has no manifest {}", descriptor.digest)))
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let Descriptor { digest, size, .. } = *descriptor;
        let span = self.blobs.get(&digest).copied().filter(|span| span.size == size);
        let span = span.ok_or_else(|| {
            let shown = self.tar.path().display();
            Error::bad_input(format!("the blob {digest} is not in {shown}"))
        })?;
        Ok(Box::new(DigestReader::expecting(self.tar.section(span), digest, Some(size))))
    }

    fn read_error(&self, error: io::Error) -> Error {
        damaged(error, self.tar.path())
    }
}
