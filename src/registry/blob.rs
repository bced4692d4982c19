//! Downloads blobs as a stream: enforces a minimum rate, resumes after a broken connection, and limits the size.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::Client;
use super::fault::{AT_FAULT, Fault};
use super::http::GetOptions;
use super::options::ClientOptions;
use super::response::Response;
use super::{retry, status};
use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};

/// A connection that delivered this many bytes before it broke resets the count of consecutive failures.
const PROGRESS: u64 = 1 << 20;

/// Reads exactly the requested bytes of a blob, over as many connections as necessary.
///
/// Does not verify the digest: wrap the reader in [`DigestReader`](crate::oci::DigestReader::expecting). Its I/O
/// errors wrap this library's [`Error`]; [`read_error`] extracts it.
pub struct BlobReader {
    client: Client,
    reference: Reference,
    digest: Digest,
    size: u64,
    position: u64,
    stream: Option<Stream>,
    failures: u32,
    /// Bytes delivered by the current connection.
    delivered: u64,
}

impl Client {
    /// Opens the blob `digest` of `size` bytes in the repository that `reference` names.
    ///
    /// Waits for the first response, so that a missing blob is an error of this call. [`read_error`] converts the
    /// errors of the reader.
    ///
    /// # Errors
    /// As [`Client::manifest`].
    pub fn blob(&self, reference: &Reference, digest: &Digest, size: u64) -> Result<BlobReader> {
        let reference = reference.clone().with_default_registry();
        BlobReader::open(self.clone(), reference, *digest, size)
    }
}

impl BlobReader {
    fn open(client: Client, reference: Reference, digest: Digest, size: u64) -> Result<Self> {
        let mut reader = BlobReader {
            client,
            reference,
            digest,
            size,
            position: 0,
            stream: None,
            failures: 0,
            delivered: 0,
        };
        let options = reader.client.options().clone();
        let stream = retry::run(&options, || reader.connect());
        reader.stream = Some(stream?);
        Ok(reader)
    }

    /// Opens a connection that continues at `position`.
    fn connect(&self) -> Result<Stream, Fault> {
        let options = self.client.options();
        let rest = self.size - self.position;
        let slowest = Duration::from_secs(rest / options.minimum_rate.max(1));
        let get = GetOptions {
            from: (self.position > 0).then_some(self.position),
            body_time: Some(slowest + options.rate_window),
            ..GetOptions::default()
        };
        let path = format!("blobs/{}", self.digest);
        let response = self.client.get(&self.reference, &path, get)?;
        let server = response.url.authority();
        let sends =
            |what: String| Fault::permanent(Error::registry(format!("{server} sends {what}")));
        let (skip, expected) = match response.status {
            200 => (self.position, self.size),
            206 if self.position > 0 => {
                self.check_range(&response).map_err(sends)?;
                (0, rest)
            }
            404 => {
                let error = format!("{server} does not have the blob");
                return Err(Fault::permanent(Error::registry(error).hint(
                    "the manifest names it: the image in the registry is damaged; push it again",
                )));
            }
            _ => return Err(status::fault(response, "a blob")),
        };
        if response.content_type().as_deref() == Some("text/html") {
            return Err(sends("a web page instead of a blob".into()));
        }
        if let Some(length) = response.content_length().filter(|length| *length != expected) {
            return Err(sends(format!("{length} bytes instead of {expected}")));
        }
        let endless = response.content_length().is_none();
        let mut stream = Stream::new(response, endless, options);
        stream.skip(skip).map_err(|error| Fault::of_io(&server, error))?;
        Ok(stream)
    }

    /// Checks that a 206 response has the requested range (RFC 9110, section 14.4).
    fn check_range(&self, response: &Response) -> Result<(), String> {
        let range = response.header("content-range").unwrap_or_default();
        let parsed = range.strip_prefix("bytes ").and_then(|range| {
            let (span, total) = range.split_once('/')?;
            let (first, last) = span.split_once('-')?;
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total))
        });
        match parsed {
            Some((first, last, total))
                if first == self.position
                    && last.checked_add(1) == Some(self.size)
                    && (total == "*" || total == self.size.to_string()) =>
            {
                Ok(())
            }
            _ => Err(format!("a different range of the blob than requested ({range:?})")),
        }
    }

    /// Handles a broken connection: backs off, or gives up after too many failures.
    fn failed(&mut self, fault: Fault) -> Result<()> {
        if self.delivered >= PROGRESS {
            self.failures = 0;
        }
        self.delivered = 0;
        self.stream = None;
        retry::pause(self.client.options(), fault, &mut self.failures)
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.connect() {
                    Ok(stream) => self.stream = Some(stream),
                    Err(fault) => self.failed(fault)?,
                }
                continue;
            };
            let rest = self.size - self.position;
            let most = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
            let server = stream.server.clone();
            let fault = match stream.read(&mut buf[..most]) {
                Ok(0) => Fault::of_io(&server, io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.position += n as u64;
                    self.delivered += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Fault::of_io(&server, error),
            };
            let at = format!("after {} of {} bytes", self.position, self.size);
            self.failed(Fault { error: fault.error.context(at), ..fault })?;
        }
    }

    /// Checks that the stream ends after the expected bytes.
    fn end(&mut self) -> Result<()> {
        let Some(mut stream) = self.stream.take().filter(|stream| stream.endless) else {
            return Ok(());
        };
        // The blob is complete, so a failure of the connection no longer matters.
        if matches!(stream.read(&mut [0]), Ok(1)) {
            let error =
                format!("{} sends more than the expected {} bytes", stream.server, self.size);
            return Err(Error::registry(error).hint(AT_FAULT));
        }
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let outcome =
            if self.position == self.size { self.end().map(|()| 0) } else { self.next(buf) };
        outcome.map_err(io::Error::other)
    }
}

/// Converts an error from reading a [`BlobReader`], directly or through a
/// [`DigestReader`](crate::oci::DigestReader), to one of [`Kind::Registry`](crate::error::Kind::Registry).
pub fn read_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Error::registry(format!(
            "the registry sends a wrong blob: {error}"
        ))
        .hint("try again; if this persists, the image in the registry is damaged: push it again"),
        Err(error) => Error::registry("the download failed").source(error),
    }
}

/// The body of one connection's response, which must arrive at a minimum rate.
struct Stream {
    body: ureq::BodyReader<'static>,
    server: String,
    /// Whether the server sent no length.
    endless: bool,
    least: u64,
    window: Duration,
    /// Time spent waiting for the server in this window; the caller's own processing time does not count.
    waited: Duration,
    received: u64,
}

impl Stream {
    fn new(response: Response, endless: bool, options: &ClientOptions) -> Self {
        let window = options.rate_window;
        Stream {
            server: response.url.authority(),
            body: response.into_reader(),
            endless,
            least: options.minimum_rate.saturating_mul(window.as_millis() as u64) / 1000,
            window,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            match self.read(&mut buffer[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => left -= n as u64,
            }
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        let n = self.body.read(buf)?;
        self.waited += started.elapsed();
        self.received += n as u64;
        if self.waited >= self.window {
            if n > 0 && self.received < self.least {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.waited = Duration::ZERO;
            self.received = 0;
        }
        Ok(n)
    }
}
