//! POSIX ACLs: from the text of pax headers (`SCHILY.acl.access`, as star and GNU tar write it) to the value of the
//! extended attribute (include/uapi/linux/posix_acl_xattr.h).

/// The version in the attribute's value.
const VERSION: u32 = 2;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// Converts an ACL, entries separated by commas or newlines; `None` if it is malformed or has users or groups by name.
pub(super) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for line in text.split([',', '\n']).map(str::trim).filter(|line| !line.is_empty()) {
        let mut fields = line.split(':');
        let (kind, name, permissions) = (fields.next()?, fields.next()?, fields.next()?);
        // star appends the number to an entry with a name.
        let name = fields.next().filter(|_| !name.is_empty()).unwrap_or(name);
        let id = match name {
            "" => NO_ID,
            name => name.parse().ok().filter(|id| *id != NO_ID)?,
        };
        let tag = match (kind, id == NO_ID) {
            ("user" | "u", true) => 0x01,
            ("user" | "u", false) => 0x02,
            ("group" | "g", true) => 0x04,
            ("group" | "g", false) => 0x08,
            ("mask" | "m", true) => 0x10,
            ("other" | "o", true) => 0x20,
            _ => return None,
        };
        let mut bits = 0;
        for (letter, bit) in permissions.trim().chars().zip([('r', 4), ('w', 2), ('x', 1)]) {
            match letter {
                '-' => {}
                letter if letter == bit.0 => bits |= bit.1,
                _ => return None,
            }
        }
        entries.push((tag, id, bits));
    }
    if entries.is_empty() {
        return None;
    }
    // The kernel requires this order.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_kernels_form() {
        let value =
            from_text(b"user::rw-,user:1000:rwx,group::r--,mask::rwx,other::---\n").unwrap();
        assert_eq!(value.len(), 4 + 5 * 8);
        assert_eq!(&value[..12], [2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(&value[12..20], [2, 0, 7, 0, 0xe8, 3, 0, 0]);
        let shuffled = b"other::---\nmask::rwx\ngroup::r--\nuser:joe:rwx:1000\nuser::rw-";
        assert_eq!(from_text(shuffled).unwrap(), value);
        for text in [&b""[..], b"user:joe:rwx", b"user::rwq", b"what::rwx", b"mask:5:rwx", b"user"]
        {
            assert_eq!(from_text(text), None);
        }
    }
}
