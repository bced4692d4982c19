//! Finds users and groups that a script has created and whose ids the container does not have: no file can belong to
//! them, and no process can run as them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::OFlags;

use crate::layer::path::quoted;
use crate::rootfs::open_in_root;

/// The maximum number of bytes read from a file.
const MAX_BYTES: u64 = 1 << 20;
/// The maximum number of names in a report.
const MAX_NAMES: usize = 10;

/// The ids that this process's user namespace has.
#[derive(Debug)]
pub(super) struct MappedIds {
    uids: String,
    gids: String,
}

impl MappedIds {
    /// Reads the map of this process.
    pub(super) fn of_this_process() -> MappedIds {
        // Without a map, no id is reported.
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}"));
        MappedIds {
            uids: read("uid_map").unwrap_or_default(),
            gids: read("gid_map").unwrap_or_default(),
        }
    }

    /// Returns the new users and groups in `upper` that have other ids, as `NAME (ID)`; at most ten.
    pub(super) fn find_unmapped(
        &self,
        before: BorrowedFd<'_>,
        upper: BorrowedFd<'_>,
    ) -> Vec<String> {
        let mut names = Vec::new();
        for (file, map) in [("etc/passwd", &self.uids), ("etc/group", &self.gids)] {
            names.extend(unmapped(&read(before, file), &read(upper, file), map));
        }
        // A user and its own group have the same name and id.
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names.truncate(MAX_NAMES);
        names
    }
}

/// Returns the entries of `now` that `before` has not, and whose id is in no line of `map`.
fn unmapped(before: &str, now: &str, map: &str) -> Vec<String> {
    if map.is_empty() {
        return Vec::new();
    }
    let old: HashSet<(&str, u32)> = entries(before).collect();
    let is_mapped = |id: u32| {
        map.lines().any(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(first)), _, Some(Ok(count))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return false;
            };
            (first..first.saturating_add(count)).contains(&u64::from(id))
        })
    };
    let new = entries(now).filter(|entry| !old.contains(entry) && !is_mapped(entry.1));
    new.map(|(name, id)| format!("{} ({id})", quoted(name.as_bytes()))).collect()
}

/// Parses passwd(5) and group(5): the name is the first field, the id the third.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

/// Reads the beginning of a file; empty if it is missing or not a regular file.
fn read(root: BorrowedFd<'_>, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = open_in_root(root, Path::new(path), flags).map(File::from) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    if file.metadata().is_ok_and(|of| of.is_file()) {
        // Parse the part that could be read.
        let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_users_without_an_id_are_found() {
        let before = "root:x:0:0::/root:/bin/sh\nold:x:5:5::/:\n";
        let now =
            format!("{before}app:x:1000:1000::/:\nbroken\n:x:3:\nbad:x:y:\nbig:x:70000:1::/:\n");
        let single = "         0       1000          1\n";
        assert_eq!(unmapped(before, &now, single), ["app (1000)", "big (70000)"]);
        let range = "0 1000 1\n1 100000 65536\n";
        assert_eq!(unmapped(before, &now, range), ["big (70000)"]);
        assert!(unmapped(before, before, single).is_empty());
        assert!(unmapped(before, &now, "").is_empty());
        assert!(unmapped(before, "", single).is_empty());
    }
}
