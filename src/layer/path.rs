//! Paths in a layer: bytes, relative, without `.` and `..`; and the names that OCI reserves for whiteouts (image-spec,
//! layer.md, "Whiteouts").

use crate::error::{Context, Error, Result};

/// The maximum length of a path read from or written to a layer, in bytes: Linux's `PATH_MAX` without its NUL. svp
/// could handle longer ones, but no other tool could unpack such a layer.
pub const MAX_PATH: usize = 4095;
/// The maximum length of a name (Linux `NAME_MAX`), in bytes.
pub(super) const MAX_NAME: usize = 255;

/// The prefix of whiteouts.
const WHITEOUT: &[u8] = b".wh.";
/// The name of the opaque whiteout, which hides all lower entries of its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of aufs metadata files, found in old layers.
const AUFS: &[u8] = b".wh..wh.";

/// A path in a layer: names joined by single slashes, none of them empty, `.` or `..`; the empty path is the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Normalises a path from an archive: ignores leading slashes, empty names and `.`.
    ///
    /// # Errors
    /// `BadInput` for a `..`, a NUL, a name above 255 bytes and a path above [`MAX_PATH`].
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let bad = |why: &str| Err(Error::bad_input(format!("{} {why}", show(raw))));
        if raw.len() > MAX_PATH {
            return bad(&format!("is a path longer than {MAX_PATH} bytes"));
        }
        if raw.contains(&0) {
            return bad("has a NUL in its name");
        }
        let mut path = Vec::with_capacity(raw.len());
        for name in raw.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return bad("leads out of its directory by \"..\""),
                // The whiteout's own name is never created, so only the hidden name counts.
                name if name.strip_prefix(WHITEOUT).unwrap_or(name).len() > MAX_NAME => {
                    return bad("has a name longer than 255 bytes");
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

    /// Normalises the target of a hard link, a path in the layer. A `..` leads to the parent directory, and stops at the
    /// root.
    ///
    /// # Errors
    /// As [`EntryPath::parse`], except for `..`.
    pub fn parse_link(raw: &[u8]) -> Result<Self> {
        if !raw.split(|&byte| byte == b'/').any(|name| name == b"..") {
            return EntryPath::parse(raw);
        }
        let mut names: Vec<&[u8]> = Vec::new();
        for name in raw.split(|&byte| byte == b'/') {
            match name {
                b".." => drop(names.pop()),
                b"" | b"." => {}
                name => names.push(name),
            }
        }
        EntryPath::parse(&names.join(&b'/'))
    }

    /// Returns the normalised bytes, empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names from the root down; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }
}

/// The meaning of a name in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryName<'a> {
    /// An ordinary name.
    Plain,
    /// `.wh.NAME`: removes the lower layers' NAME.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: removes all lower entries of this directory.
    Opaque,
    /// An aufs metadata file, without effect.
    Ignored,
}

/// Distinguishes whiteouts from ordinary names.
///
/// # Errors
/// `BadInput` for a whiteout of the empty name, `.` or `..`.
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
            Err(Error::bad_input(format!("{} is a whiteout without a name", show(name))))
        }
        Some(hidden) => Ok(EntryName::Whiteout(hidden)),
    }
}

/// Splits a path into its parent's names, its last name and the latter's meaning; `None` for entries without effect:
/// the root itself, and aufs metadata files.
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
        return Err(Error::bad_input("it is below a whiteout"));
    }
    Ok(Some((parents, name, kind)))
}

/// The target of a symbolic link, relative to the link's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget<'a> {
    /// Whether it starts at the root instead.
    pub absolute: bool,
    /// The number of directories to ascend first.
    pub up: usize,
    /// The names to descend by afterwards.
    pub down: Vec<&'a [u8]>,
}

/// Parses a link's target. Resolves `..` lexically, without checking that it leaves a directory.
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

/// Checks that the target of a symbolic link is one that the kernel accepts.
///
/// # Errors
/// `BadInput` for an empty target, one with a NUL, and one of 4096 bytes or more.
pub fn check_symlink_target(target: &[u8]) -> Result<()> {
    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
        return Err(Error::bad_input("its target is not a valid path"));
    }
    Ok(())
}

/// Returns whether a layer can't contain an actual file of this name.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

/// Returns the name of the whiteout of `name`.
pub fn whiteout_of(name: &[u8]) -> Vec<u8> {
    [WHITEOUT, name].concat()
}

/// Formats `path` for a message: quoted, unprintable bytes escaped, truncated after 300 bytes.
pub fn show(path: &[u8]) -> String {
    let cut = &path[..path.len().min(300)];
    let dots = if cut.len() < path.len() { "…" } else { "" };
    format!("\"{}{dots}\"", escaped(cut))
}

/// Formats `path` in full on one line: verbatim if a terminal can show it, else escaped and quoted, as git does.
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

/// The target of a hard link: the path of a file, none of whose names means a removal.
pub(crate) struct HardLinkTarget(EntryPath);

impl HardLinkTarget {
    /// Parses an entry's link.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for an invalid path, the root, or a whiteout.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self> {
        let target = HardLinkTarget(EntryPath::parse_link(raw).context("its target")?);
        if target.0.is_root() {
            return Err(Error::bad_input("it is a hard link to the root"));
        }
        if target.0.names().any(is_reserved) {
            return Err(target.refused("is a whiteout"));
        }
        Ok(target)
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &EntryPath {
        &self.0
    }

    /// Returns the names of its directories, and its own.
    pub(crate) fn split(&self) -> (Vec<&[u8]>, &[u8]) {
        let mut names: Vec<&[u8]> = self.0.names().collect();
        let last = names.pop().unwrap_or_default();
        (names, last)
    }

    /// Creates the error for a link that can't be made, because its target `why`.
    pub(crate) fn refused(&self, why: &str) -> Error {
        let target = show(self.0.as_bytes());
        Error::bad_input(format!("it is a hard link to {target}, which {why}"))
    }
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
    fn escaping_and_invalid_paths_are_refused() {
        let long = vec![b'x'; 256];
        let longer = b"x/".repeat(MAX_PATH);
        for raw in [&b".."[..], b"../x", b"a/..", b"a/../b", b"/..", b"a\0b", &long, &longer] {
            assert!(EntryPath::parse(raw).is_err(), "{}", show(raw));
        }
    }

    #[test]
    fn names_split() {
        let path = EntryPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.names().count(), 3);
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
