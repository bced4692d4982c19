//! The mounts of this process (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    pub(crate) id: u64,
    /// The mount that it is on.
    pub(crate) parent: u64,
    /// The directory of the file system that is its root.
    pub(crate) root: PathBuf,
    /// The mount point.
    pub(crate) at: PathBuf,
    /// The type of the file system.
    pub(crate) kind: String,
    /// The options of the whole file system.
    pub(crate) options: Vec<String>,
}

/// Reads the mounts of this process, in the kernel's order.
///
/// # Errors
/// Those of reading /proc.
pub(crate) fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses mountinfo; leaves out lines that don't have its form.
pub(crate) fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let path = |word| PathBuf::from(OsString::from_vec(unescape(word)));
    let mut words = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let (root, at) = (path(words.nth(1)?), path(words.next()?));
    // Optional fields end with a dash.
    words.find(|word| *word == b"-")?;
    let kind = String::from_utf8_lossy(words.next()?).into_owned();
    let options = String::from_utf8_lossy(words.nth(1)?).into_owned();
    let options = options.split(',').map(str::to_owned).collect();
    Some(MountEntry { id, parent, root, at, kind, options })
}

/// Replaces the octal escapes of mountinfo, such as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let byte =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed_whatever_is_in_a_path() {
        let table =
            b"20 1 8:1 /a\\134b /x\\040y\\012\xff rw shared:1 master:2 - ext4 /dev/sda1 ro,a=b\n\
            not a mount\n21 20 0:5 / / ro - tmpfs x rw\n";
        let all = parse(table);
        assert_eq!(all.len(), 2);
        let at = PathBuf::from(OsString::from_vec(b"/x y\n\xff".to_vec()));
        assert_eq!(
            all[0],
            MountEntry {
                id: 20,
                parent: 1,
                root: "/a\\b".into(),
                at,
                kind: "ext4".into(),
                options: vec!["ro".into(), "a=b".into()]
            }
        );
        assert_eq!((all[1].kind.as_str(), all[1].options.len()), ("tmpfs", 1));
    }
}
