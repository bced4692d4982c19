//! Pushes blobs that a registry lacks, and manifests (distribution-spec, "Push").
//!
//! A blob is uploaded in one request if the registry accepts that, which is fastest. Otherwise, or after a broken
//! connection, it is uploaded in chunks, so that a further failure costs at most one chunk. `upload_plan` decides.

use log::debug;

use super::fault::{Fault, FaultKind, Retry};
use super::http::{Body, Method, Reopen, WriteRequest};
use super::manifest::RawManifest;
use super::response::Response;
use super::upload_plan::{Plan, Way};
use super::url::Url;
use super::{Client, retry, status};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Reference};

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
    /// The registry's `OCI-Chunk-Min-Length`.
    least_chunk: Option<u64>,
}

impl Client {
    /// Returns whether the repository of `reference` has the blob.
    fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool, Fault> {
        let send = WriteRequest { method: Method::Head, ..WriteRequest::default() };
        let path = format!("blobs/{}", blob.digest);
        let response = match self.send(reference, &path, &send) {
            // The answer to a HEAD has no words; the answer to the upload will.
            Err(fault) if fault.kind == FaultKind::Forbidden => return Ok(false),
            other => other?,
        };
        match response.status {
            // A blob of another length is damaged: upload it, and let the registry verify the digest.
            200 => Ok(response.header("content-length").is_none_or(|n| n == blob.size.to_string())),
            403 | 404 | 405 | 501 => Ok(false),
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
        let upload = Upload { client: self, reference: &reference, blob, content };
        let begun = retry::run(self.options(), || {
            if self.has_blob(&reference, blob)? {
                return Ok(Err(Pushed::Present));
            }
            match upload.begin(from) {
                // The other repository is not readable, or the registry does not support mounting.
                Err(_) if from.is_some() => upload.begin(None),
                other => other,
            }
        });
        let mut session = match begun? {
            Ok(session) => session,
            Err(pushed) => return Ok(pushed),
        };
        let mut plan = Plan::new();
        let mut failures = 0;
        loop {
            match upload.send(&mut session, &mut plan) {
                Ok(()) => return Ok(Pushed::Sent),
                Err(Stop::Restart) => {}
                Err(Stop::Fault(fault)) if plan.concerns(&fault) => {
                    debug!("blob {}: {}: trying another way", blob.digest, fault.error);
                    plan.change(fault).map_err(Fault::into_error)?;
                }
                Err(Stop::Fault(fault)) => {
                    plan.after_cut();
                    retry::pause(self.options(), fault, &mut failures)?;
                }
            }
            session = match retry::run(self.options(), || upload.begin(None))? {
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
}

/// Why an upload ended early.
enum Stop {
    Fault(Fault),
    /// It must start again, with another chunk size.
    Restart,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

impl Upload<'_> {
    /// Starts an upload, or mounts the blob from the repository `from`.
    fn begin(&self, from: Option<&str>) -> Result<Result<Session, Pushed>, Fault> {
        let path = "blobs/uploads/";
        let send = WriteRequest {
            method: Method::Post,
            body: Body::Bytes(b""),
            ..WriteRequest::default()
        };
        let response = match from {
            Some(from) => {
                let path = format!("{path}?mount={}&from={from}", self.blob.digest);
                self.client.send_mounting(self.reference, from, &path, &send)?
            }
            None => self.client.send(self.reference, path, &send)?,
        };
        match response.status {
            201 if from.is_some() => {
                response.discard();
                Ok(Err(Pushed::Mounted))
            }
            202 => {
                let least_chunk =
                    response.header("oci-chunk-min-length").and_then(|n| n.parse().ok());
                let url = location(&response)?;
                response.discard();
                Ok(Ok(Session { url, least_chunk }))
            }
            _ => Err(status::push_fault(response, "a blob")),
        }
    }

    fn send(&self, session: &mut Session, plan: &mut Plan) -> Result<(), Stop> {
        if let Some(least) = session.least_chunk {
            plan.require(least);
        }
        match plan.way() {
            Way::Whole => {
                let whole = Body::Stream { content: self.content, from: 0, size: self.blob.size };
                Ok(self.finish(session, whole)?)
            }
            Way::Chunks => {
                self.send_chunks(session, plan)?;
                Ok(self.finish(session, Body::Bytes(b""))?)
            }
            Way::Stream => {
                self.send_part(session, 0, self.blob.size, false)?;
                Ok(self.finish(session, Body::Bytes(b""))?)
            }
        }
    }

    /// Sends the last request, which names the digest.
    fn finish(&self, session: &Session, body: Body<'_>) -> Result<(), Fault> {
        let url = session.url.with_query(&[("digest", &self.blob.digest.to_string())]);
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
            _ => Err(refusal(response, "a blob")),
        }
    }

    fn send_chunks(&self, session: &mut Session, plan: &mut Plan) -> Result<(), Stop> {
        let (mut at, mut furthest) = (0, 0);
        let mut failures = 0;
        while at < self.blob.size {
            let size = plan.chunk().min(self.blob.size - at);
            let fault = match self.send_part(session, at, size, true) {
                Ok(next) => {
                    at = next;
                    // Only progress counts: a registry may lose what it has received, again and again.
                    if at > furthest {
                        (furthest, failures) = (at, 0);
                    }
                    continue;
                }
                Err(fault) => fault,
            };
            let refused = plan.concerns(&fault);
            let cut = fault.kind == FaultKind::Cut;
            if refused {
                let other_offset = match (&fault.kind, self.received(session)) {
                    (FaultKind::Status(416, _), Ok(now)) if now != at => Some(now),
                    (_, Ok(_)) => None,
                    // The registry has dropped the upload, or does not tell: start again.
                    (_, Err(_)) if plan.resize(&fault) => return Err(Stop::Restart),
                    (_, Err(_)) => return Err(fault.into()),
                };
                match other_offset {
                    // An earlier attempt transferred a part of the chunk.
                    Some(now) => {
                        let fault = Fault { retry: Retry::After(None), ..fault };
                        self.pause(fault, &mut failures)?;
                        at = now;
                    }
                    // The registry is where svp is: it refuses the size.
                    None if plan.resize(&fault) => {
                        debug!(
                            "blob {}: {}: chunks of {}",
                            self.blob.digest,
                            fault.error,
                            plan.chunk()
                        );
                    }
                    None => return Err(fault.into()),
                }
                continue;
            }
            self.pause(fault, &mut failures)?;
            match self.received(session) {
                Ok(now) => {
                    // Some proxies hang up on a request that is too large.
                    if cut && now <= at {
                        plan.shrink();
                    }
                    at = now;
                }
                // The registry has dropped the upload, or is still unreachable.
                Err(fault) => {
                    return Err(Fault { retry: Retry::After(None), ..fault }.into());
                }
            }
        }
        Ok(())
    }

    fn pause(&self, fault: Fault, failures: &mut u32) -> Result<(), Fault> {
        retry::pause(self.client.options(), fault, failures).map_err(Fault::permanent)
    }

    /// Sends `size` bytes from the offset `at`, with their range if `ranged`. Returns the registry's next offset.
    fn send_part(
        &self,
        session: &mut Session,
        at: u64,
        size: u64,
        ranged: bool,
    ) -> Result<u64, Fault> {
        let end = at + size;
        let range = format!("{at}-{}", end.saturating_sub(1));
        let send = WriteRequest {
            method: Method::Patch,
            content_type: Some("application/octet-stream"),
            content_range: ranged.then_some(&*range),
            body: Body::Stream { content: self.content, from: at, size },
            ..WriteRequest::default()
        };
        let response = self.client.send_to(self.reference, &session.url, &send)?;
        match response.status {
            200..=204 => {
                session.url = location(&response)?;
                // A registry may have stored only a part. Other ranges are mistakes: the next request will show.
                let stored = stored(&response).filter(|stored| at < *stored && *stored < end);
                response.discard();
                Ok(stored.unwrap_or(end))
            }
            _ => Err(refusal(response, "a part of a blob")),
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
        let at = stored(&response).unwrap_or(0);
        response.discard();
        if at > self.blob.size {
            let error = Error::registry(format!("{} reports more bytes than sent", session.url));
            return Err(Fault::permanent(error));
        }
        Ok(at)
    }
}

/// Returns how many bytes the registry has stored, if the response says so.
fn stored(response: &Response) -> Option<u64> {
    let range = response.header("range")?.trim().trim_start_matches("bytes=");
    let last = range.split_once('-')?.1.parse::<u64>().ok()?;
    // Registries report an empty range as 0-0: resend that byte; if it was stored, the chunk is refused.
    Some(if last > 0 { last.saturating_add(1) } else { 0 })
}

/// Creates the fault for a refused request of an upload.
fn refusal(response: Response, what: &str) -> Fault {
    let lost = response.status == 404;
    let fault = status::push_fault(response, what);
    // The repository exists, since the upload began: the registry has dropped the upload.
    if lost { Fault { retry: Retry::After(None), ..fault } } else { fault }
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
