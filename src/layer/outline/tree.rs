//! The entries of one layer, as hashes of their names.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// The number of the root directory.
pub(super) const ROOT: u32 = 0;

/// One layer's own entries. A key is the hash of a directory's number and a name in it, with a random seed; with 64
/// bits, two of a million entries collide with a probability of 10^-7, and nobody can choose them to.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) files: HashSet<u64, BuildHasherDefault<Identity>>,
    pub(super) others: HashMap<u64, Node, BuildHasherDefault<Identity>>,
    /// For each directory but the root: whether it hides the lower layers' content.
    pub(super) opaque: Vec<bool>,
    pub(super) opaque_root: bool,
    pub(super) links: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy)]
pub(super) enum Node {
    /// A directory, by number.
    Directory(u32),
    /// A symbolic link, by its index in [`Tree::links`].
    Link(u32),
    /// A whiteout.
    Whiteout,
}

/// A file at a name of one layer.
pub(super) enum Found {
    Nothing,
    File,
    Other(Node),
}

impl Tree {
    pub(super) fn get(&self, key: u64) -> Found {
        match self.others.get(&key) {
            Some(node) => Found::Other(*node),
            None if self.files.contains(&key) => Found::File,
            None => Found::Nothing,
        }
    }

    /// Creates a directory, unless there is one; returns its number. One that replaces something hides the lower layers'
    /// content.
    pub(super) fn make_directory(&mut self, key: u64) -> u32 {
        let mut opaque = self.files.remove(&key);
        match self.others.get(&key) {
            Some(Node::Directory(number)) => return *number,
            Some(_) => opaque = true,
            None => {}
        }
        self.opaque.push(opaque);
        let number = number(self.opaque.len());
        self.others.insert(key, Node::Directory(number));
        number
    }

    pub(super) fn hide_lower(&mut self, dir: u32) {
        match dir.checked_sub(1).and_then(|at| self.opaque.get_mut(at as usize)) {
            Some(opaque) => *opaque = true,
            None => self.opaque_root = true,
        }
    }

    pub(super) fn is_opaque(&self, dir: u32) -> bool {
        let of_dir = dir.checked_sub(1).and_then(|at| self.opaque.get(at as usize));
        of_dir.copied().unwrap_or(self.opaque_root)
    }
}

/// Converts a number of entries, which are bounded.
pub(super) fn number(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}

/// Passes keys through, which are hashes already.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
