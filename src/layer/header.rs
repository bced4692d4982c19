//! One header block of a tar: its fields, and the entry that it describes together with its extended headers.

use tar::Header;

use crate::error::{Context, Error, Result};
use crate::layer::entry::{Entry, EntryKind, Timestamp};
use crate::layer::path::show;
use crate::layer::pax::Pax;
use crate::layer::write::BLOCK;

/// Returns the entry that `header` describes, of type `flag`, with the fields that `pax` overrides.
///
/// # Errors
/// `BadInput` for types that a layer can't contain, and invalid numbers.
pub(super) fn entry(header: &Header, flag: u8, pax: Pax) -> Result<Entry> {
    let path = pax.path.unwrap_or_else(|| path(header));
    let kind = match flag {
        // In the oldest format, a directory is a file whose name ends in a slash.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        b'S' => {
            return Err(bad(&format!("has the sparse file {}", show(&path)))
                .hint("archive it again without tar's --sparse"));
        }
        _ => {
            let name = char::from(flag).escape_default();
            let error = bad(&format!("has {} of the unknown type '{name}'", show(&path)));
            return Err(match maker(flag) {
                Some(maker) => error.hint(maker),
                None => error,
            });
        }
    };
    let name = show(&path);
    let size = match (kind, pax.size) {
        (EntryKind::File, Some(size)) => size,
        (EntryKind::File, None) => size(header).context(&name)?,
        (EntryKind::Directory, _) if flag == 0 && size(header)? > 0 => {
            return Err(bad(&format!("has the directory {name} with content")));
        }
        // Entries of other types have no content, regardless of their size field.
        _ => 0,
    };
    if size > i64::MAX as u64 {
        return Err(bad(&format!("has {name} of {size} bytes")));
    }
    let old = header.as_old();
    let owner = |pax: Option<u64>, field: &[u8], what: &str| -> Result<u32> {
        let id = match pax {
            Some(id) => Some(id),
            // -1 as in a pax header.
            None => number(field)
                .map(|id| if id == -1 { 0 } else { id })
                .and_then(|id| u64::try_from(id).ok()),
        };
        id.and_then(|id| u32::try_from(id).ok())
            .filter(|&id| id != u32::MAX)
            .ok_or_else(|| bad(&format!("has {name} with an invalid {what}")))
    };
    let mtime = match pax.mtime {
        Some(mtime) => mtime,
        None => Timestamp {
            seconds: number(&old.mtime)
                .ok_or_else(|| bad(&format!("has {name} with an invalid time")))?,
            nanoseconds: 0,
        },
    };
    let (major, minor) = device(header, kind, &name)?;
    let mode = number(&old.mode).ok_or_else(|| bad(&format!("has {name} with an invalid mode")))?;
    Ok(Entry {
        kind,
        mode: (mode & 0o7777) as u32,
        uid: owner(pax.uid, &old.uid, "owner")?,
        gid: owner(pax.gid, &old.gid, "group")?,
        mtime,
        xattrs: pax.xattrs,
        link: match kind {
            EntryKind::HardLink | EntryKind::Symlink => {
                pax.linkpath.unwrap_or_else(|| until_nul(&old.linkname).to_vec())
            }
            _ => Vec::new(),
        },
        major,
        minor,
        size,
        path,
    })
}

/// Returns the path in a header. As in Go's reader, the prefix has 155 bytes in ustar, 131 in star's format; GNU's has
/// times in that place, unless they are no numbers: then it is a prefix that Go's writer once wrote.
fn path(header: &Header) -> Vec<u8> {
    let bytes = header.as_bytes();
    let prefix = match &bytes[257..265] {
        b"ustar  \0" => {
            let is_time = |field: &[u8]| field[0] == 0 || number(field).is_some();
            let prefix = until_nul(&bytes[345..500]);
            let times = is_time(&bytes[345..357]) && is_time(&bytes[357..369]);
            if times || !prefix.is_ascii() { &[] } else { prefix }
        }
        [b'u', b's', b't', b'a', b'r', 0, ..] if &bytes[508..] == b"tar\0" => {
            until_nul(&bytes[345..476])
        }
        [b'u', b's', b't', b'a', b'r', 0, ..] => until_nul(&bytes[345..500]),
        _ => &[],
    };
    let name = until_nul(&bytes[..100]);
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Returns a hint on where entries of a type come from that a layer can't contain.
fn maker(flag: u8) -> Option<&'static str> {
    Some(match flag {
        b'D' => "GNU tar's --incremental (-g) made it: archive the files again without that option",
        b'V' => "GNU tar's --label (-V) made it: archive the files again without that option",
        b'M' => "it is a part of GNU tar's --multi-volume (-M): archive the files again without it",
        b'N' => "a tar from before 1994 made it: archive the files again",
        b'A' | b'E' | b'X' => {
            "Solaris tar made it: archive the files with GNU tar, or with `pax -x pax`"
        }
        b'I' => "star made an entry with metadata only: archive the files again without -meta",
        _ => return None,
    })
}

fn device(header: &Header, kind: EntryKind, name: &str) -> Result<(u32, u32)> {
    if !matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        return Ok((0, 0));
    }
    let fields = header
        .as_ustar()
        .map(|ustar| (ustar.dev_major, ustar.dev_minor))
        .or_else(|| header.as_gnu().map(|gnu| (gnu.dev_major, gnu.dev_minor)));
    let part = |field: &[u8], bits: u32| number(field).filter(|&n| (0..1 << bits).contains(&n));
    // Linux: 12 bits of major, 20 of minor (include/linux/kdev_t.h).
    fields
        .and_then(|(major, minor)| Some((part(&major, 12)? as u32, part(&minor, 20)? as u32)))
        .ok_or_else(|| bad(&format!("has the device {name} with an invalid number")))
}

/// Returns the size in a header, in bytes.
///
/// # Errors
/// `BadInput` if it is negative or invalid.
pub(super) fn size(header: &Header) -> Result<u64> {
    number(&header.as_old().size)
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| bad("has an entry with a negative or invalid size"))
}

/// Parses a numeric field: octal, or GNU's base 256, which may be negative. `None` if it is neither, or exceeds
/// 64 bits.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field).and_then(|number| i64::try_from(number).ok());
    }
    // Two's complement in all bits but the first, big-endian.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, &byte) in field.iter().enumerate() {
        let byte = match at {
            0 if negative => byte,
            0 => byte & 0x7f,
            _ => byte,
        };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).ok()
}

/// Parses octal digits between spaces and NULs; an empty field counts as 0.
pub(super) fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
    if !digits[end..].iter().all(|byte| matches!(byte, b' ' | 0)) {
        return None;
    }
    digits[..end].iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Returns the sum of the header's bytes, with the checksum field taken as spaces.
pub(super) fn checksum(header: &Header) -> u64 {
    let bytes = header.as_bytes().iter().enumerate();
    bytes.map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte })).sum()
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// Returns the number of bytes that fill the last block of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// Creates an error about a tar.
pub(super) fn bad(what: &str) -> Error {
    Error::bad_input(format!("the tar {what}"))
}
