//! Whether an index of layers and what it compares tell of the trees that unpacking makes.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use svp::error::Result;
use svp::layer::compare::compare;
use svp::layer::entry::{EntryKind, Timestamp};
use svp::layer::index::Index;
use svp::layer::path::show;
use svp::layer::snapshot::{self, Node, Snapshot};

use super::{open, sketch};

/// An image as it grows: what is told of it, and what there is.
#[derive(Default)]
pub struct Stages(Vec<(Index, Snapshot)>);

impl Stages {
    /// Puts a layer on; `root` is the tree with it.
    pub fn add(&mut self, tar: &[u8], root: &Path) -> Result<()> {
        let mut index = self.0.last().map(|(index, _)| index.clone()).unwrap_or_default();
        index.add_layer(&mut &*tar)?;
        let mut tree = snapshot::take(open(root).as_fd()).unwrap();
        // A tree's own root is not made by layers that don't mention it.
        tree.remove(&b""[..]);
        self.0.push((index, tree));
        Ok(())
    }

    /// The lines that a next layer of them may have, each with those before it.
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

    /// Panics unless every two stages differ as their trees do, and each from nothing.
    #[track_caller]
    pub fn agree(&self) {
        let nothing = (Index::default(), Snapshot::new());
        let stages: Vec<_> = self.0.iter().chain([&nothing]).collect();
        for before in &stages {
            for after in &stages {
                for times in [false, true] {
                    let mut told: Vec<_> = compare(&before.0, &after.0, times)
                        .into_iter()
                        .map(|it| (it.path, it.before.is_some(), it.after.is_some()))
                        .collect();
                    told.retain(|it| !it.0.is_empty());
                    assert_eq!(shown(&told), shown(&differences(&before.1, &after.1, times)));
                }
            }
        }
    }
}

type Told = (Vec<u8>, bool, bool);

fn shown(told: &[Told]) -> Vec<String> {
    told.iter().map(|(path, before, after)| format!("{} {before} {after}", show(path))).collect()
}

/// The paths that differ, and on which side they are there.
fn differences(before: &Snapshot, after: &Snapshot, times: bool) -> Vec<Told> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let told = paths.into_iter().filter_map(|path| {
        let (a, b) = (before.get(path), after.get(path));
        let same = match (a, b) {
            (Some(a), Some(b)) => counted(a, times).is_same(&counted(b, times)),
            _ => false,
        };
        (!same).then(|| (path.clone(), a.is_some(), b.is_some()))
    });
    told.collect()
}

/// What counts of a file.
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
