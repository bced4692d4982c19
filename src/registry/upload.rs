//! Pushes blobs that a registry lacks, and manifests (distribution-spec, "Push").
//!
//! A blob is uploaded in one request if the registry accepts that, which is fastest. Otherwise, or after a broken
//! connection, it is uploaded in chunks, so that a further failure costs at most one chunk. Registries and the proxies
//! before them limit the size of a chunk, with different answers: chunks shrink until they are accepted, and a registry
//! that takes none gets the blob in one request again.

use super::fault::{Fault, Retry};
use super::http::{Body, Method, Reopen, WriteRequest};
use super::manifest::RawManifest;
use super::response::Response;
use super::url::Url;
use super::{Client, retry, status};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Reference};

/// Chunk size in bytes at first, unless the registry requires larger chunks. ghcr.io accepts no larger ones.
const CHUNK: u64 = 4 << 20;
/// Chunks don't shrink below this size.
const SMALLEST_CHUNK: u64 = 64 << 10;
/// Maximum chunk size in bytes: a chunk is resent after a broken connection.
const LARGEST_CHUNK: u64 = 256 << 20;

/// How a blob got to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It already existed there.
    Present,
    /// Mounted from another repository of the registry.
    Mounted,
    /// It was uploaded.
    Sent,
}

/// An upload in progress at a registry.
struct Session {
    url: Url,
    /// The smallest chunk that the registry accepts, except for the last one.
    least: u64,
}

impl Client {
    /// Returns whether the repository of `reference` has the blob.
    fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool, Fault> {
        let send = WriteRequest { method: Method::Head, ..WriteRequest::default() };
        let path = format!("blobs/{}", blob.digest);
        let response = self.send(reference, &path, &send)?;
        match response.status {
            // A blob of another length is damaged: upload it, and let the registry verify the digest.
            200 => Ok(response.header("content-length").is_none_or(|n| n == blob.size.to_string())),
            404 => Ok(false),
            _ => Err(status::fault(response, "a blob")),
        }
    }

    /// Uploads a blob to the repository of `reference`, unless it exists there. `from` is another repository of the
    /// same registry that may have it.
    ///
    /// # Errors
    /// As [`Client::manifest`], and the errors of `content`.
    pub fn push_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: Option<&str>,
        content: &Reopen<'_>,
    ) -> Result<Pushed> {
        let reference = reference.clone().with_default_registry();
        let mut upload = Upload {
            client: self,
            reference: &reference,
            blob,
            content,
            way: Way::Whole,
            chunk: CHUNK,
            refused: None,
        };
        let begun = retry::run(self.options(), || {
            if self.has_blob(&reference, blob)? {
                return Ok(Err(Pushed::Present));
            }
            match upload.begin(from) {
                // The other repository is not readable, or the registry does not support mounting.
                Err(fault) if from.is_some() && matches!(fault.retry, Retry::Never) => {
                    upload.begin(None)
                }
                other => other,
            }
        });
        let mut session = match begun? {
            Ok(session) => session,
            Err(pushed) => return Ok(pushed),
        };
        let mut failures = 0;
        loop {
            let Err(failed) = upload.send(&mut session) else { return Ok(Pushed::Sent) };
            if let Some(fault) = upload.after(failed) {
                retry::pause(self.options(), fault, &mut failures)?;
            }
            let next = retry::run(self.options(), || upload.begin(None))?;
            session = match next {
                Ok(session) => session,
                Err(pushed) => return Ok(pushed),
            };
        }
    }

    /// Stores a manifest or an index under the tag (else the digest) of `reference`. Its blobs must exist there.
    ///
    /// # Errors
    /// As [`Client::manifest`].
    pub fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let reference = reference.clone().with_default_registry();
        let name = match reference.tag() {
            None if reference.digest().is_some() => manifest.digest.to_string(),
            _ => reference.tag_or_latest().to_owned(),
        };
        retry::run(self.options(), || {
            let send = WriteRequest {
                method: Method::Put,
                content_type: Some(&manifest.media_type),
                body: Body::Bytes(&manifest.bytes),
                ..WriteRequest::default()
            };
            let response = self.send(&reference, &format!("manifests/{name}"), &send)?;
            if !matches!(response.status, 200..=204) {
                return Err(status::push_fault(response, "a manifest"));
            }
            let server = response.url.authority();
            let stored = response.header("docker-content-digest").map(str::parse::<Digest>);
            response.discard();
            match stored {
                Some(Ok(stored)) if stored != manifest.digest => {
                    Err(Fault::permanent(Error::registry(format!(
                        "{server} stored another manifest: {stored}, not {}",
                        manifest.digest
                    ))))
                }
                _ => Ok(()),
            }
        })
    }
}

/// The upload of one blob.
struct Upload<'a> {
    client: &'a Client,
    reference: &'a Reference,
    blob: &'a Descriptor,
    content: &'a Reopen<'a>,
    way: Way,
    /// The size of a chunk in bytes, as far as the registry accepts it.
    chunk: u64,
    /// The way that the registry refused.
    refused: Option<Way>,
}

/// How the bytes of a blob are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one request.
    Whole,
    /// In chunks, which can be resumed.
    Chunks,
}

/// A failed attempt to send.
struct Failed {
    fault: Fault,
    way_refused: bool,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed { fault, way_refused: false }
    }
}

impl Upload<'_> {
    /// Starts an upload, or mounts the blob from the repository `from`.
    fn begin(&self, from: Option<&str>) -> Result<Result<Session, Pushed>, Fault> {
        let mut path = "blobs/uploads/".to_owned();
        if let Some(from) = from {
            path += &format!("?mount={}&from={from}", self.blob.digest);
        }
        let send = WriteRequest {
            method: Method::Post,
            body: Body::Bytes(b""),
            ..WriteRequest::default()
        };
        let response = self.client.send(self.reference, &path, &send)?;
        match response.status {
            201 if from.is_some() => {
                response.discard();
                Ok(Err(Pushed::Mounted))
            }
            202 => {
                let least = response.header("oci-chunk-min-length").and_then(|n| n.parse().ok());
                let least = least.unwrap_or(SMALLEST_CHUNK).clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
                let url = location(&response)?;
                response.discard();
                Ok(Ok(Session { url, least }))
            }
            _ => Err(status::push_fault(response, "a blob")),
        }
    }

    fn send(&mut self, session: &mut Session) -> Result<(), Failed> {
        if self.way == Way::Chunks {
            self.send_chunks(session)?;
            return self.finish(session, Body::Bytes(b""));
        }
        let whole = Body::Stream { content: self.content, from: 0, size: self.blob.size };
        self.finish(session, whole)
    }

    /// Chooses the way of the next attempt. Returns the fault if that attempt must wait, or is not worth making.
    fn after(&mut self, Failed { fault, way_refused }: Failed) -> Option<Fault> {
        if way_refused && self.refused.is_none() {
            self.refused = Some(self.way);
            self.way = if self.way == Way::Whole { Way::Chunks } else { Way::Whole };
            return None;
        }
        // After a broken connection the rest is sent in chunks, from the registry's offset.
        if self.refused != Some(Way::Chunks) {
            self.way = Way::Chunks;
        }
        Some(fault)
    }

    /// Sends the last request, which names the digest.
    fn finish(&self, session: &Session, body: Body<'_>) -> Result<(), Failed> {
        let url = session.url.with_query(&[("digest", &self.blob.digest.to_string())]);
        let whole = matches!(body, Body::Stream { .. });
        let send = WriteRequest {
            method: Method::Put,
            content_type: Some("application/octet-stream"),
            body,
            ..WriteRequest::default()
        };
        let response = self.client.send_to(self.reference, &url, &send)?;
        match response.status {
            201 | 204 => {
                response.discard();
                Ok(())
            }
            // A proxy limits the size of requests, or the registry supports only chunks.
            status if whole => {
                let fault = status::push_fault(response, "a blob");
                let way_refused = matches!(status, 405 | 411 | 501)
                    || status::is_about_size(status, fault.error.message());
                Err(Failed { fault, way_refused })
            }
            _ => Err(status::push_fault(response, "a blob").into()),
        }
    }

    fn send_chunks(&mut self, session: &mut Session) -> Result<(), Failed> {
        let (mut at, mut furthest) = (0, 0);
        let mut failures = 0;
        while at < self.blob.size {
            let size = self.chunk.max(session.least).min(self.blob.size - at);
            let (fault, too_large) = match self.send_chunk(session, at, size) {
                Ok(()) => {
                    at += size;
                    // A registry that loses what it has received must not be served forever.
                    if at > furthest {
                        (furthest, failures) = (at, 0);
                    }
                    continue;
                }
                Err(Refusal::TooLarge(fault)) => (fault, true),
                Err(Refusal::Unsupported(fault)) => {
                    return Err(Failed { fault, way_refused: true });
                }
                Err(Refusal::Other(fault)) if matches!(fault.retry, Retry::Never) => {
                    return Err(fault.into());
                }
                Err(Refusal::Other(fault)) => (fault, false),
            };
            let before = at;
            if too_large {
                if !self.shrink(session, size) {
                    return Err(Failed { fault, way_refused: true });
                }
                // Some registries end an upload with such a refusal.
                match self.received(session) {
                    Ok(received) => at = received,
                    Err(_) => {
                        if let Ok(new) = self.begin(None)? {
                            (*session, at) = (new, 0);
                        }
                    }
                }
                continue;
            }
            retry::pause(self.client.options(), fault, &mut failures).map_err(Fault::permanent)?;
            at = self.received(session)?;
            // A proxy that limits the size of requests may just cut the connection.
            if at == before {
                self.shrink(session, size);
            }
        }
        Ok(())
    }

    /// Halves the chunks after one of `size` bytes failed; returns false if the registry accepts no smaller ones.
    fn shrink(&mut self, session: &Session, size: u64) -> bool {
        let smaller = size / 2;
        if smaller < session.least {
            return false;
        }
        self.chunk = smaller;
        true
    }

    fn send_chunk(&self, session: &mut Session, at: u64, size: u64) -> Result<(), Refusal> {
        let range = format!("{at}-{}", at + size - 1);
        let send = WriteRequest {
            method: Method::Patch,
            content_type: Some("application/octet-stream"),
            content_range: Some(&range),
            body: Body::Stream { content: self.content, from: at, size },
            ..WriteRequest::default()
        };
        let sent = self.client.send_to(self.reference, &session.url, &send);
        let response = sent.map_err(Refusal::Other)?;
        let status = response.status;
        if matches!(status, 200..=204) {
            session.url = location(&response).map_err(Refusal::Other)?;
            response.discard();
            return Ok(());
        }
        let fault = status::push_fault(response, "a part of a blob");
        match status {
            _ if status::is_about_size(status, fault.error.message()) => {
                Err(Refusal::TooLarge(fault))
            }
            405 | 501 => Err(Refusal::Unsupported(fault)),
            // An earlier attempt transferred part of the chunk; else the chunk itself is refused.
            416 => match self.received(session) {
                Ok(received) if received != at => {
                    Err(Refusal::Other(Fault { retry: Retry::After(None), ..fault }))
                }
                _ => Err(Refusal::TooLarge(fault)),
            },
            _ => Err(Refusal::Other(fault)),
        }
    }

    /// Returns how many bytes of an interrupted upload the registry has.
    fn received(&self, session: &mut Session) -> Result<u64, Fault> {
        let send = WriteRequest { method: Method::Get, ..WriteRequest::default() };
        let response = self.client.send_to(self.reference, &session.url, &send)?;
        if !matches!(response.status, 200..=204) {
            return Err(status::push_fault(response, "the rest of a blob"));
        }
        if let Ok(url) = location(&response) {
            session.url = url;
        }
        let range = response.header("range").map(|range| range.trim_start_matches("bytes="));
        let last = range.and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
        // Registries report an empty range as 0-0: resend that byte; if it was stored, the chunk is refused.
        let at = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        response.discard();
        if at > self.blob.size {
            let error = Error::registry(format!("{} reports more bytes than sent", session.url));
            return Err(Fault::permanent(error));
        }
        Ok(at)
    }
}

/// A chunk that the registry did not accept.
enum Refusal {
    TooLarge(Fault),
    /// The registry takes no chunks.
    Unsupported(Fault),
    Other(Fault),
}

/// Returns the URL for the next request of an upload.
fn location(response: &Response) -> Result<Url, Fault> {
    let server = response.url.authority();
    let bad = |what: String| Fault::permanent(Error::registry(format!("{server} {what}")));
    let location = response
        .header("location")
        .ok_or_else(|| bad("accepts an upload without a Location".into()))?;
    let next = response
        .url
        .join(location)
        .map_err(|why| bad(format!("names an upload location that svp does not contact: {why}")))?;
    let sent = response.url.may_send_to(&next);
    sent.map_err(|why| {
        bad(format!("directs an upload to {next}, which svp does not contact: {why}"))
    })?;
    Ok(next)
}
