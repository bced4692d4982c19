//! Writes a layer's tar: ustar headers, preceded by a pax header only if ustar can't express an entry. Output is the
//! same on every machine: no sparse types, no user and group names.

use std::io::{Read, Write};

use tar::{EntryType, Header};

use crate::error::{Context, Error, IoContext, Result};
use crate::layer::entry::{Entry, EntryKind, Timestamp};
use crate::layer::path::show;
use crate::layer::pax;

/// Bytes of a tar block.
pub(crate) const BLOCK: usize = 512;
/// The largest number that fits 7 octal digits: owners and device numbers.
const SEVEN_OCTAL: u64 = 0o777_7777;
/// The largest number that fits 11 octal digits: sizes and times.
const ELEVEN_OCTAL: u64 = 0o777_7777_7777;

/// Writes entries in the given order; the same entries give the same bytes.
pub struct TarWriter<W: Write> {
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Creates a writer of a tar to `output`.
    pub fn new(output: W) -> Self {
        TarWriter { output, buffer: vec![0; 64 * 1024] }
    }

    /// Writes `entry` and, for a file, exactly `entry.size` bytes of `content`.
    ///
    /// # Errors
    /// `Storage` if the content is shorter or longer than that, or can't be read or written; `BadInput` for metadata
    /// that a layer can't express.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.header(entry).context(show(&entry.path))?;
        if entry.kind != EntryKind::File {
            return Ok(());
        }
        let mut left = entry.size;
        loop {
            let read = content.read(&mut self.buffer);
            let read = match read {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(|error| Error::io("read", show(&entry.path), error))?,
            };
            if read as u64 > left || (read == 0 && left > 0) {
                let error = std::io::Error::other("the file's size changed while being read");
                return Err(Error::io("read", show(&entry.path), error));
            }
            if read == 0 {
                break;
            }
            self.output.write_all(&self.buffer[..read]).io("write", "the layer")?;
            left -= read as u64;
        }
        self.pad(entry.size)
    }

    /// Writes the end mark, two zero blocks, and returns the writer.
    ///
    /// # Errors
    /// `Storage`: the writer's errors.
    pub fn finish(mut self) -> Result<W> {
        self.output.write_all(&[0; 2 * BLOCK]).io("write", "the layer")?;
        Ok(self.output)
    }

    /// Returns the writer without writing an end mark, for a part of a tar.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.output.write_all(&[0; BLOCK][..padding]).io("write", "the layer")
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let mut records = Vec::new();
        let header = ustar(entry, &mut records)?;
        if !records.is_empty() {
            if records.len() as u64 > pax::MAX_HEADER {
                return Err(Error::bad_input(format!(
                    "its name and extended attributes need a pax header of {} bytes",
                    records.len()
                )));
            }
            let pax_header = pax_header(entry, records.len() as u64);
            self.output.write_all(pax_header.as_bytes()).io("write", "the layer")?;
            self.output.write_all(&records).io("write", "the layer")?;
            self.pad(records.len() as u64)?;
        }
        self.output.write_all(header.as_bytes()).io("write", "the layer")
    }
}

/// Creates the header that precedes `entry`'s pax records.
fn pax_header(entry: &Entry, size: u64) -> Header {
    let mut header = Header::new_ustar();
    let mut name = b"PaxHeaders.0/".to_vec();
    let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
    name.extend_from_slice(path.rsplit(|&byte| byte == b'/').next().unwrap_or_default());
    name.truncate(100);
    header.as_old_mut().name[..name.len()].copy_from_slice(&name);
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Creates `entry`'s ustar header; fields that don't fit go to `records`.
fn ustar(entry: &Entry, records: &mut Vec<u8>) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        EntryKind::File => EntryType::Regular,
        EntryKind::HardLink => EntryType::Link,
        EntryKind::Symlink => EntryType::Symlink,
        EntryKind::CharDevice => EntryType::Char,
        EntryKind::BlockDevice => EntryType::Block,
        EntryKind::Directory => EntryType::Directory,
        EntryKind::Fifo => EntryType::Fifo,
    });
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let fits = put_path(&mut header, &path);
    let link_fits = entry.link.len() <= header.as_old().linkname.len();
    let not_utf8 = |fits: bool, text: &[u8]| !fits && std::str::from_utf8(text).is_err();
    if not_utf8(fits, &path) || not_utf8(link_fits, &entry.link) {
        // Without this, a reader may take them for UTF-8.
        pax::push_record(records, b"hdrcharset", b"BINARY");
    }
    if !fits {
        pax::push_record(records, b"path", &path);
    }
    let linkname = &mut header.as_old_mut().linkname;
    if link_fits {
        linkname[..entry.link.len()].copy_from_slice(&entry.link);
    } else {
        pax::push_record(records, b"linkpath", &entry.link);
    }
    header.set_mode(entry.mode & 0o7777);
    let uid = fit(b"uid", entry.uid.into(), SEVEN_OCTAL, records);
    header.set_uid(uid);
    let gid = fit(b"gid", entry.gid.into(), SEVEN_OCTAL, records);
    header.set_gid(gid);
    let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
    header.set_size(fit(b"size", size, ELEVEN_OCTAL, records));
    header.set_mtime(fit_time(entry.mtime, records));
    let is_device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    let (major, minor) = if is_device { (entry.major, entry.minor) } else { (0, 0) };
    if u64::from(major.max(minor)) > SEVEN_OCTAL {
        return Err(Error::bad_input(format!("the device number {major}:{minor} is too large")));
    }
    header.set_device_major(major).io("write", "the layer")?;
    header.set_device_minor(minor).io("write", "the layer")?;
    for (name, value) in &entry.xattrs {
        pax::push_xattr(records, name, value)?;
    }
    header.set_cksum();
    Ok(header)
}

/// Splits the path at a slash into the name and prefix fields; returns false if it doesn't fit.
fn put_path(header: &mut Header, path: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if path.len() <= ustar.name.len() {
        ustar.name[..path.len()].copy_from_slice(path);
        return true;
    }
    // The slash itself is not stored, and a directory's trailing slash belongs to its name.
    let body = path.len() - 1;
    let cut = path[..body.min(ustar.prefix.len() + 1)].iter().rposition(|&byte| byte == b'/');
    match cut {
        Some(cut) if cut > 0 && path.len() - cut - 1 <= ustar.name.len() => {
            ustar.prefix[..cut].copy_from_slice(&path[..cut]);
            ustar.name[..path.len() - cut - 1].copy_from_slice(&path[cut + 1..]);
            true
        }
        _ => {
            // Gives readers without pax support at least the beginning of the path.
            let length = ustar.name.len();
            ustar.name.copy_from_slice(&path[..length]);
            false
        }
    }
}

fn fit(keyword: &[u8], number: u64, limit: u64, records: &mut Vec<u8>) -> u64 {
    if number <= limit {
        return number;
    }
    pax::push_record(records, keyword, number.to_string().as_bytes());
    0
}

fn fit_time(time: Timestamp, records: &mut Vec<u8>) -> u64 {
    let seconds = u64::try_from(time.seconds).ok().filter(|&seconds| seconds <= ELEVEN_OCTAL);
    if time.nanoseconds != 0 || seconds.is_none() {
        pax::push_record(records, b"mtime", pax::time_value(time).as_bytes());
    }
    seconds.unwrap_or(0)
}
