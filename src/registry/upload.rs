//! Pushes blobs that a registry lacks, and manifests (distribution-spec, "Push").
//!
//! A blob is uploaded in one request if the registry accepts that, which is fastest. Otherwise, or after a broken
//! connection, it is uploaded in chunks, so that a further failure costs at most one chunk.

use super::fault::{Fault, Retry};
use super::http::{Body, Method, Reopen, WriteRequest};
use super::manifest::RawManifest;
use super::response::Response;
use super::url::Url;
use super::{Client, retry, status};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Reference};

/// Chunk size in bytes, unless the registry requires larger chunks.
const CHUNK: u64 = 8 << 20;
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
    chunk: u64,
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
    chunked: bool,
}

/// A failed attempt to send.
struct Failed {
    fault: Fault,
    /// Whether the registry refused to take the blob in one request.
    whole_refused: bool,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed { fault, whole_refused: false }
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
            // An earlier attempt transferred part of the chunk: retry from the registry's offset.
            416 => {
                let server = response.url.authority();
                let error = Error::registry(format!("{server} expects another upload offset"));
                Err(Fault::transient(error))
            }
            _ => Err(status::push_fault(response, "a part of a blob")),
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
