//! Pulls images from a source into the store.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Source;
use super::docker::RegistrySource;
use super::docker_archive::{self, DockerArchiveSource};
use super::image_source::ImageSource;
use super::layer::{Fetched, Transfers};
use super::lower_links;
use super::oci_archive::OciArchiveSource;
use super::oci_layout::OciLayoutSource;
use super::signature_policy::SignaturePolicy;
use super::tarball::Tarball;
use crate::error::{Context, Error, Kind, Result};
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Descriptor, Digest, Document, Image, Layer, Manifest, Platform, Reference};
use crate::progress::{ImageNote, Reporter, Step, Warning};
use crate::registry::{ClientOptions, Remote};
use crate::store::Store;

/// Maximum number of concurrent layer transfers.
const TRANSFERS: usize = 4;
/// Maximum depth of nested indexes.
const MAX_DEPTH: usize = 4;

/// When to contact the registry for an image that the store may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only if the store lacks it.
    Missing,
    /// Always; blobs in the store are not transferred again.
    #[default]
    Always,
    /// Always, but fall back to the store if the registry fails.
    Newer,
    /// Never.
    Never,
}

/// Options of a pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The platform that chooses the image of an index.
    pub platform: Platform,
    /// Whether to keep an index in the store whole, instead of choosing its image for the platform.
    pub whole: bool,
    /// When to contact the registry.
    pub policy: PullPolicy,
    /// Options of the registry client.
    pub client: ClientOptions,
    /// The policy that decides which images may be pulled.
    pub signature_policy: SignaturePolicy,
}

impl Default for PullOptions {
    fn default() -> Self {
        PullOptions {
            platform: Platform::host(),
            whole: false,
            policy: PullPolicy::default(),
            client: ClientOptions::default(),
            signature_policy: SignaturePolicy::from_env(None),
        }
    }
}

/// Copies the image `source` into the store and returns its manifest's descriptor. Tags nothing. Blobs in the store
/// are not transferred again; after a failure those layers stay that arrived whole, until a prune.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image, it does not match its digests, or the
/// policy rejects it; [`Kind::Registry`](crate::error::Kind::Registry) if the registry fails;
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub fn pull(
    source: &Source,
    store: &Store,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let bring = |image_source: &dyn ImageSource| {
        options.signature_policy.check(source, reporter)?;
        reporter.step(Step::Pull { source: source.to_string() });
        from_image_source(image_source, store, &options.platform, reporter).context(source)
    };
    match source {
        Source::Local(reference) => local(reference, store, options, reporter),
        Source::Docker(reference) => {
            let stored = match options.policy {
                PullPolicy::Always => None,
                _ => stored(store, reference, &options.platform),
            };
            let remote = || with_image_source(source, store, options, bring);
            match (options.policy, stored) {
                (PullPolicy::Missing | PullPolicy::Never, Some(stored)) => Ok(stored),
                (PullPolicy::Never, None) => Err(Error::bad_input(format!(
                    "the store has no image {reference}, and the pull policy forbids contacting a registry"
                ))
                .hint(format!("pull it first: `svp pull docker://{reference}`"))),
                (PullPolicy::Newer, Some(stored)) => match remote() {
                    Err(error) if error.kind() == Kind::Registry => {
                        reporter.warning(Warning::StoredImageUsed { reason: error.to_string() });
                        Ok(stored)
                    }
                    other => other,
                },
                (PullPolicy::Always | PullPolicy::Missing | PullPolicy::Newer, _) => remote(),
            }
        }
        _ => with_image_source(source, store, options, bring),
    }
}

/// Opens a source other than the store, and calls `work` with it.
fn with_image_source<T>(
    source: &Source,
    store: &Store,
    options: &PullOptions,
    work: impl FnOnce(&dyn ImageSource) -> Result<T>,
) -> Result<T> {
    match source {
        Source::Local(reference) => Err(Error::bad_input(format!("{reference} is in the store"))),
        Source::Docker(reference) => {
            work(&RegistrySource(Remote::new(options.client.clone(), reference)?))
        }
        Source::Oci { dir, reference } => work(&OciLayoutSource::open(dir, reference.as_deref())?),
        Source::OciArchive { file, reference } => {
            work(&OciArchiveSource::open(&Tarball::open(file, store)?, reference.as_deref())?)
        }
        Source::DockerArchive { file, reference } => {
            let tar = Tarball::open(file, store)?;
            let item = docker_archive::choose(&tar, reference.as_deref())?;
            work(&DockerArchiveSource::open(&tar, &item)?)
        }
    }
}

/// Returns an image in the store, or a whole index if the options request it.
fn local(
    reference: &Reference,
    store: &Store,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let named = store.resolve(reference)?.manifest;
    if options.whole {
        for image in store.images_of(&named)? {
            store.load_image(&image)?;
        }
        return Ok(named);
    }
    let chosen = store.choose(&named, &options.platform).context(reference)?;
    let image = store.load_image(&chosen)?;
    warn_if_other_platform(&image.config().platform(), &options.platform, reporter);
    Ok(chosen)
}

/// Pulls every image that `source` names into the store: those of all platforms, if it names an index. Returns their
/// manifests with their platforms, in the index's order. Skips entries that are not images.
///
/// # Errors
/// As [`pull`].
pub fn pull_all(
    source: &Source,
    store: &Store,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<Vec<Descriptor>> {
    if let Source::Local(reference) = source {
        let images = store.images_of(&store.resolve(reference)?.manifest)?;
        let with_platform = |image: Descriptor| {
            let platform = Some(store.load_image(&image)?.config().platform());
            Ok(Descriptor { platform, ..image })
        };
        return images.into_iter().map(with_platform).collect();
    }
    let all = |image_source: &dyn ImageSource| {
        options.signature_policy.check(source, reporter)?;
        reporter.step(Step::Pull { source: source.to_string() });
        let root = image_source.root(&options.platform)?;
        let mut images = Vec::new();
        all_from(image_source, store, root, MAX_DEPTH, reporter, &mut images)?;
        Ok(images)
    };
    with_image_source(source, store, options, |image_source| all(image_source).context(source))
}

fn all_from(
    image_source: &dyn ImageSource,
    store: &Store,
    (descriptor, bytes): (Descriptor, Vec<u8>),
    depth: usize,
    reporter: &dyn Reporter,
    images: &mut Vec<Descriptor>,
) -> Result<()> {
    match Document::parse(&bytes, descriptor.media_type.as_ref())? {
        Document::Manifest(manifest) => {
            let found = Found::new(descriptor, bytes, manifest);
            images.push(pull_image(image_source, store, found, None, reporter)?);
        }
        Document::Index(_) if depth == 0 => return Err(too_deep()),
        Document::Index(index) => {
            for entry in index.images() {
                let bytes = image_source.manifest(entry)?;
                all_from(image_source, store, (entry.clone(), bytes), depth - 1, reporter, images)?;
            }
            let others = index.manifests.len() - index.images().count();
            if others > 0 {
                reporter.note(ImageNote::EntriesSkipped { count: others }.into());
            }
        }
    }
    Ok(())
}

/// Returns a registry's image from the store, by its name or digest, if the store has all of it.
fn stored(store: &Store, reference: &Reference, platform: &Platform) -> Option<Descriptor> {
    let descriptor = match reference.digest() {
        None => store.tag(reference).ok()??.manifest,
        Some(digest) => by_digest(store, reference, digest)?,
    };
    let descriptor = store.choose(&descriptor, platform).ok()?;
    let image = store.load_image(&descriptor).ok()?;
    platform.rank(&image.config().platform())?;
    let whole =
        |layer: &Layer| store.blob_size(&layer.descriptor.digest) == Some(layer.descriptor.size);
    image.layers().iter().all(whole).then_some(descriptor)
}

/// Returns the store's copy of a digest: the blob itself, or the part of an index that was pulled.
fn by_digest(store: &Store, reference: &Reference, digest: Digest) -> Option<Descriptor> {
    let Ok(bytes) = store.read_blob_bounded(&digest, MAX_MANIFEST) else {
        return Some(store.tag(&reference.tag_of_digest()?).ok()??.manifest);
    };
    let media_type = match Document::parse(&bytes, "").ok()? {
        Document::Manifest(manifest) => manifest.media_type(),
        Document::Index(_) => "",
    };
    Some(Descriptor::new(media_type, digest, bytes.len() as u64))
}

pub(super) fn from_image_source(
    image_source: &dyn ImageSource,
    store: &Store,
    platform: &Platform,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let found = find_manifest(image_source, platform)?;
    pull_image(image_source, store, found, Some(platform), reporter)
}

/// A manifest found at its source.
struct Found {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    manifest: Manifest,
}

impl Found {
    fn new(mut descriptor: Descriptor, bytes: Vec<u8>, manifest: Manifest) -> Self {
        // If the media type was not announced, take it from the manifest.
        if !crate::oci::media_type::is_manifest(&descriptor.media_type) {
            descriptor.media_type = manifest.media_type().into();
        }
        Found { descriptor, bytes, manifest }
    }
}

/// Pulls the image of one manifest; warns if `wanted` is given and can't run it.
fn pull_image(
    image_source: &dyn ImageSource,
    store: &Store,
    found: Found,
    wanted: Option<&Platform>,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let Found { descriptor, bytes, manifest } = found;
    let config = image_source.read(&manifest.config, MAX_CONFIG)?;
    let image = Image::from_parts(&manifest, &config)?;
    let offered = image.config().platform();
    if let Some(wanted) = wanted {
        warn_if_other_platform(&offered, wanted, reporter);
    }
    let mut fetched = fetch_layers(image_source, store, image.layers(), reporter)?;
    lower_links::check(&image, &mut fetched, store)?;
    for layer in &fetched {
        layer.note(store)?;
    }
    store.put_blob(&config)?;
    store.put_blob(&bytes)?;
    if let Some(location) = image_source.location() {
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            store.add_blob_location(&blob.digest, &location);
        }
    }
    Ok(Descriptor {
        platform: Some(offered),
        ..Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size)
    })
}

fn warn_if_other_platform(offered: &Platform, wanted: &Platform, reporter: &dyn Reporter) {
    if wanted.rank(offered).is_none() {
        let (offered, wanted) = (offered.to_string(), wanted.to_string());
        reporter.warning(Warning::OtherPlatform { offered, wanted });
    }
}

/// Follows indexes down to the manifest for `platform`.
fn find_manifest(image_source: &dyn ImageSource, platform: &Platform) -> Result<Found> {
    let (mut descriptor, mut bytes) = image_source.root(platform)?;
    for _ in 0..MAX_DEPTH {
        match Document::parse(&bytes, descriptor.media_type.as_ref())? {
            Document::Manifest(manifest) => return Ok(Found::new(descriptor, bytes, manifest)),
            Document::Index(index) => {
                descriptor = index.select(platform)?.clone();
                bytes = image_source.manifest(&descriptor)?;
            }
        }
    }
    Err(too_deep())
}

fn too_deep() -> Error {
    Error::bad_input(format!("image indexes are nested more than {MAX_DEPTH} levels deep"))
}

/// Fetches the layers that the store lacks, several at once, and returns all of them.
fn fetch_layers(
    image_source: &dyn ImageSource,
    store: &Store,
    layers: &[Layer],
    reporter: &dyn Reporter,
) -> Result<Vec<Fetched>> {
    let mut seen: HashSet<(Digest, Digest)> = HashSet::new();
    let layers: Vec<&Layer> =
        layers.iter().filter(|l| seen.insert((l.descriptor.digest, l.diff_id))).collect();
    let transfers = Transfers { image_source, store, reporter, stop: AtomicBool::new(false) };
    let next = AtomicUsize::new(0);
    let fetched = Mutex::new(Ok(Vec::new()));
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed))
            && !transfers.stop.load(Ordering::Relaxed)
        {
            let result = transfers.fetch(layer);
            let mut fetched = fetched.lock().expect("no thread panics while locked");
            match (result, &mut *fetched) {
                (Ok(layer), Ok(list)) => list.push(layer),
                (Err(error), slot @ Ok(_)) => {
                    *slot = Err(error);
                    transfers.stop.store(true, Ordering::Relaxed);
                }
                // Report the first failure.
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..TRANSFERS.min(layers.len()) {
            scope.spawn(work);
        }
        work();
    });
    fetched.into_inner().expect("no thread panics while locked")
}
