//! Names inside a layer: bytes, relative, without `.` and `..`; and the names that OCI reserves for
//! whiteouts (image-spec, layer.md, "Whiteouts").

use crate::error::{Error, Result};

/// The longest path that is taken from a layer or put into one, in bytes: Linux's `PATH_MAX` without its
/// NUL. svp walks name by name and could do more, but nobody else can unpack such a layer.
pub const MAX_PATH: usize = 4095;
/// The longest single name (Linux `NAME_MAX`), in bytes.
pub(super) const MAX_NAME: usize = 255;

/// The prefix of every whiteout's name.
const WHITEOUT: &[u8] = b".wh.";
/// The name of the mark that hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of aufs's own bookkeeping files, which old layers still hold.
const AUFS: &[u8] = b".wh..wh.";

/// A path inside a layer: names joined by single slashes, none of them empty, `.` or `..`; the empty
/// path is the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Normalises a path as an archive has it: leading slashes, empty names and `.` don't count.
    ///
    /// # Errors
    /// `BadInput` for a `..`, a NUL, a name above 255 bytes and a path above [`MAX_PATH`].
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let bad = |why: &str| Err(Error::bad_input(format!("{} {why}", show(raw))));
        if raw.len() > MAX_PATH {
            return bad(&format!("is a path of more than {MAX_PATH} bytes"));
        }
        if raw.contains(&0) {
            return bad("has a NUL in its name");
        }
        let mut path = Vec::with_capacity(raw.len());
        for name in raw.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return bad("leads out of its directory by \"..\""),
                // A whiteout's own name is never made.
                name if name.strip_prefix(WHITEOUT).unwrap_or(name).len() > MAX_NAME => {
                    return bad("has a name of more than 255 bytes");
                }
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        Ok(EntryPath(path))
    }

    /// The normalised bytes, empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// The parent's path and the last name; `None` for the root.
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => Some((&self.0[..at], &self.0[at + 1..])),
            None => Some((b"", &self.0)),
        }
    }
}

/// What a layer's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryName<'a> {
    /// An ordinary name.
    Plain,
    /// `.wh.NAME`: lower layers' NAME is gone.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: everything that lower layers have in this directory is gone.
    Opaque,
    /// aufs's bookkeeping: without meaning.
    Ignored,
}

/// Reads the whiteout names out of ordinary ones.
///
/// # Errors
/// `BadInput` for a whiteout of no name, `.` or `..`.
pub fn classify(name: &[u8]) -> Result<EntryName<'_>> {
    if name == OPAQUE {
        return Ok(EntryName::Opaque);
    }
    if name.starts_with(AUFS) {
        return Ok(EntryName::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(EntryName::Plain),
        Some(b"" | b"." | b"..") => {
            Err(Error::bad_input(format!("{} is a whiteout of nothing", show(name))))
        }
        Some(hidden) => Ok(EntryName::Whiteout(hidden)),
    }
}

/// The names above a path's last one, that one, and what it asks for; `None` for what has no meaning: the
/// root's own entry, and aufs's bookkeeping.
///
/// # Errors
/// As [`classify`], and `BadInput` for a path that leads through a whiteout.
pub fn split_entry(path: &EntryPath) -> Result<Option<(Vec<&[u8]>, &[u8], EntryName<'_>)>> {
    let mut parents: Vec<&[u8]> = path.names().collect();
    let Some(name) = parents.pop() else { return Ok(None) };
    let kind = classify(name)?;
    if kind == EntryName::Ignored || parents.iter().any(|name| name.starts_with(AUFS)) {
        return Ok(None);
    }
    if parents.iter().any(|name| is_reserved(name)) {
        return Err(Error::bad_input("it lies in a whiteout"));
    }
    Ok(Some((parents, name, kind)))
}

/// Where a symbolic link's target leads from the link's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget<'a> {
    /// From the root instead.
    pub absolute: bool,
    /// So many directories up first.
    pub up: usize,
    /// Then down by these names.
    pub down: Vec<&'a [u8]>,
}

/// Reads a link's target. A `..` is taken without looking whether what it leaves is a directory.
pub fn parse_link_target(target: &[u8]) -> LinkTarget<'_> {
    let mut parsed = LinkTarget { absolute: target.starts_with(b"/"), up: 0, down: Vec::new() };
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if parsed.down.pop().is_none() {
                    parsed.up += 1;
                }
            }
            name => parsed.down.push(name),
        }
    }
    parsed
}

/// Whether a real file of this name can't be put into a layer.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

/// The name of the whiteout of `name`.
pub fn whiteout_of(name: &[u8]) -> Vec<u8> {
    [WHITEOUT, name].concat()
}

/// `path` in quotes for a message, unprintable bytes escaped, cut after 300 bytes.
pub fn show(path: &[u8]) -> String {
    let cut = &path[..path.len().min(300)];
    let dots = if cut.len() < path.len() { "…" } else { "" };
    format!("\"{}{dots}\"", escaped(cut))
}

/// `path` whole and on one line: as it is where a terminal can show it, else escaped and in quotes, as git
/// has it.
pub fn quoted(path: &[u8]) -> String {
    let escaped = escaped(path);
    if escaped.as_bytes() == path { escaped } else { format!("\"{escaped}\"") }
}

fn escaped(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for shown in chunk.valid().chars() {
            match shown {
                '\'' => text.push(shown),
                _ => text.extend(shown.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        let table: &[(&[u8], &[u8])] = &[
            (b"", b""),
            (b".", b""),
            (b"./", b""),
            (b"/", b""),
            (b"a/b/", b"a/b"),
            (b"./a//./b", b"a/b"),
            (b"///etc/passwd", b"etc/passwd"),
            (b"...", b"..."),
            (b"a/\xff\xfe\n", b"a/\xff\xfe\n"),
            (&whiteout_of(&[b'x'; 255]), &whiteout_of(&[b'x'; 255])),
        ];
        for (raw, expected) in table {
            assert_eq!(EntryPath::parse(raw).unwrap().as_bytes(), *expected, "{raw:?}");
        }
    }

    #[test]
    fn paths_that_leave_or_lie_are_refused() {
        let long = vec![b'x'; 256];
        let longer = b"x/".repeat(MAX_PATH);
        for raw in [&b".."[..], b"../x", b"a/..", b"a/../b", b"/..", b"a\0b", &long, &longer] {
            assert!(EntryPath::parse(raw).is_err(), "{}", show(raw));
        }
    }

    #[test]
    fn names_split() {
        let path = EntryPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.split(), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(path.names().count(), 3);
        assert_eq!(EntryPath::default().split(), None);
        assert_eq!(EntryPath::default().names().count(), 0);
    }

    #[test]
    fn whiteout_names() {
        assert_eq!(classify(b"x").unwrap(), EntryName::Plain);
        assert_eq!(classify(b".wh.x").unwrap(), EntryName::Whiteout(b"x"));
        assert_eq!(classify(b".wh..x").unwrap(), EntryName::Whiteout(b".x"));
        assert_eq!(classify(b".wh..wh..opq").unwrap(), EntryName::Opaque);
        assert_eq!(classify(b".wh..wh.plnk").unwrap(), EntryName::Ignored);
        assert_eq!(classify(b".whx").unwrap(), EntryName::Plain);
        for nothing in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(classify(nothing).is_err());
        }
        assert_eq!(whiteout_of(b"x"), b".wh.x");
    }

    #[test]
    fn messages_show_every_byte() {
        assert_eq!(show(b"a\xff\"\n\xc3\xa9"), "\"a\\xff\\\"\\n\u{e9}\"");
    }

    #[test]
    fn paths_are_quoted_where_a_terminal_would_not_show_them() {
        let table: &[(&[u8], &str)] = &[
            (b"/a b/it's-\xc3\xa9", "/a b/it's-\u{e9}"),
            (b"/a\nb", r#""/a\nb""#),
            (b"/\x1b[31m", r#""/\u{1b}[31m""#),
            (b"/\xc2\x9b31m", r#""/\u{9b}31m""#),
            ("/\u{202e}gnp".as_bytes(), r#""/\u{202e}gnp""#),
            (b"/\xff", r#""/\xff""#),
            (br"/\xff", r#""/\\xff""#),
            (b"/\"", r#""/\"""#),
        ];
        for (path, shown) in table {
            assert_eq!(quoted(path), *shown);
        }
        let long = vec![b'x'; 4000];
        assert_eq!(quoted(&long).as_bytes(), long);
    }

    #[test]
    fn targets_are_read() {
        let turned = |target| {
            let LinkTarget { absolute, up, down } = parse_link_target(target);
            (absolute, up, down.join(&b'/'))
        };
        assert_eq!(turned(b"a//./b/"), (false, 0, b"a/b".to_vec()));
        assert_eq!(turned(b"/a/../b"), (true, 0, b"b".to_vec()));
        assert_eq!(turned(b"a/../../../b"), (false, 2, b"b".to_vec()));
        assert_eq!(turned(b"/"), (true, 0, b"".to_vec()));
    }
}
