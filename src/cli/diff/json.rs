//! Differences as JSON, one line for each path, so that they can be printed as a stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::summary::{Change, Printer, Sums, changed};
use crate::error::Result;
use crate::layer::compare::{Aspect, Difference};
use crate::layer::entry::Timestamp;
use crate::layer::file_tree::{FileKind, Inode};
use crate::oci::Digest;
use crate::pipeline::compare::Stack;

/// One of the two compared images.
#[derive(Serialize)]
struct Side {
    /// The image's manifest.
    image: Digest,
    /// The number of compared layers, from the lowest.
    layers: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonDifference {
    path: String,
    /// The bytes of the path, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    change: Change,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aspects: Vec<Aspect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<File>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<File>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    r#type: &'static str,
    /// Octal.
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The bytes of the target, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minor: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<Xattr>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Xattr {
    name: String,
    /// The bytes of the name, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    value_base64: String,
}

/// Prints the two `sides` and their differences.
pub(super) fn print(
    out: &mut Printer<'_>,
    sides: [&Stack; 2],
    differences: &[Difference<'_>],
) -> Result<()> {
    let sides = sides.map(|stack| text(&Side { image: stack.manifest, layers: stack.height() }));
    out.line("{")?;
    out.line(&format!(
        "  \"before\": {},\n  \"after\": {},\n  \"changes\": [",
        sides[0], sides[1]
    ))?;
    for (number, difference) in differences.iter().enumerate() {
        let comma = if number + 1 < differences.len() { "," } else { "" };
        out.line(&format!("    {}{comma}", text(&json_difference(difference))))?;
    }
    out.line(&format!("  ],\n  \"sums\": {}\n}}", text(&Sums::of(differences))))
}

/// Serialises on one line, escaping the control characters that JSON leaves as they are.
fn text(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("data serialises");
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            c if c.is_control() => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

fn json_difference(difference: &Difference<'_>) -> JsonDifference {
    let (path, path_base64) = bytes(&[b"/", &difference.path[..]].concat());
    JsonDifference {
        path,
        path_base64,
        change: Change::of(difference),
        aspects: changed(difference),
        before: difference.before.map(file),
        after: difference.after.map(file),
    }
}

/// Returns bytes as text, and in Base64 if they are not UTF-8.
fn bytes(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

fn file(inode: &Inode) -> File {
    let mut file = File {
        mode: format!("{:04o}", inode.mode),
        uid: inode.uid,
        gid: inode.gid,
        mtime: time(inode.mtime),
        ..File::default()
    };
    file.r#type = match &inode.kind {
        FileKind::File { size, digest } => {
            (file.size, file.digest) = (Some(*size), Some(*digest));
            "file"
        }
        FileKind::Directory => "directory",
        FileKind::Symlink(target) => {
            let (text, base64) = bytes(target);
            (file.target, file.target_base64) = (Some(text), base64);
            "symlink"
        }
        FileKind::CharDevice(major, minor) | FileKind::BlockDevice(major, minor) => {
            (file.major, file.minor) = (Some(*major), Some(*minor));
            if matches!(inode.kind, FileKind::CharDevice(..)) {
                "charDevice"
            } else {
                "blockDevice"
            }
        }
        FileKind::Fifo => "fifo",
    };
    let xattrs = inode.xattrs.iter().flat_map(|xattrs| xattrs.iter());
    file.xattrs = xattrs
        .map(|(name, value)| {
            let (name, name_base64) = bytes(name);
            Xattr { name, name_base64, value_base64: STANDARD.encode(value) }
        })
        .collect();
    file
}

/// Formats a time as RFC 3339, or as `@SECONDS` where RFC 3339 has no form for it.
fn time(time: Timestamp) -> String {
    let Timestamp { seconds, nanoseconds } = time;
    // jiff requires both parts to have the same sign.
    let whole = jiff::Timestamp::from_second(seconds).ok();
    let sum = whole
        .and_then(|at| at.checked_add(jiff::SignedDuration::from_nanos(nanoseconds.into())).ok());
    sum.map_or_else(|| format!("@{seconds}.{nanoseconds:09}"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_beyond_9999() {
        let shown = |seconds, nanoseconds| time(Timestamp { seconds, nanoseconds });
        assert_eq!(shown(1_700_000_000, 0), "2023-11-14T22:13:20Z");
        assert_eq!(shown(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(shown(i64::MAX, 5), "@9223372036854775807.000000005");
    }
}
