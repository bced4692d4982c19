//! Pushes an image to a registry: only the missing blobs, the manifest last.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use log::debug;

use crate::error::{Context, Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::oci::json::MAX_MANIFEST;
use crate::oci::media_type::INDEX;
use crate::oci::{Descriptor, Digest, Document, Image, Reference};
use crate::progress::{Direction, Event, Reporter, Step, Transfer};
use crate::registry::{Client, ClientOptions, Pushed, RawManifest};
use crate::store::Store;

/// Maximum number of concurrent blob transfers.
const TRANSFERS: usize = 4;
/// Maximum number of tags of the same registry that are searched for a repository to mount from.
const MOST_TAGS: usize = 1000;
/// The label with the name of an image's base.
const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// Pushes the image or index `descriptor` as `reference`, unchanged, so that all digests stay the same. Pushes the
/// images of an index first, by digest.
///
/// Mounts blobs from another repository of the same registry, if the registry allows that: one that they were pulled
/// from or pushed to, that of the base, or that of another image in the store.
///
/// # Errors
/// [`Kind::Registry`] if the registry fails or refuses; [`Kind::BadInput`] if a blob is missing in the store or
/// damaged.
pub fn push(
    descriptor: &Descriptor,
    reference: &Reference,
    store: &Store,
    options: &ClientOptions,
    reporter: &dyn Reporter,
) -> Result<()> {
    let reference = reference.clone().with_default_registry();
    let (digest, destination) = (descriptor.digest.to_string(), format!("docker://{reference}"));
    reporter.step(Step::Push { digest, destination });
    for blob in store.image_blobs(descriptor)? {
        check_size(store, &blob)?;
    }
    let client = Client::for_push(options.clone(), &reference)?;
    match store.load_document(descriptor)? {
        Document::Manifest(_) => push_image(descriptor, &reference, store, &client, reporter),
        Document::Index(index) => {
            for image in &index.manifests {
                let name = reference.at_digest(image.digest);
                push_image(image, &name, store, &client, reporter)?;
            }
            push_manifest(descriptor, INDEX, &reference, store, &client)
        }
    }
}

fn push_image(
    descriptor: &Descriptor,
    reference: &Reference,
    store: &Store,
    client: &Client,
    reporter: &dyn Reporter,
) -> Result<()> {
    let image = store.load_image(descriptor)?;
    let blobs: Vec<Descriptor> = store.image_blobs(descriptor)?.into_iter().skip(1).collect();
    let push = Push {
        store,
        reporter,
        client,
        reference,
        mounts: mounts(store, reference, &image, &blobs)?,
        stop: AtomicBool::new(false),
    };
    push.all(&blobs).context(format!("docker://{reference}"))?;
    for blob in &blobs {
        store.add_blob_location(&blob.digest, reference);
    }
    let media_type = store.load_manifest(descriptor)?.media_type();
    push_manifest(descriptor, media_type, reference, store, client)
}

/// Pushes a manifest or an index; `media_type` applies if the document has none.
fn push_manifest(
    descriptor: &Descriptor,
    media_type: &str,
    reference: &Reference,
    store: &Store,
    client: &Client,
) -> Result<()> {
    interrupt::check()?;
    let bytes = store.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
    let own = descriptor.media_type.as_ref();
    let media_type = if own.is_empty() { media_type } else { own }.to_owned();
    let manifest = RawManifest { bytes, media_type, digest: descriptor.digest };
    client.push_manifest(reference, &manifest).context(format!("docker://{reference}"))
}

/// Checks the size of a blob in advance: a registry would refuse it only after the whole transfer.
fn check_size(store: &Store, blob: &Descriptor) -> Result<()> {
    match store.blob_size(&blob.digest) {
        Some(size) if size == blob.size => Ok(()),
        Some(_) => Err(store.damaged(&blob.digest)),
        None => store.open_blob(&blob.digest).map(drop),
    }
}

/// Returns, for each blob, another repository of the registry that should have it, as far as the store knows.
fn mounts(
    store: &Store,
    target: &Reference,
    image: &Image,
    blobs: &[Descriptor],
) -> Result<HashMap<Digest, String>> {
    let elsewhere = |name: &Reference| {
        name.registry() == target.registry() && name.repository() != target.repository()
    };
    let location = |blob: &Descriptor| {
        let location = store.blob_locations(&blob.digest).into_iter().find(elsewhere)?;
        Some((blob.digest, location.repository().to_owned()))
    };
    let mut mounts: HashMap<Digest, String> = blobs.iter().filter_map(location).collect();
    if mounts.len() == blobs.len() {
        return Ok(mounts);
    }
    let mut looked_at = 0;
    for record in store.tags()? {
        let Ok(record) = record else { continue };
        let Ok(name) = record.reference() else { continue };
        if !elsewhere(&name) || looked_at >= MOST_TAGS {
            continue;
        }
        looked_at += 1;
        if let Ok(manifest) = store.load_manifest(&record.manifest) {
            for layer in &manifest.layers {
                let repository = || name.repository().to_owned();
                mounts.entry(layer.digest).or_insert_with(repository);
            }
        }
    }
    // The base may come from this registry. Its layers are the lowest; their number is unknown, so try it for all.
    let base = image.config().label(BASE_NAME).and_then(|name| name.parse::<Reference>().ok());
    if let Some(base) = base.map(Reference::with_default_registry).filter(elsewhere) {
        for layer in image.layers() {
            let repository = || base.repository().to_owned();
            mounts.entry(layer.descriptor.digest).or_insert_with(repository);
        }
    }
    Ok(mounts)
}

/// State shared by the transfers of one push.
struct Push<'a> {
    store: &'a Store,
    reporter: &'a dyn Reporter,
    client: &'a Client,
    reference: &'a Reference,
    mounts: HashMap<Digest, String>,
    /// Set when one transfer has failed, so that the others stop.
    stop: AtomicBool,
}

impl Push<'_> {
    fn all(&self, blobs: &[Descriptor]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let work = || {
            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed))
                && !self.stop.load(Ordering::Relaxed)
            {
                if let Err(error) = self.one(blob) {
                    self.stop.store(true, Ordering::Relaxed);
                    // Report the first failure.
                    failed.lock().expect("no thread panics while locked").get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..TRANSFERS.min(blobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        failed.into_inner().expect("no thread panics while locked").map_or(Ok(()), Err)
    }

    fn one(&self, blob: &Descriptor) -> Result<()> {
        let digest = &blob.digest.to_string();
        let report = |done| {
            let (direction, total) = (Direction::Push, Some(blob.size));
            self.reporter.event(Event::Transfer(Transfer { digest, direction, done, total }));
        };
        let begun = AtomicBool::new(false);
        let content = |from: u64| -> Result<Box<dyn Read + Send>> {
            begun.store(true, Ordering::Relaxed);
            let mut file = self.store.open_blob(&blob.digest)?;
            file.seek(SeekFrom::Start(from)).io("read", self.store.blob_path(&blob.digest))?;
            report(from);
            Ok(Box::new(Interruptible(file)))
        };
        let from = self.mounts.get(&blob.digest).map(String::as_str);
        let pushed = self.client.push_blob(self.reference, blob, from, &content);
        let pushed = match pushed {
            Err(_) if interrupt::requested() => return Err(interrupt::error()),
            Err(error) if error.kind() == Kind::Registry => {
                // The registry may have refused the blob because the store's copy is damaged.
                if begun.into_inner() && self.store.is_damaged(blob) {
                    return Err(self.store.damaged(&blob.digest));
                }
                return Err(error.context(format!("blob {}", blob.digest.short())));
            }
            other => other?,
        };
        debug!("blob {digest}: {pushed:?}");
        if pushed != Pushed::Sent {
            report(blob.size);
        }
        self.reporter.event(Event::Transferred { digest });
        Ok(())
    }
}

/// A reader that fails once svp is interrupted.
struct Interruptible<R>(R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if interrupt::requested() {
            return Err(io::Error::other(Error::new(Kind::Interrupted, "interrupted")));
        }
        self.0.read(buf)
    }
}
