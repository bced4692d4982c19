//! An image in a registry, pulled from its mirrors in order, then from the registry itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::blob::BlobReader;
use super::manifest::RawManifest;
use super::registries_conf::Endpoint;
use super::{Client, ClientOptions};
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Reference};

/// An image to pull, and its locations according to registries.conf.
///
/// The first location that has the image serves all of it. Blobs that are missing there come from later locations;
/// every blob is verified by its digest.
pub struct Remote {
    options: ClientOptions,
    reference: Reference,
    places: Vec<Result<Endpoint, Refused>>,
    /// The index of the location that had the image.
    chosen: AtomicUsize,
    strict: OnceLock<Client>,
    insecure: OnceLock<Client>,
}

/// A location that is skipped, and the reason.
struct Refused {
    kind: Kind,
    message: String,
    hint: String,
}

impl Remote {
    /// Finds the locations of the image `reference`, without sending anything.
    ///
    /// # Errors
    /// [`Kind::BadInput`] for an invalid registries.conf; [`Kind::Registry`] for an image that it blocks.
    pub fn new(options: ClientOptions, reference: &Reference) -> Result<Self> {
        let reference = reference.clone().with_default_registry();
        let places = options.registries.conf()?.pull_from(&reference);
        let places = places.into_iter().map(|place| place.map_err(Refused::from)).collect();
        let remote = Remote {
            options,
            reference,
            places,
            chosen: AtomicUsize::new(0),
            strict: OnceLock::new(),
            insecure: OnceLock::new(),
        };
        match remote.places.as_slice() {
            [Err(refused)] => Err(refused.error()),
            _ => Ok(remote),
        }
    }

    /// Fetches the manifest or index that the reference names.
    ///
    /// # Errors
    /// As [`Client::manifest`]. With several locations, the error of each.
    pub fn manifest(&self) -> Result<RawManifest> {
        let ask = |client: &Client, reference: &Reference| client.manifest(reference);
        let (manifest, chosen) = self.first(0, &ask)?;
        self.chosen.store(chosen, Ordering::Relaxed);
        Ok(manifest)
    }

    /// Returns the location that had the image: the registry, or a mirror of it.
    pub fn served_by(&self) -> Option<&Reference> {
        let place = self.places.get(self.chosen.load(Ordering::Relaxed))?;
        place.as_ref().ok().map(|endpoint| &endpoint.reference)
    }

    /// Fetches a manifest that the index of this image names.
    ///
    /// # Errors
    /// As [`Remote::manifest`].
    pub fn manifest_at(&self, digest: Digest) -> Result<RawManifest> {
        let from = self.chosen.load(Ordering::Relaxed);
        let ask =
            |client: &Client, reference: &Reference| client.manifest(&reference.at_digest(digest));
        self.first(from, &ask).map(|(manifest, _)| manifest)
    }

    /// Opens a blob of this image. A failure during the transfer is an error of the reader.
    ///
    /// # Errors
    /// As [`Remote::manifest`].
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader> {
        let from = self.chosen.load(Ordering::Relaxed);
        let ask = |client: &Client, reference: &Reference| client.blob(reference, digest, size);
        self.first(from, &ask).map(|(blob, _)| blob)
    }

    /// Returns the answer of the first location that succeeds, and its index; skips those before `from`.
    fn first<T>(
        &self,
        from: usize,
        ask: &dyn Fn(&Client, &Reference) -> Result<T>,
    ) -> Result<(T, usize)> {
        let mut failures = Vec::new();
        for (number, place) in self.places.iter().enumerate().skip(from) {
            let asked = match place {
                Ok(Endpoint { reference, insecure }) => {
                    self.client(*insecure).and_then(|client| ask(client, reference))
                }
                Err(refused) => Err(refused.error()),
            };
            match asked {
                Ok(answer) => return Ok((answer, number)),
                Err(error) if error.kind() == Kind::Registry => {
                    let name = place.as_ref().ok().map(|place| place.reference.to_string());
                    failures.push((name, error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.combined_error(failures))
    }

    /// Merges the errors of all locations.
    fn combined_error(&self, mut failures: Vec<(Option<String>, Error)>) -> Error {
        let Some((_, last)) = failures.pop() else {
            return Error::registry(format!("no location to pull {} from", self.reference));
        };
        if failures.is_empty() {
            return last;
        }
        let hint = last.hint_text().unwrap_or("check its mirrors in registries.conf").to_owned();
        let mirror = |(name, error): &(Option<String>, Error)| match name {
            Some(name) => format!("mirror {name}: {error}"),
            None => format!("mirror {error}"),
        };
        let mirrors: Vec<String> = failures.iter().map(mirror).collect();
        Error::registry(format!("{last}; earlier failures: {}", mirrors.join("; "))).hint(hint)
    }

    fn client(&self, insecure: bool) -> Result<&Client> {
        let slot = if insecure { &self.insecure } else { &self.strict };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = Client::trusting(self.options.clone(), insecure)?;
        Ok(slot.get_or_init(|| client))
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let hint = error.hint_text().unwrap_or_default().to_owned();
        Refused { kind: error.kind(), message: error.to_string(), hint }
    }
}

impl Refused {
    fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone()).hint(self.hint.clone())
    }
}
