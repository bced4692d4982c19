//! The push side (distribution-spec, "Push"): blobs that a registry lacks, and manifests.
//!
//! A blob is uploaded in one request if the registry accepts that, which is fastest. Otherwise, or after the
//! connection was cut, it goes in chunks, each of which survives the next cut.

use super::fault::{Fault, Retry};
use super::http::{Body, Method, Reopen, WriteRequest};
use super::manifest::RawManifest;
use super::response::Response;
use super::url::Url;
use super::{Client, retry, status};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Reference};

/// Chunk size in bytes, unless the registry asks for larger chunks.
const CHUNK: u64 = 8 << 20;
/// Maximum chunk size: a chunk is resent after a broken connection.
const LARGEST_CHUNK: u64 = 256 << 20;

/// How a blob came to be at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// Mounted from another repository of the registry.
    Mounted,
    /// It was sent.
    Sent,
}

/// An upload that a registry has begun.
struct Session {
    url: Url,
    chunk: u64,
}

impl Client {
    /// Whether the repository of `reference` has the blob.
    fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool, Fault> {
        let send = WriteRequest { method: Method::Head, ..WriteRequest::default() };
        let path = format!("blobs/{}", blob.digest);
        let response = self.send(reference, &path, &send)?;
        match response.status {
            // A blob of another length can't be ours: let the registry judge the upload.
            200 => Ok(response.header("content-length").is_none_or(|n| n == blob.size.to_string())),
            404 => Ok(false),
            _ => Err(status::fault(response, "a blob")),
        }
    }

    /// Uploads a blob to the repository of `reference`, unless it exists there. `from` is another repository of the
    /// same registry that may have it.
    ///
    /// # Errors
    /// As [`Client::manifest`]; those of `content`.
    pub fn push_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: Option<&str>,
        content: &Reopen<'_>,
    ) -> Result<Pushed> {
        let reference = reference.clone().with_default_registry();
        let mut upload =
            Upload { client: self, reference: &reference, blob, content, chunked: false };
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
            let Err(fault) = upload.send(&mut session) else { return Ok(Pushed::Sent) };
            let Failed { fault, whole_refused } = fault;
            if whole_refused && !upload.chunked {
                upload.chunked = true;
            } else {
                // After a broken connection the rest is sent in chunks, from the registry's offset.
                upload.chunked = true;
                retry::pause(self.options(), fault, &mut failures)?;
            }
            let next = retry::run(self.options(), || upload.begin(None))?;
            session = match next {
                Ok(session) => session,
                Err(pushed) => return Ok(pushed),
            };
        }
    }

    /// Makes the tag (else the digest) of `reference` stand for a manifest or an index, whose blobs must be there.
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

/// One blob on its way.
struct Upload<'a> {
    client: &'a Client,
    reference: &'a Reference,
    blob: &'a Descriptor,
    content: &'a Reopen<'a>,
    chunked: bool,
}

/// A failed attempt to send.
struct Failed {
    fault: Fault,
    /// The registry does not take a blob in one piece.
    whole_refused: bool,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed { fault, whole_refused: false }
    }
}

impl Upload<'_> {
    /// Asks for an upload, or for the blob of the repository `from`.
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
                let chunk = least.unwrap_or(CHUNK).clamp(CHUNK, LARGEST_CHUNK);
                let url = location(&response)?;
                response.discard();
                Ok(Ok(Session { url, chunk }))
            }
            _ => Err(status::push_fault(response, "a blob")),
        }
    }

    fn send(&self, session: &mut Session) -> Result<(), Failed> {
        if self.chunked {
            self.send_chunks(session)?;
            return self.finish(session, Body::Bytes(b""));
        }
        let whole = Body::Stream { content: self.content, from: 0, size: self.blob.size };
        self.finish(session, whole)
    }

    /// The last request, which names the digest.
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
            // A proxy's bound on requests, or a registry that knows chunks alone.
            405 | 411 | 413 | 501 if whole => {
                Err(Failed { fault: status::push_fault(response, "a blob"), whole_refused: true })
            }
            _ => Err(status::push_fault(response, "a blob").into()),
        }
    }

    fn send_chunks(&self, session: &mut Session) -> Result<(), Fault> {
        let mut at = 0;
        let mut failures = 0;
        while at < self.blob.size {
            let size = session.chunk.min(self.blob.size - at);
            match self.send_chunk(session, at, size) {
                Ok(()) => {
                    at += size;
                    failures = 0;
                }
                Err(fault) => {
                    let passing = !matches!(fault.retry, Retry::Never);
                    if !passing {
                        return Err(fault);
                    }
                    retry::pause(self.client.options(), fault, &mut failures)
                        .map_err(Fault::permanent)?;
                    at = self.received(session)?;
                }
            }
        }
        Ok(())
    }

    fn send_chunk(&self, session: &mut Session, at: u64, size: u64) -> Result<(), Fault> {
        let range = format!("{at}-{}", at + size - 1);
        let send = WriteRequest {
            method: Method::Patch,
            content_type: Some("application/octet-stream"),
            content_range: Some(&range),
            body: Body::Stream { content: self.content, from: at, size },
            ..WriteRequest::default()
        };
        let response = self.client.send_to(self.reference, &session.url, &send)?;
        match response.status {
            200..=204 => {
                session.url = location(&response)?;
                response.discard();
                Ok(())
            }
            // An earlier attempt transferred a part: ask for the offset.
            416 => {
                let error = Error::registry(format!("{} lost count", response.url.authority()));
                Err(Fault::transient(error))
            }
            _ => Err(status::push_fault(response, "a part of a blob")),
        }
    }

    /// How many bytes the registry has of an upload that was cut.
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
        // An empty range is reported as 0-0: that byte is resent, and refused if it was stored.
        let at = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        response.discard();
        if at > self.blob.size {
            let error = Error::registry(format!("{} has more than was sent", session.url));
            return Err(Fault::permanent(error));
        }
        Ok(at)
    }
}

/// The URL for the next request of an upload.
fn location(response: &Response) -> Result<Url, Fault> {
    let server = response.url.authority();
    let lies = |what: String| Fault::permanent(Error::registry(format!("{server} {what}")));
    let location = response
        .header("location")
        .ok_or_else(|| lies("takes an upload and does not say where".into()))?;
    let next = response
        .url
        .join(location)
        .map_err(|why| lies(format!("wants an upload sent where svp does not go: {why}")))?;
    let sent = response.url.may_send_to(&next);
    sent.map_err(|why| lies(format!("wants an upload sent to {next}: {why}")))?;
    Ok(next)
}
