//! Judges whether a layer describes a container's changes: the law, and that the layer is minimal.

use std::collections::{BTreeMap, BTreeSet};

use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::layer::path::{EntryName, EntryPath, classify, show};
use svp::layer::read::TarReader;
use svp::layer::snapshot::{Node, Snapshot};

/// Returns whether the times of a directory differ only because entries were created and removed in it.
fn incidental(before: Option<&Node>, after: &Node, applied: &Node, started: Timestamp) -> bool {
    let same_time = Node {
        entry: Entry { mtime: after.entry.mtime, ..applied.entry.clone() },
        ..applied.clone()
    };
    after.entry.kind == EntryKind::Directory
        && after.is_same(&same_time)
        && before.is_some_and(|node| node.entry.mtime == applied.entry.mtime)
        && started <= after.entry.mtime
        && after.entry.mtime <= after.ctime
}

/// Panics unless `applied` (the layer on top of `before`) is the container's final tree.
#[track_caller]
pub fn law(before: &Snapshot, after: &Snapshot, applied: &Snapshot, started: Timestamp) {
    let mut wrong = Vec::new();
    let paths: BTreeSet<_> = after.keys().chain(applied.keys()).collect();
    for path in paths {
        match (after.get(path), applied.get(path)) {
            (Some(a), Some(b)) if a.is_same(b) => {}
            (Some(a), Some(b)) if incidental(before.get(path), a, b, started) => {}
            (a, b) => wrong.push(format!(
                "{}:\n   before  {:?}\n   after   {:?}\n   applied {:?}",
                show(path),
                before.get(path),
                a,
                b
            )),
        }
    }
    let (was, now, got) = (groups(before), groups(after), groups(applied));
    for (path, group) in &now {
        if group.iter().any(|other| got.get(other) != got.get(*path)) || !got.contains_key(*path) {
            wrong.push(format!("{} has lost its other names", show(path)));
        }
    }
    for (path, group) in &got {
        for other in group {
            let joined = now.get(path).is_some_and(|group| group.contains(other));
            // If a change to one of several names of a lower file is undone, the lower layers still link these names.
            let left_alone = was.get(path).is_some_and(|group| group.contains(other))
                && [path, other].into_iter().all(|path| before[*path].is_same(&after[*path]));
            if !joined && !left_alone {
                wrong.push(format!("{} became a name of {}", show(path), show(other)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the names of each file that has several.
fn groups(snapshot: &Snapshot) -> BTreeMap<&Vec<u8>, BTreeSet<&Vec<u8>>> {
    let mut by_inode: BTreeMap<(u64, u64), BTreeSet<&Vec<u8>>> = BTreeMap::new();
    for (path, node) in snapshot {
        if node.entry.kind != EntryKind::Directory {
            by_inode.entry(node.inode).or_default().insert(path);
        }
    }
    let several = by_inode.into_values().filter(|group| group.len() > 1);
    several
        .flat_map(|group| group.clone().into_iter().map(move |path| (path, group.clone())))
        .collect()
}

/// Returns the entries of a tar.
pub fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut input = tar;
    let mut reader = TarReader::new(&mut input);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    entries
}

/// Panics if the layer has an unnecessary entry, a duplicate, or an entry before its parent.
#[track_caller]
pub fn nothing_more(before: &Snapshot, after: &Snapshot, tar: &[u8], started: Timestamp) {
    let entries = entries(tar);
    let linked = groups(after);
    let mut seen = BTreeSet::new();
    let paths: Vec<_> =
        entries.iter().map(|entry| EntryPath::parse(&entry.path).unwrap()).collect();
    for (entry, path) in entries.iter().zip(&paths) {
        let name = show(path.as_bytes());
        assert!(seen.insert(path.as_bytes().to_vec()), "{name} is duplicated");
        let names: Vec<&[u8]> = path.names().collect();
        let Some((last, parents)) = names.split_last() else {
            let (a, b) = (&before[&b""[..]], &after[&b""[..]]);
            assert!(
                !a.is_same(b) && !incidental(Some(a), b, a, started),
                "the root has not changed"
            );
            continue;
        };
        let parent = &parents.join(&b'/')[..];
        assert!(parent.is_empty() || seen.contains(parent), "{name} does not follow its directory");
        if let EntryName::Whiteout(hidden) = classify(last).unwrap() {
            let slash: &[u8] = if parent.is_empty() { b"" } else { b"/" };
            let hidden = [parent, slash, hidden].concat();
            assert!(before.contains_key(&hidden), "{name} hides nothing");
            assert!(!after.contains_key(&hidden), "{name} hides an existing entry");
            continue;
        }
        let (a, b) = (before.get(path.as_bytes()), &after[path.as_bytes()]);
        let Some(a) = a else { continue };
        let unchanged = a.is_same(b) || incidental(Some(a), b, a, started);
        if entry.kind == EntryKind::Directory {
            let inside = [path.as_bytes(), b"/"].concat();
            let needed = paths.iter().any(|other| other.as_bytes().starts_with(&inside));
            assert!(!unchanged || needed, "the directory {name} has not changed");
        } else {
            assert!(
                !unchanged || linked.contains_key(&path.as_bytes().to_vec()),
                "{name} has not changed"
            );
        }
    }
}
