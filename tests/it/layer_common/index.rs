//! Compares file trees of layers, and their differences, with the trees that unpacking produces.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use svp::error::Result;
use svp::layer::compare::compare;
use svp::layer::entry::{EntryKind, Timestamp};
use svp::layer::file_tree::FileTree;
use svp::layer::path::show;
use svp::layer::snapshot::{self, Node, Snapshot};

use super::{open, sketch};

/// An image that grows: the file tree and the unpacked tree of each stage.
#[derive(Default)]
pub struct Stages(Vec<(FileTree, Snapshot)>);

impl Stages {
    /// Adds a layer; `root` is the tree with it.
    pub fn add(&mut self, tar: &[u8], root: &Path) -> Result<()> {
        let mut index = self.0.last().map(|(index, _)| index.clone()).unwrap_or_default();
        index.add_layer(&mut &*tar)?;
        let mut tree = snapshot::take(open(root).as_fd()).unwrap();
        // The root of a plain tree is not created by layers that don't mention it.
        tree.remove(&b""[..]);
        self.0.push((index, tree));
        Ok(())
    }

    /// Returns the lines that are valid in a next layer, each after the valid ones before it.
    pub fn taken<'a>(&self, lines: &[&'a str]) -> Vec<&'a str> {
        let index = self.0.last().map(|(index, _)| index.clone()).unwrap_or_default();
        let mut taken: Vec<&str> = Vec::new();
        for line in lines {
            taken.push(line);
            if index.clone().add_layer(&mut &*sketch(&taken)).is_err() {
                taken.pop();
            }
        }
        taken
    }

    /// Panics unless the differences of every two stages, and of each from an empty tree, equal those of their trees.
    #[track_caller]
    pub fn agree(&self) {
        let nothing = (FileTree::default(), Snapshot::new());
        let stages: Vec<_> = self.0.iter().chain([&nothing]).collect();
        for before in &stages {
            for after in &stages {
                for times in [false, true] {
                    let mut printed: Vec<_> = compare(&before.0, &after.0, times)
                        .into_iter()
                        .map(|it| (it.path, it.before.is_some(), it.after.is_some()))
                        .collect();
                    printed.retain(|it| !it.0.is_empty());
                    assert_eq!(shown(&printed), shown(&differences(&before.1, &after.1, times)));
                }
            }
        }
    }
}

type Printed = (Vec<u8>, bool, bool);

fn shown(printed: &[Printed]) -> Vec<String> {
    printed.iter().map(|(path, before, after)| format!("{} {before} {after}", show(path))).collect()
}

/// Returns the paths that differ, and on which side they exist.
fn differences(before: &Snapshot, after: &Snapshot, times: bool) -> Vec<Printed> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let printed = paths.into_iter().filter_map(|path| {
        let (a, b) = (before.get(path), after.get(path));
        let same = match (a, b) {
            (Some(a), Some(b)) => counted(a, times).is_same(&counted(b, times)),
            _ => false,
        };
        (!same).then(|| (path.clone(), a.is_some(), b.is_some()))
    });
    printed.collect()
}

/// Returns the properties of a file that count as differences.
fn counted(node: &Node, times: bool) -> Node {
    let mut node = node.clone();
    if node.entry.kind == EntryKind::Symlink {
        node.entry.mode = 0o777;
    }
    if !times {
        node.entry.mtime = Timestamp::default();
    }
    node
}
