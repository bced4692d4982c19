//! Reads a layer's tar: ustar, GNU long names and numbers, pax. Streams, and bounds every size before using it.
//! Resolves ambiguities as Go's `archive/tar` does, which all container tools use, or refuses the archive.

use std::collections::BTreeSet;
use std::io::Read;

use tar::Header;

use crate::error::{Error, Kind, Result};
use crate::layer::compress::read_full;
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::header::{bad, checksum, entry, octal, padding, size};
use crate::layer::path::MAX_PATH;
use crate::layer::pax::{self, Pax};
use crate::layer::sparse;
use crate::layer::write::BLOCK;

/// The maximum size of all sparse files of a tar, in bytes: their holes cost an archive nothing.
const MAX_SPARSE: u64 = 1 << 40;

/// Reads the entries of a tar in sequence.
pub struct TarReader<'a> {
    input: &'a mut dyn Read,
    /// Remaining bytes of the current entry's content, padding included.
    left: u64,
    padding: u64,
    ended: bool,
    /// Whether an end mark was read.
    marked: bool,
    /// The current file's map, if it is sparse, and the position in it.
    sparse: Option<(sparse::Map, u64)>,
    /// The size of all sparse files, in bytes.
    expanded: u64,
    ignored: BTreeSet<&'static str>,
}

impl<'a> TarReader<'a> {
    /// Creates a reader of the tar in `input`.
    pub fn new(input: &'a mut dyn Read) -> Self {
        TarReader {
            input,
            left: 0,
            padding: 0,
            ended: false,
            marked: false,
            sparse: None,
            expanded: 0,
            ignored: BTreeSet::new(),
        }
    }

    /// Returns the next entry, or `None` after the last one. [`TarReader::read_content`] then reads a file's content.
    /// Skips unread content of the previous entry.
    ///
    /// # Errors
    /// `BadInput` for a tar that is damaged, truncated inside an entry, or has entries that a layer can't contain
    /// (sparse files of GNU's old format, unknown types, negative sizes); `Storage` if the input can't be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pax: Option<Pax> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                // Before the end mark, an extended header has no effect; without one, an entry is missing.
                if !self.marked && (pax.is_some() || long_name.is_some() || long_link.is_some()) {
                    return Err(bad("ends after an extended header without an entry"));
                }
                return Ok(None);
            };
            match header.as_old().linkflag[0] {
                // Of several extended headers for one entry, the last one counts.
                b'x' => pax = Some(pax::parse(&self.extension(&header, pax::MAX_HEADER)?)?),
                // Written by git for comments. Go's reader does not apply global headers to later entries.
                b'g' => {
                    let global = pax::parse(&self.extension(&header, pax::MAX_HEADER)?)?;
                    self.ignored.extend(global.keywords());
                }
                b'L' => long_name = Some(self.long_text(&header)?),
                b'K' => long_link = Some(self.long_text(&header)?),
                flag => {
                    let mut pax = pax.unwrap_or_default();
                    pax.path = long_name.or(pax.path);
                    pax.linkpath = long_link.or(pax.linkpath);
                    return self.entry(&header, flag, pax).map(Some);
                }
            }
        }
    }

    /// Returns the keywords that would have changed entries so far, but were ignored: those of global headers, and ACLs
    /// of users or groups by name.
    pub fn ignored(&self) -> &BTreeSet<&'static str> {
        &self.ignored
    }

    fn entry(&mut self, header: &Header, flag: u8, mut pax: Pax) -> Result<Entry> {
        self.ignored.extend(pax.ignored.iter().copied());
        let sparse = pax.sparse.take();
        pax.path = sparse.as_ref().and_then(|sparse| sparse.name.clone()).or(pax.path);
        let mut entry = entry(header, flag, pax)?;
        self.left = entry.size;
        self.padding = padding(entry.size);
        let Some(sparse) = sparse.filter(|_| entry.kind == EntryKind::File) else {
            return Ok(entry);
        };
        let map = match sparse.map_in_content()? {
            true => sparse.read_map(entry.size, || {
                let mut block = vec![0; BLOCK.min(usize::try_from(self.left).unwrap_or(BLOCK))];
                let length = block.len();
                if self.read_stored(&mut block)? < length || length == 0 {
                    return Err(bad("has a sparse file with a truncated map"));
                }
                Ok(block)
            })?,
            false => sparse.map(entry.size)?,
        };
        entry.size = map.size;
        self.expanded = self.expanded.saturating_add(map.size);
        if self.expanded > MAX_SPARSE {
            return Err(bad(&format!("has sparse files of more than {MAX_SPARSE} bytes")));
        }
        self.sparse = Some((map, 0));
        Ok(entry)
    }

    /// Reads the current file's content; returns 0 at its end.
    ///
    /// # Errors
    /// `BadInput` if the tar ends first; `Storage` if the input can't be read.
    pub fn read_content(&mut self, buf: &mut [u8]) -> Result<usize> {
        let Some((map, at)) = &mut self.sparse else { return self.read_stored(buf) };
        if *at == map.size {
            return Ok(0);
        }
        let (hole, count) = map.next(*at, buf.len() as u64);
        let count = usize::try_from(count).unwrap_or(buf.len());
        *at += count as u64;
        if hole {
            buf[..count].fill(0);
            return Ok(count);
        }
        let read = self.read_stored(&mut buf[..count])?;
        if let Some((_, at)) = &mut self.sparse {
            *at -= (count - read) as u64;
        }
        Ok(read)
    }

    /// Reads the current entry's content as the tar has it.
    fn read_stored(&mut self, buf: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buf[..most]) {
                Ok(0) => return Err(bad("ends inside a file's content")),
                Ok(read) => {
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(input_error(error)),
            }
        }
    }

    /// Reads the data after the end mark, so that a hash of the input covers all of it.
    ///
    /// # Errors
    /// `Storage` or `BadInput` if the input can't be read.
    pub fn drain(&mut self) -> Result<()> {
        std::io::copy(self.input, &mut std::io::sink()).map(drop).map_err(input_error)
    }

    /// Whether the tar's end mark was read: a tar without it may have been cut off between two entries.
    pub(crate) fn has_end_mark(&self) -> bool {
        self.marked
    }

    fn skip_rest(&mut self) -> Result<()> {
        let (left, count) = (self.left, self.left + self.padding);
        (self.left, self.padding, self.sparse) = (0, 0, None);
        let skipped = std::io::copy(&mut (&mut *self.input).take(count), &mut std::io::sink())
            .map_err(input_error)?;
        // The padding of the last entry may be missing.
        if skipped < left { Err(bad("ends inside an entry")) } else { Ok(()) }
    }

    /// Reads the next header block; `None` at the end mark, or if the input ends between entries.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let mut read = read_full(self.input, header.as_mut_bytes()).map_err(input_error)?;
        let is_zero = |header: &Header| header.as_bytes().iter().all(|&byte| byte == 0);
        if read == BLOCK && is_zero(&header) {
            // The end mark has two blocks, but one is enough if nothing follows.
            read = read_full(self.input, header.as_mut_bytes()).map_err(input_error)?;
            if read > 0 && header.as_bytes()[..read].iter().any(|&byte| byte != 0) {
                return Err(bad(
                    "has entries after a block of zeros, which tools ignore or refuse",
                )
                .hint("it may be damaged: create the archive again"));
            }
            (read, self.marked) = (0, true);
        }
        if read == 0 {
            self.ended = true;
            return Ok(None);
        }
        if read < BLOCK {
            return Err(bad("ends inside a header"));
        }
        let checksum_field = octal(&header.as_old().cksum).filter(|&sum| sum == checksum(&header));
        if checksum_field.is_none() {
            return Err(bad("has a header with a wrong checksum: it is not a tar, or damaged"));
        }
        Ok(Some(header))
    }

    /// Reads the content of an extension, of at most `limit` bytes.
    fn extension(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>> {
        let size = size(header)?;
        if size > limit {
            return Err(bad(&format!("has an extended header of {size} bytes")));
        }
        let mut content = vec![0; size as usize];
        let read = read_full(self.input, &mut content).map_err(input_error)?;
        if read < content.len() {
            return Err(bad("ends inside an extended header"));
        }
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..padding(size) as usize];
        if read_full(self.input, rest).map_err(input_error)? < rest.len() {
            return Err(bad("ends inside an extended header"));
        }
        Ok(content)
    }

    /// Reads a GNU long name, which ends at its first NUL.
    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut text = self.extension(header, MAX_PATH as u64 + 1)?;
        text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
        if text.is_empty() {
            return Err(bad("has an empty long name"));
        }
        Ok(text)
    }
}

/// Maps an input error: damaged data to the layer, other errors to the storage. Unwraps an error of this library
/// that passed through a reader.
fn input_error(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
            Error::bad_input("the layer is damaged or truncated").source(error)
        }
        Err(error) => Error::new(Kind::Storage, "can't read the layer").source(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::entry::Timestamp;
    use crate::layer::write::TarWriter;

    fn write(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for (entry, content) in entries {
            writer.append(entry, &mut &content[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(mut tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = TarReader::new(&mut tar);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut content = Vec::new();
            let mut buf = [0; 300];
            loop {
                match reader.read_content(&mut buf)? {
                    0 => break,
                    n => content.extend_from_slice(&buf[..n]),
                }
            }
            entries.push((entry, content));
        }
        Ok(entries)
    }

    /// Returns entries that need every extension of ustar.
    fn samples() -> Vec<(Entry, Vec<u8>)> {
        let mut entries = vec![(Entry::new("d/", EntryKind::Directory, 0o1777), Vec::new())];
        for (length, byte) in [(1, b'a'), (99, b'b'), (100, b'c'), (101, b'd'), (200, 0xff)] {
            let mut file = Entry::new(vec![byte; length], EntryKind::File, 0o4755);
            file.size = length as u64 * 7;
            entries.push((file, vec![byte; length * 7]));
        }
        for slash in [1, 50, 99, 100, 101, 155, 156, 157] {
            let mut path = vec![b'p'; 200];
            path[slash] = b'/';
            entries.push((Entry::new(path, EntryKind::File, 0o644), Vec::new()));
        }
        let mut odd = Entry::new("odd", EntryKind::Symlink, 0o777);
        odd.link = [&b"/to/\xfe"[..], &[b'l'; 150]].concat();
        odd.uid = 4_000_000_000;
        odd.gid = 0o777_7777;
        odd.mtime = Timestamp { seconds: -7, nanoseconds: 1 };
        odd.xattrs.insert(b"user.a b".to_vec(), b"\n\0=\n".to_vec());
        odd.xattrs.insert(b"user.empty".to_vec(), Vec::new());
        entries.push((odd, Vec::new()));
        let mut device = Entry::new("dev", EntryKind::BlockDevice, 0o660);
        (device.major, device.minor) = (4095, 1_048_575);
        device.mtime = Timestamp { seconds: 1 << 40, nanoseconds: 0 };
        entries.push((device, Vec::new()));
        entries
    }

    #[test]
    fn entries_round_trip() {
        let samples = samples();
        let entries: Vec<_> = samples.iter().map(|(e, c)| (e.clone(), &c[..])).collect();
        let tar = write(&entries);
        assert_eq!(tar, write(&entries));
        assert_eq!(read(&tar).unwrap(), samples);
    }

    #[test]
    fn content_may_be_left_unread() {
        let samples = samples();
        let entries: Vec<_> = samples.iter().map(|(e, c)| (e.clone(), &c[..])).collect();
        let tar = write(&entries);
        let mut input = &tar[..];
        let mut reader = TarReader::new(&mut input);
        let mut count = 0;
        while reader.next_entry().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, samples.len());
    }

    #[test]
    fn a_tar_cut_anywhere_inside_an_entry_is_refused() {
        let mut file = Entry::new("f", EntryKind::File, 0o644);
        file.size = 700;
        file.mtime.nanoseconds = 5;
        let tar = write(&[(file, &[7; 700])]);
        // The padding of the last entry may be missing.
        let end = tar.len() - 1024 - padding(700) as usize;
        assert_eq!(read(&tar[..end]).unwrap().len(), 1);
        for cut in (1..end).filter(|cut| cut % 97 == 0 || cut % 512 == 0) {
            assert!(read(&tar[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(read(&tar[..tar.len() - 1024]).unwrap().len(), 1);
        assert_eq!(read(&[]).unwrap().len(), 0);
    }

    /// Creates a header block of type `flag`; `change` sets its fields.
    fn block(flag: u8, change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[0] = b'n';
        header.as_old_mut().linkflag = [flag];
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(0);
        change(&mut header);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn extension(flag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = block(flag, |header| header.set_size(content.len() as u64));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    #[test]
    fn gnu_names_and_numbers() {
        let long = vec![b'z'; 4000];
        let file = block(b'0', |header| {
            header.set_uid(3_000_000_000);
            header.as_old_mut().mtime = [0xff; 12];
        });
        let tar = [extension(b'L', &[&long[..], b"\0"].concat()), file].concat();
        let (entry, _) = read(&tar).unwrap().remove(0);
        assert_eq!(entry.path, long);
        assert_eq!(entry.uid, 3_000_000_000);
        assert_eq!(entry.mtime.seconds, -1);
        let tar = [extension(b'K', b"target"), block(b'2', |_| ())].concat();
        assert_eq!(read(&tar).unwrap()[0].0.link, b"target");
    }

    #[test]
    fn sizes_are_ignored_except_for_files() {
        for flag in [b'1', b'2', b'5', b'6'] {
            let tar =
                [block(flag, |header| header.set_size(1 << 20)), block(b'0', |_| ())].concat();
            assert_eq!(read(&tar).unwrap().len(), 2, "{flag}");
        }
    }

    #[test]
    fn malformed_tars_are_refused() {
        let size = |bytes: [u8; 12]| block(b'0', |header| header.as_old_mut().size = bytes);
        let mut huge = [0xff; 12];
        huge[0] = 0x80;
        let mut damaged = block(b'0', |_| ());
        damaged[0] = b'm';
        let x = |record: &[u8]| extension(b'x', record);
        for (name, tar) in [
            ("negative size", size([0xff; 12])),
            ("size beyond 64 bits", size(huge)),
            ("size of letters", size(*b"0000000000x\0")),
            ("size that the input lacks", size(*b"77777777777\0")),
            ("wrong checksum", damaged),
            ("not a tar", b"<!doctype html>".repeat(50)),
            ("sparse", block(b'S', |_| ())),
            ("unknown type", block(b'V', |_| ())),
            ("extension without entry", x(b"11 path=ab\n")),
            ("huge pax", block(b'x', |header| header.set_size(1 << 21))),
            ("huge pax by base 256", block(b'x', |header| header.as_old_mut().size = huge)),
            ("huge long name", block(b'L', |header| header.set_size(1 << 20))),
            ("empty long name", [extension(b'L', b"\0"), block(b'0', |_| ())].concat()),
            ("owner -1", [x(b"18 uid=4294967295\n"), block(b'0', |_| ())].concat()),
            (
                "negative owner",
                block(b'0', |header| {
                    header.as_old_mut().uid[..].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xfe")
                }),
            ),
            ("size by pax", [x(b"28 size=9223372036854775808\n"), block(b'0', |_| ())].concat()),
            ("malformed global", [extension(b'g', b"5 x\n"), block(b'0', |_| ())].concat()),
        ] {
            let error = read(&tar).expect_err(name);
            assert_eq!(error.kind(), Kind::BadInput, "{name}: {error}");
        }
    }

    #[test]
    fn a_global_header_changes_nothing() {
        let tar = [extension(b'g', b"11 path=ab\n"), block(b'0', |_| ())].concat();
        assert_eq!(read(&tar).unwrap()[0].0.path, b"n");
    }
}
