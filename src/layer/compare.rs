//! Compares two [`FileTree`]s.

use std::rc::Rc;

use crate::layer::file_tree::{FileKind, FileTree, Inode, Node};

/// A path at which two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The path relative to the root, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// The file in the first tree.
    pub before: Option<&'a Inode>,
    /// The file in the second tree.
    pub after: Option<&'a Inode>,
}

/// An aspect in which two files at one path can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// The file type.
    Type,
    /// A file's content.
    Content,
    /// A link's target.
    Target,
    /// A device number.
    Device,
    /// The permissions.
    Mode,
    /// The owner or the group.
    Owner,
    /// The extended attributes.
    Xattrs,
    /// The mtime.
    Time,
}

/// Returns all differences, sorted by the bytes of the paths. Includes the content of a directory that exists in only
/// one tree. Ignores hard link relations; compares times only if `times`.
pub fn compare<'a>(before: &'a FileTree, after: &'a FileTree, times: bool) -> Vec<Difference<'a>> {
    let mut differences = Vec::new();
    let mut todo = vec![(Vec::new(), Some(before.root()), Some(after.root()))];
    while let Some((path, before, after)) = todo.pop() {
        let same = match (before, after) {
            (Some(a), Some(b)) => is_same(&a.inode, &b.inode, times),
            _ => false,
        };
        let (below, below_after) = (children(before), children(after));
        let shared = match (below, below_after) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if !shared {
            let path_of = |name: &[u8]| {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                [&path, slash, name].concat()
            };
            for (name, node) in below.iter().flat_map(|children| &children.0) {
                let other = below_after.and_then(|children| children.0.get(name));
                todo.push((path_of(name), Some(node), other));
            }
            for (name, node) in below_after.iter().flat_map(|children| &children.0) {
                if below.is_none_or(|children| !children.0.contains_key(name)) {
                    todo.push((path_of(name), None, Some(node)));
                }
            }
        }
        if !same {
            let inode = |node: Option<&'a Node>| node.map(|node| &*node.inode);
            differences.push(Difference { path, before: inode(before), after: inode(after) });
        }
    }
    differences.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    differences
}

fn children(node: Option<&Node>) -> Option<&Rc<super::file_tree::Children>> {
    node?.children.as_ref()
}

/// Returns the aspects in which two files differ; if their types differ, their contents are not compared.
pub fn aspects(before: &Inode, after: &Inode) -> Vec<Aspect> {
    let kind = match (&before.kind, &after.kind) {
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => Some(Aspect::Type),
        (a, b) if a == b => None,
        (FileKind::Symlink(_), _) => Some(Aspect::Target),
        (FileKind::CharDevice(..) | FileKind::BlockDevice(..), _) => Some(Aspect::Device),
        _ => Some(Aspect::Content),
    };
    // Symbolic links have no mode of their own.
    let modes = !matches!(
        (&before.kind, &after.kind),
        (FileKind::Symlink(_), _) | (_, FileKind::Symlink(_))
    );
    let owners = (before.uid, before.gid) != (after.uid, after.gid);
    let others = [
        (modes && before.mode != after.mode, Aspect::Mode),
        (owners, Aspect::Owner),
        (before.xattrs != after.xattrs, Aspect::Xattrs),
        (before.mtime != after.mtime, Aspect::Time),
    ];
    kind.into_iter().chain(others.into_iter().filter(|it| it.0).map(|it| it.1)).collect()
}

fn is_same(before: &Inode, after: &Inode, times: bool) -> bool {
    if std::ptr::eq(before, after) || before == after {
        return true;
    }
    !times && aspects(before, after) == [Aspect::Time]
}
