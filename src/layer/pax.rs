//! Reads and writes extended headers of the pax interchange format (POSIX.1-2024, pax, "Extended Header"),
//! strictly.
//!
//! ```text
//! record = length " " keyword "=" value "\n"
//! ```
//!
//! The length counts the whole record, itself included, and is the only record delimiter: values may contain
//! newlines and NULs, and a reader that splits at newlines can be tricked into seeing other records.

use crate::error::{Error, Result};
use crate::layer::entry::{Timestamp, Xattrs};
use crate::layer::{acl, sparse};

/// The maximum size of an extended header, in bytes.
pub const MAX_HEADER: u64 = 1 << 20;
/// The keyword prefix of extended attributes, as container tools write them.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The keyword prefix of GNU tar's sparse files.
const SPARSE: &[u8] = b"GNU.sparse.";
/// The attributes that hold ACLs.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// The fields that an extended header sets for the next entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pax {
    /// The entry's path.
    pub path: Option<Vec<u8>>,
    /// The link target.
    pub linkpath: Option<Vec<u8>>,
    /// Size of the content in bytes.
    pub size: Option<u64>,
    /// The owner.
    pub uid: Option<u64>,
    /// The group.
    pub gid: Option<u64>,
    /// The mtime.
    pub mtime: Option<Timestamp>,
    /// Extended attributes, ACLs among them.
    pub xattrs: Xattrs,
    /// The map of a sparse file.
    pub sparse: Option<sparse::Fields>,
    /// Keywords that would change the entry, but can't be applied.
    pub ignored: Vec<&'static str>,
}

impl Pax {
    /// Returns the keywords that would change an entry.
    pub fn keywords(&self) -> Vec<&'static str> {
        let fields = [
            ("path", self.path.is_some()),
            ("linkpath", self.linkpath.is_some()),
            ("size", self.size.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
            ("mtime", self.mtime.is_some()),
            ("SCHILY.xattr", !self.xattrs.is_empty()),
            ("GNU.sparse", self.sparse.is_some()),
        ];
        let set = fields.into_iter().filter(|(_, is_set)| *is_set).map(|(keyword, _)| keyword);
        set.chain(self.ignored.iter().copied()).collect()
    }
}

/// Parses an extended header. The last record with a keyword counts; an empty value resets the keyword; unknown
/// keywords are ignored.
///
/// # Errors
/// `BadInput` for a syntax error, a path with a NUL, or an invalid number.
pub fn parse(mut data: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    while !data.is_empty() {
        let (record, rest) = split_record(data)?;
        data = rest;
        let equals = record
            .iter()
            .position(|&byte| byte == b'=')
            .filter(|&at| at > 0)
            .ok_or_else(|| bad("a record without a keyword"))?;
        let (keyword, value) = (&record[..equals], &record[equals + 1..]);
        if keyword.contains(&0) {
            return Err(bad("a keyword with a NUL"));
        }
        take_record(&mut pax, keyword, value)?;
    }
    Ok(pax)
}

fn take_record(pax: &mut Pax, keyword: &[u8], value: &[u8]) -> Result<()> {
    let some = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec());
    match keyword {
        b"path" | b"linkpath" if value.contains(&0) => return Err(bad("a path with a NUL")),
        b"path" => pax.path = some(value),
        b"linkpath" => pax.linkpath = some(value),
        b"size" => pax.size = number(value)?,
        b"uid" => pax.uid = owner(value)?,
        b"gid" => pax.gid = owner(value)?,
        b"mtime" => pax.mtime = time(value)?,
        // Not used, but an archive is malformed where Go's reader says so.
        b"atime" | b"ctime" => drop(time(value)?),
        b"SCHILY.acl.access" => take_acl(pax, ACCESS_ACL, "SCHILY.acl.access", value),
        b"SCHILY.acl.default" => take_acl(pax, DEFAULT_ACL, "SCHILY.acl.default", value),
        _ if keyword.starts_with(SPARSE) => {
            pax.sparse.get_or_insert_default().take(&keyword[SPARSE.len()..], value)?;
        }
        _ => {
            if let Some(name) = keyword.strip_prefix(XATTR) {
                if name.is_empty() || name.len() > 255 {
                    return Err(bad("an extended attribute with a bad name"));
                }
                if value.is_empty() {
                    // Attributes may be empty, so an empty value is no reset.
                    pax.xattrs.insert(name.to_vec(), Vec::new());
                } else {
                    pax.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
    }
    Ok(())
}

/// Takes an ACL, unless the same is given as an extended attribute.
fn take_acl(pax: &mut Pax, name: &[u8], keyword: &'static str, text: &[u8]) {
    match acl::from_text(text) {
        Some(value) => drop(pax.xattrs.entry(name.to_vec()).or_insert(value)),
        None if text.is_empty() => {}
        None => pax.ignored.push(keyword),
    }
}

/// Parses an owner. Go's reader accepts -1, and the kernel takes that for "unchanged": root, who creates the file.
fn owner(value: &[u8]) -> Result<Option<u64>> {
    if value == b"-1" { Ok(Some(0)) } else { number(value) }
}

fn bad(what: &str) -> Error {
    Error::bad_input(format!("the tar has a pax header with {what}"))
}

/// Returns the first record without its length and newline, and the rest of the data.
fn split_record(data: &[u8]) -> Result<(&[u8], &[u8])> {
    let space = data.iter().take(9).position(|&byte| byte == b' ');
    let space = space.ok_or_else(|| bad("a record without a length"))?;
    let length = number(&data[..space])?.ok_or_else(|| bad("a record without a length"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > data.len() || length < space + 2 || data[length - 1] != b'\n' {
        return Err(bad("a record of the wrong length"));
    }
    Ok((&data[space + 1..length - 1], &data[length..]))
}

/// Parses a decimal number without sign; `None` if the text is empty.
fn number(text: &[u8]) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(bad("an invalid number"));
    }
    let text = std::str::from_utf8(text).expect("digits");
    text.parse().map(Some).map_err(|_| bad("a number that is too large"))
}

/// Parses a time, `[-]SECONDS[.FRACTION]`; digits after the ninth are truncated.
fn time(text: &[u8]) -> Result<Option<Timestamp>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let whole = number(parts.next().unwrap_or_default())?;
    let whole = whole.and_then(|n| i64::try_from(n).ok());
    let mut seconds = whole.ok_or_else(|| bad("an invalid time"))?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad("an invalid time"));
    }
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds =
            nanoseconds * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    }
    if negative {
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Ok(Some(Timestamp { seconds, nanoseconds }))
}

/// Appends a record to `out`.
pub fn push_record(out: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + decimal_digits(length) {
        length = rest + decimal_digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(keyword);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends an extended attribute.
///
/// # Errors
/// `BadInput` for a name with `=`, which a keyword can't contain.
pub fn push_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<()> {
    if name.contains(&b'=') {
        let name = crate::layer::path::show(name);
        return Err(Error::bad_input(format!(
            "the extended attribute {name} can't be put into a layer: its name contains \"=\""
        )));
    }
    push_record(out, &[XATTR, name].concat(), value);
    Ok(())
}

/// Formats a time as a record's value, without trailing zeros.
pub fn time_value(time: Timestamp) -> String {
    let Timestamp { mut seconds, mut nanoseconds } = time;
    let mut sign = "";
    if seconds < 0 {
        sign = "-";
        if nanoseconds > 0 {
            seconds += 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    let seconds = seconds.unsigned_abs();
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_record(&mut out, keyword.as_bytes(), value);
        out
    }

    #[test]
    fn lengths_count_themselves() {
        for length in 0..1200 {
            let bytes = record("path", &vec![b'x'; length]);
            let text = String::from_utf8_lossy(&bytes);
            let told: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, bytes.len());
        }
    }

    #[test]
    fn values_may_contain_any_bytes() {
        let value = b"\x01\0\0\x02\n20 linkpath=/etc/x\n\0";
        let pax = parse(&record("SCHILY.xattr.security.capability", value)).unwrap();
        assert_eq!(pax.xattrs[&b"security.capability"[..]], value);
        assert_eq!(pax.linkpath, None);
    }

    #[test]
    fn the_last_record_counts_and_an_empty_value_resets() {
        let data = [record("path", b"a"), record("path", b"b")].concat();
        assert_eq!(parse(&data).unwrap().path.unwrap(), b"b");
        let data = [record("size", b"7"), record("size", b"")].concat();
        assert_eq!(parse(&data).unwrap().size, None);
    }

    #[test]
    fn times_round_trip() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("1350244992.023960108", 1_350_244_992, 23_960_108),
            ("-1", -1, 0),
            ("-0.5", -1, 500_000_000),
            ("-1.000000001", -2, 999_999_999),
        ] {
            let expected = Timestamp { seconds, nanoseconds };
            assert_eq!(time(text.as_bytes()).unwrap(), Some(expected), "{text}");
            assert_eq!(time_value(expected), text);
        }
        assert_eq!(time(b"1.0000000019").unwrap().unwrap().nanoseconds, 1);
        for text in ["-", ".5", "1.x", "1e5", "--1", "99999999999999999999"] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        for data in [
            &b"x"[..],
            b"8 path=a",
            b"11 path=a\n",
            b"8 path=a\n",
            b"0 path=a\n",
            b"3 \n",
            b"5 =a\n",
            b"-9 path=a\n",
            b"+9 path=a\n",
            b"7 path\n",
            b"99999999999 path=a\n",
            b"11 path=\0a\n",
            b"11 size=-1\n",
            b"29 size=99999999999999999999\n",
            b"11 p\0th=ab\n",
        ] {
            assert!(parse(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }
}
