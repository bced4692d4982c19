//! The header of a backup: image, time, svp version.
//!
//! It precedes the data in a form that decompressors skip, so that `zstd -dc FILE` and
//! `gzip -dc FILE` print exactly the script's output: in zstd a skippable frame (RFC 8878, 3.1.2),
//! in gzip a first member without data, with the header in its extra field (RFC 1952, 2.3.1.1). An uncompressed backup
//! has no header.

use std::io::{Cursor, Read, Write};

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};
use crate::layer::compress::{detect, read_full};
use crate::oci::Digest;
use crate::oci::media_type::Compression;

/// The version of the header's format.
const FORMAT: u32 = 1;
/// The maximum length of a header, which must fit in the extra field of a gzip header; bytes.
const LONGEST: usize = 32 << 10;
/// The magic number of the skippable frame: one of sixteen, of which zstd's own tools use the first ones.
const SKIPPABLE: [u8; 4] = [0x5b, 0x2a, 0x4d, 0x18];
/// A gzip header with only an extra field.
const GZIP_EXTRA: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
/// The ID of the subfield in the extra field.
const SUBFIELD: [u8; 2] = *b"SV";
/// An empty deflate stream, its CRC-32 and its length.
const GZIP_EMPTY: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The header of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    /// The version of the header's format; the field name identifies svp's header.
    pub svp_backup: u32,
    /// The service's name.
    pub service: String,
    /// The image's name at the time of the backup.
    pub image: String,
    /// The image's manifest.
    pub digest: Digest,
    /// The start of the backup, RFC 3339 in UTC.
    pub created: String,
    /// The version of svp.
    pub svp_version: String,
    /// The kind of data.
    pub content: Content,
}

/// The kind of data in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    /// The output of the pack's `bin/backup`.
    Script,
    /// A tar of the service's changed files and volumes, made by svp.
    Files,
}

impl Header {
    /// Creates a header with the current time.
    pub(crate) fn new(service: &str, image: &str, digest: Digest, content: Content) -> Header {
        Header {
            svp_backup: FORMAT,
            service: service.to_owned(),
            image: image.to_owned(),
            digest,
            created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            svp_version: env!("CARGO_PKG_VERSION").to_owned(),
            content,
        }
    }

    /// Writes the header for this compression; formats without room for a header get none.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn write(&self, compression: Compression, output: &mut dyn Write) -> Result<()> {
        let text = serde_json::to_vec(self).expect("plain data");
        let length = text.len();
        if length > LONGEST {
            return Err(Error::bad_input("the names of the service and its image are too long"));
        }
        let bytes = match compression {
            Compression::None => return Ok(()),
            Compression::Zstd => {
                [&SKIPPABLE[..], &(length as u32).to_le_bytes(), &text[..]].concat()
            }
            Compression::Gzip => {
                let extra = (length as u16 + 4).to_le_bytes();
                let length = (length as u16).to_le_bytes();
                [&GZIP_EXTRA[..], &extra, &SUBFIELD, &length, &text, &GZIP_EMPTY].concat()
            }
        };
        output.write_all(&bytes).io("write", "the backup")
    }
}

/// The beginning of a backup: its header, if any, and its compression.
#[derive(Debug)]
pub(crate) struct BackupStart {
    /// The header, if there is one.
    pub header: Option<Header>,
    /// How the data is compressed, by its magic number.
    pub compression: Compression,
    /// The bytes read so far.
    read: Vec<u8>,
}

impl BackupStart {
    /// Reads the beginning of a backup; its compression is `given`, or detected by magic number.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for an empty backup, another compression, or a header that this
    /// svp can't read; [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn read(input: &mut dyn Read, given: Option<Compression>) -> Result<BackupStart> {
        let mut head = vec![0; 16];
        let length = read_full(input, &mut head).io("read", "the backup")?;
        head.truncate(length);
        if head.is_empty() {
            return Err(Error::bad_input("the backup is empty"));
        }
        let begun = [&SKIPPABLE[..], &GZIP_EXTRA].iter().any(|whole| whole.starts_with(&head));
        if begun && given.is_none() {
            return Err(Error::bad_input("the backup is cut off")
                .hint("if it is not compressed, add --compression none"));
        }
        let found = detect(&head);
        if let Some((what, tool)) = foreign(&head)
            && given.is_none()
        {
            return Err(Error::bad_input(format!("the backup is compressed with {what}")).hint(format!(
                "`{tool} -dc FILE | svp restore NAME`; if bin/backup itself compresses, add --compression none"
            )));
        }
        if given.is_some_and(|given| given != Compression::None && given != found) {
            return Err(Error::bad_input(match found {
                Compression::None => "the backup is not compressed".to_owned(),
                _ => format!("the backup is compressed with {found}"),
            })
            .hint("without --compression svp detects the format from the first bytes"));
        }
        let compression = given.unwrap_or(found);
        // Offset and length of the header's text.
        let position = match (compression, &head[..]) {
            (Compression::Zstd, [a, b, c, d, sizes @ ..])
                if [*a, *b, *c, *d] == SKIPPABLE && sizes.len() >= 4 =>
            {
                let length = u32::from_le_bytes([sizes[0], sizes[1], sizes[2], sizes[3]]);
                Some((8, length as usize))
            }
            (Compression::Gzip, [.., s, v, low, high])
                if head.len() == 16 && head[3] == 4 && [*s, *v] == SUBFIELD =>
            {
                Some((16, usize::from(u16::from_le_bytes([*low, *high]))))
            }
            _ => None,
        };
        let mut header = None;
        if let Some((start, length)) = position.filter(|(_, length)| *length <= LONGEST) {
            let mut rest = vec![0; (start + length).saturating_sub(head.len())];
            let found = read_full(input, &mut rest).io("read", "the backup")?;
            head.extend_from_slice(&rest[..found]);
            let text = head.get(start..start + length);
            header = text.and_then(parse).transpose()?;
        }
        Ok(BackupStart { header, compression, read: head })
    }

    /// Returns a reader of the whole backup, with the bytes that were read already.
    pub(crate) fn rejoin<R: Read>(self, rest: R) -> impl Read + use<R> {
        Cursor::new(self.read).chain(rest)
    }
}

/// Detects a compression that svp can't read, by its magic number; returns its name and tool.
fn foreign(head: &[u8]) -> Option<(&'static str, &'static str)> {
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(("xz", "xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => {
            Some(("bzip2", "bzip2"))
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => Some(("lz4", "lz4")),
        _ => None,
    }
}

/// Parses a header; `None` for another program's data in that position.
fn parse(text: &[u8]) -> Option<Result<Header>> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let format = value.get("svpBackup")?.as_u64()?;
    if format != u64::from(FORMAT) {
        return Some(Err(Error::bad_input("the backup was made by a newer svp")
            .hint("restore it with that version")));
    }
    let damaged = || Error::bad_input("the header of the backup is damaged");
    let header = serde_json::from_value(value).map_err(|error| damaged().source(error));
    Some(header.and_then(|header: Header| {
        // These are printed to terminals.
        let texts = [&header.service, &header.image, &header.created, &header.svp_version];
        match texts.iter().any(|text| text.chars().any(char::is_control)) {
            true => Err(damaged()),
            false => Ok(header),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::compress::{Encoder, decoder};
    use crate::layer::settings::Settings;

    fn header() -> Header {
        Header::new("h1", "hello-1:latest", Digest::of(b"x"), Content::Script)
    }

    fn backup(compression: Compression, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header().write(compression, &mut out).unwrap();
        let settings = Settings::new(compression, None).unwrap();
        let mut encoder = Encoder::new(out, settings, 1).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_header_is_read_back_and_is_not_part_of_the_data() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            for data in [&b""[..], b"data", &[7; 300_000]] {
                let bytes = backup(compression, data);
                let mut input = &bytes[..];
                let head = BackupStart::read(&mut input, None).unwrap();
                assert_eq!(head.compression, compression);
                assert_eq!(head.header.as_ref().unwrap().image, "hello-1:latest");
                let rest = input.to_vec();
                let mut out = Vec::new();
                let whole = head.rejoin(Cursor::new(rest));
                decoder(whole, compression).unwrap().read_to_end(&mut out).unwrap();
                assert_eq!(out, data);
            }
        }
    }

    #[test]
    fn a_backup_without_a_header_is_accepted() {
        let plain = backup(Compression::None, b"x");
        assert_eq!(plain, b"x");
        let others: [&[u8]; 6] = [
            &plain,
            &[0x28, 0xb5, 0x2f, 0xfd],
            &[0x1f, 0x8b, 8, 0, 0, 0],
            &[0x5b, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff],
            &[0x5b, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, b'{', b'}'],
            b"SVSVSVSVSVSVSVSVSVSV",
        ];
        for bytes in others {
            let mut input = bytes;
            let head = BackupStart::read(&mut input, None).unwrap();
            assert_eq!(head.header, None, "{bytes:?}");
            let mut again = Vec::new();
            head.rejoin(input).read_to_end(&mut again).unwrap();
            assert_eq!(again, bytes);
        }
        for cut in [&b""[..], b"[", &SKIPPABLE, &GZIP_EXTRA[..7]] {
            assert!(BackupStart::read(&mut &cut[..], None).is_err());
        }
        for other in [&b"\xfd7zXZ\0..."[..], b"BZh91AY&SY...", b"\x04\x22\x4d\x18..."] {
            let error = BackupStart::read(&mut &other[..], None).unwrap_err();
            assert!(error.hint_text().unwrap().contains("-dc FILE"), "{error}");
            assert!(BackupStart::read(&mut &other[..], Some(Compression::None)).is_ok());
            assert!(BackupStart::read(&mut &other[..], Some(Compression::Zstd)).is_err());
        }
        let given = BackupStart::read(&mut &b"["[..], Some(Compression::None)).unwrap();
        assert_eq!(given.compression, Compression::None);
    }

    #[test]
    fn a_header_of_another_version_or_a_damaged_one_is_an_error() {
        let mut odd = header();
        odd.service = "\x1b[2J".to_owned();
        let odd = serde_json::to_string(&odd).unwrap();
        for text in [r#"{"svpBackup":2}"#, r#"{"svpBackup":1,"image":3}"#, &odd] {
            let length = (text.len() as u32).to_le_bytes();
            let bytes = [&SKIPPABLE[..], &length, text.as_bytes()].concat();
            assert!(BackupStart::read(&mut &bytes[..], None).is_err(), "{text}");
        }
    }
}
