//! A response of a registry: its status, its headers, and its body, whose size is bounded.

use std::io::{self, Read};

use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};

use super::fault::{Fault, excerpt};
use super::url::Url;
use crate::error::Error;

/// Bodies up to this size are read to the end, so that the connection can be reused.
const SHORT: u64 = 16 << 10;

/// A response whose body has not been read yet.
pub(super) struct Response {
    /// The final URL after redirects.
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: ureq::Body,
}

impl Response {
    pub(super) fn new(url: Url, answer: ureq::http::Response<ureq::Body>) -> Result<Self, Fault> {
        let (parts, body) = answer.into_parts();
        let response =
            Response { url, status: parts.status.as_u16(), headers: parts.headers, body };
        match response.header(CONTENT_ENCODING.as_str()) {
            // Digests are computed over the bytes as sent, so refuse a Content-Encoding.
            Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
                Err(Fault::permanent(Error::registry(format!(
                    "{} sends the content encoding {:?}, which svp did not request",
                    response.url,
                    excerpt(coding, 40)
                ))))
            }
            _ => Ok(response),
        }
    }

    /// Returns a header's text; `None` if it is absent or not ASCII.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the media type of `Content-Type`, without parameters, in lower case.
    pub(super) fn content_type(&self) -> Option<String> {
        let value = self.header(CONTENT_TYPE.as_str())?;
        Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
    }

    /// Returns the length of the body, if the server sent it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// Reads the whole body, of at most `limit` bytes.
    pub(super) fn read(self, limit: u64, what: &str) -> Result<Vec<u8>, Fault> {
        let server = self.url.authority();
        let too_long = || {
            let error = format!("{server} sends more than {limit} bytes as {what}");
            Fault::permanent(Error::registry(error))
        };
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let expected = self.content_length();
        let mut bytes = Vec::new();
        self.into_reader()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Fault::of_io(&server, error))?;
        if bytes.len() as u64 > limit {
            return Err(too_long());
        }
        if expected.is_some_and(|expected| expected != bytes.len() as u64) {
            return Err(Fault::transient(Error::registry(format!("{server} cut the connection"))));
        }
        Ok(bytes)
    }

    /// Returns a reader of the body, without a limit.
    pub(super) fn into_reader(self) -> ureq::BodyReader<'static> {
        self.body.into_reader()
    }

    /// Reads a short body to its end, so that the connection can serve the next request.
    pub(super) fn discard(self) {
        if self.content_length().is_some_and(|length| length <= SHORT) {
            // A failure only means that the connection can't be reused.
            let _ = io::copy(&mut self.into_reader().take(SHORT), &mut io::sink());
        }
    }

    pub(super) fn redirect(&self) -> Result<Option<Url>, Fault> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let refused =
            |why: &str| Fault::permanent(Error::registry(format!("{} redirects {why}", self.url)));
        let location =
            self.header(LOCATION.as_str()).ok_or_else(|| refused("without a Location"))?;
        let next = self
            .url
            .join(location)
            .map_err(|why| refused(&format!("to a URL that svp does not follow: {why}")))?;
        self.url
            .may_send_to(&next)
            .map_err(|why| refused(&format!("to {next}, which svp does not follow: {why}")))?;
        Ok(Some(next))
    }
}
