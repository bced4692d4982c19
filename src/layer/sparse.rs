//! Sparse files in pax archives, as GNU tar writes them: formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse
//! Files"). The archive has only the data between the holes, and a map of it.

use crate::error::{Error, Result};

/// The maximum number of pieces of data in one file.
const MAX_PIECES: usize = 1 << 16;
/// The maximum size of a sparse file, in bytes.
const MAX_SIZE: u64 = 1 << 40;

/// The fields of extended headers about a sparse file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    major: Option<Vec<u8>>,
    minor: Option<Vec<u8>>,
    /// The file's path; the entry's own is made up.
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Offsets and lengths in turn.
    map: Vec<u64>,
}

/// A file's data: offset and length of each piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    pieces: Vec<(u64, u64)>,
    /// The file's size, holes included.
    pub size: u64,
}

impl Fields {
    /// Takes the record `keyword`, without its prefix `GNU.sparse.`.
    ///
    /// # Errors
    /// `BadInput` for an invalid number or name.
    pub fn take(&mut self, keyword: &[u8], value: &[u8]) -> Result<()> {
        match keyword {
            b"major" => self.major = Some(value.to_vec()),
            b"minor" => self.minor = Some(value.to_vec()),
            b"name" if value.contains(&0) => return Err(bad("a path with a NUL")),
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            // Format 0.0 repeats these two for each piece.
            b"offset" if self.map.len().is_multiple_of(2) => self.push(value)?,
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.push(value)?,
            b"offset" | b"numbytes" => return Err(bad("an invalid map")),
            b"map" => {
                self.map.clear();
                for part in value.split(|&byte| byte == b',') {
                    self.push(part)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, value: &[u8]) -> Result<()> {
        if self.map.len() >= 2 * MAX_PIECES {
            return Err(bad("too many pieces"));
        }
        self.map.push(number(value)?);
        Ok(())
    }

    /// Returns whether the map precedes the data, as in format 1.0.
    ///
    /// # Errors
    /// `BadInput` for an unknown format.
    pub fn map_in_content(&self) -> Result<bool> {
        match (self.major.as_deref(), self.minor.as_deref()) {
            (Some(b"1"), Some(b"0")) => Ok(true),
            (Some(b"0"), Some(b"0" | b"1")) | (None, None) => Ok(false),
            _ => Err(bad("an unknown format").hint("archive it again without tar's --sparse")),
        }
    }

    /// Returns the map of formats 0.0 and 0.1.
    ///
    /// # Errors
    /// `BadInput` for an invalid map or one of another size than `stored`, the size of the data in the archive.
    pub fn map(self, stored: u64) -> Result<Map> {
        let size = self.size.ok_or_else(|| bad("no size"))?;
        Map::new(&self.map, size, stored)
    }

    /// Reads the map of format 1.0 by calling `next_block` for each block of content; `stored` is the size of content.
    ///
    /// # Errors
    /// `BadInput` as [`Fields::map`]; the errors of `next_block`.
    pub fn read_map(
        mut self,
        stored: u64,
        mut next_block: impl FnMut() -> Result<Vec<u8>>,
    ) -> Result<Map> {
        self.map.clear();
        let mut left: Option<u64> = None;
        let (mut line, mut blocks) = (Vec::new(), 0);
        while left != Some(0) {
            let block = next_block()?;
            blocks += block.len() as u64;
            for byte in block {
                match byte {
                    _ if left == Some(0) => break,
                    b'\n' => {
                        match left {
                            None => left = number(&line)?.checked_mul(2),
                            Some(count) => {
                                self.push(&line)?;
                                left = Some(count - 1);
                            }
                        }
                        line.clear();
                        if left.is_none_or(|left| left > 2 * MAX_PIECES as u64) {
                            return Err(bad("too many pieces"));
                        }
                    }
                    _ if line.len() > 20 => return Err(bad("an invalid map")),
                    byte => line.push(byte),
                }
            }
        }
        let data = stored.checked_sub(blocks).ok_or_else(|| bad("an invalid map"))?;
        self.map(data)
    }
}

impl Map {
    fn new(numbers: &[u64], size: u64, stored: u64) -> Result<Map> {
        if size > MAX_SIZE {
            return Err(bad(&format!("{size} bytes")));
        }
        let (mut end, mut data) = (0, 0);
        let mut pieces = Vec::with_capacity(numbers.len() / 2);
        for pair in numbers.chunks(2) {
            let &[offset, length] = pair else { return Err(bad("an invalid map")) };
            let piece_end = offset.checked_add(length).filter(|piece_end| *piece_end <= size);
            let (true, Some(piece_end)) = (offset >= end, piece_end) else {
                return Err(bad("an invalid map"));
            };
            // GNU tar ends the map with an empty piece at the file's end.
            if length > 0 {
                pieces.push((offset, length));
            }
            (end, data) = (piece_end, data + length);
        }
        if data != stored {
            return Err(bad("a map of another size than its data"));
        }
        pieces.reverse();
        Ok(Map { pieces, size })
    }

    /// Returns how many bytes of a hole follow at `offset`, or else how many bytes of data, at most `most`: `(hole,
    /// count)`. To be called with ascending offsets below the size.
    pub fn next(&mut self, offset: u64, most: u64) -> (bool, u64) {
        while self.pieces.last().is_some_and(|(start, length)| start + length <= offset) {
            self.pieces.pop();
        }
        match self.pieces.last() {
            Some((start, length)) if *start <= offset => (false, most.min(start + length - offset)),
            Some((start, _)) => (true, most.min(start - offset)),
            None => (true, most.min(self.size - offset)),
        }
    }
}

fn number(text: &[u8]) -> Result<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parsed = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|t| t.parse().ok());
    parsed.ok_or_else(|| bad("an invalid number"))
}

fn bad(what: &str) -> Error {
    Error::bad_input(format!("the tar has a sparse file with {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(records: &[(&str, &str)]) -> Result<Fields> {
        let mut fields = Fields::default();
        for (keyword, value) in records {
            fields.take(keyword.as_bytes(), value.as_bytes())?;
        }
        Ok(fields)
    }

    #[test]
    fn maps_of_all_formats_are_read() {
        let old = [("size", "100"), ("numblocks", "2"), ("offset", "10"), ("numbytes", "5")];
        let old = [&old[..], &[("offset", "90"), ("numbytes", "10")]].concat();
        let map = fields(&old).unwrap().map(15).unwrap();
        let newer = [("map", "10,5,90,10"), ("size", "100"), ("major", "0"), ("minor", "1")];
        assert_eq!(fields(&newer).unwrap().map(15).unwrap(), map);
        let newest = [("major", "1"), ("minor", "0"), ("realsize", "100")];
        let newest = fields(&newest).unwrap();
        assert!(newest.map_in_content().unwrap());
        let mut block = b"2\n10\n5\n90\n10\n".to_vec();
        block.resize(512, 0);
        let mut read = newest.read_map(512 + 15, || Ok(block.clone())).unwrap();
        assert_eq!(read, map);
        let steps: Vec<_> =
            [0, 10, 12, 15, 89, 90, 99].into_iter().map(|at| read.next(at, 1000)).collect();
        let expected =
            [(true, 10), (false, 5), (false, 3), (true, 75), (true, 1), (false, 10), (false, 1)];
        assert_eq!(steps, expected);
    }

    #[test]
    fn malformed_maps_are_refused() {
        for (map, size, stored) in [
            ("10,5,9,1", "100", 6),
            ("10,5", "14", 5),
            ("10,5", "100", 4),
            ("10", "100", 10),
            ("10,-5", "100", 5),
            ("18446744073709551615,2", "100", 2),
            ("0,1", "9999999999999999", 1),
        ] {
            let fields = fields(&[("map", map), ("size", size)]);
            assert!(fields.and_then(|fields| fields.map(stored)).is_err(), "{map}");
        }
        assert!(fields(&[("numbytes", "1")]).is_err());
        assert!(fields(&[("major", "2"), ("minor", "0")]).unwrap().map_in_content().is_err());
        let one = || fields(&[("major", "1"), ("minor", "0"), ("realsize", "1")]).unwrap();
        for text in [&b"999999999999\n"[..], b"x\n", b"1\n0\n\n", &[b'1'; 600]] {
            let mut block = text.to_vec();
            block.resize(1024, 0);
            assert!(one().read_map(2048, || Ok(block.clone())).is_err(), "{text:?}");
        }
    }
}
