//! Content digests, with readers and writers that compute and verify them on the fly.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// A sha256 digest: of a blob as stored, or, as a *diff ID*, of an uncompressed tar.
///
/// Grammar (image-spec, descriptor.md): `algorithm ":" encoded`. svp accepts `sha256:` and 64 lower-case
/// hexadecimal digits, and refuses other algorithms, which no image in practice uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Digest(Sha256::digest(bytes.as_ref()).into())
    }

    /// Returns the 64 hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(64);
        for byte in self.0 {
            out.push(DIGITS[usize::from(byte >> 4)].into());
            out.push(DIGITS[usize::from(byte & 15)].into());
        }
        out
    }

    /// Returns the first twelve hexadecimal digits, the customary short form.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::bad_input(format!("invalid digest {text:?}: {why}"));
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(bad("write it as sha256:HEX"));
        };
        if algorithm != "sha256" {
            return Err(bad("svp supports only sha256"));
        }
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("sha256 has 64 lower-case hexadecimal digits"));
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let nibble = |b: u8| (b as char).to_digit(16).expect("checked above") as u8;
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Digest(out))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Passes data through to `W`, counting and hashing it.
#[derive(Debug)]
pub struct DigestWriter<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> DigestWriter<W> {
    /// Creates a writer that hashes the data written to `inner`.
    pub fn new(inner: W) -> Self {
        DigestWriter { inner, hasher: Sha256::new(), size: 0 }
    }

    /// Returns the inner writer. Data written to it directly is not hashed.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns the inner writer, the digest and the number of bytes written.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes data through from `R`, counting and hashing it, and never past an expected size.
///
/// With [`DigestReader::expecting`], the end of the stream is an error on a mismatch of size or digest, so that a
/// consumer that reads to the end has verified the data; excess data is an error at its first byte.
pub struct DigestReader<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
    expected_size: Option<u64>,
    expected_digest: Option<Digest>,
    verified: bool,
}

impl<R: Read> DigestReader<R> {
    /// Creates a reader that hashes the data read from `inner`, without expectations.
    pub fn new(inner: R) -> Self {
        DigestReader {
            inner,
            hasher: Sha256::new(),
            size: 0,
            expected_size: None,
            expected_digest: None,
            verified: false,
        }
    }

    /// Creates a reader that fails at the end of `inner` unless its digest is `digest` and, if given, its size `size`.
    pub fn expecting(inner: R, digest: Digest, size: Option<u64>) -> Self {
        DigestReader { expected_size: size, expected_digest: Some(digest), ..Self::new(inner) }
    }

    /// Reads the rest; returns the digest and size of the whole.
    pub fn drain(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest(self.hasher.finalize().into()), self.size))
    }

    fn at_end(&mut self) -> io::Result<()> {
        if self.verified {
            return Ok(());
        }
        if let Some(size) = self.expected_size
            && size != self.size
        {
            return Err(invalid(format!("truncated: {} of {size} bytes", self.size)));
        }
        if let Some(expected) = self.expected_digest {
            let found = Digest(self.hasher.clone().finalize().into());
            if found != expected {
                return Err(invalid(format!("the digest is {found}, not {expected}")));
            }
        }
        self.verified = true;
        Ok(())
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buf)?;
        if n == 0 {
            self.at_end()?;
            return Ok(0);
        }
        self.size += n as u64;
        if let Some(size) = self.expected_size
            && self.size > size
        {
            return Err(invalid(format!("longer than the expected {size} bytes")));
        }
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn known_value_and_round_trip() {
        assert_eq!(Digest::of("abc").to_string(), ABC);
        assert_eq!(ABC.parse::<Digest>().unwrap(), Digest::of("abc"));
    }

    #[test]
    fn only_sha256_digests_are_accepted() {
        let cases = ["", "abc", "sha256:", "sha512:00", &ABC.to_uppercase(), &ABC[..70], "md5:x"];
        for text in cases {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_reader_enforces_size_and_digest() {
        let read = |bytes: &[u8], size| {
            DigestReader::expecting(bytes, Digest::of("abc"), size)
                .drain()
                .map_err(|e| e.to_string())
        };
        assert!(read(b"abc", Some(3)).is_ok());
        assert!(read(b"abc", None).is_ok());
        assert!(read(b"ab", Some(3)).unwrap_err().contains("truncated: 2 of 3"));
        assert!(read(b"abcd", Some(3)).unwrap_err().contains("longer than the expected 3"));
        assert!(read(b"abd", Some(3)).unwrap_err().contains("not sha256:ba78"));
    }
}
