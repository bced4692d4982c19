//! Walks through the current layer, following its symbolic links.

use super::tree::{ROOT, Tree};
use crate::error::{Error, Result};
use crate::layer::path::{LinkTarget, MAX_NAME, MAX_PATH, parse_link_target, show};
use crate::layer::unpack::tree::MOST_LINKS;

/// A directory of the current layer.
pub(super) struct Place<'a> {
    pub(super) names: Vec<&'a [u8]>,
    pub(super) number: u32,
    /// Whether it or a directory above it hides the lower layers' content.
    pub(super) opaque: bool,
}

/// The end of a walk through the current layer that creates nothing.
pub(super) enum Walked<'a> {
    /// The directory.
    Own(Place<'a>),
    /// A directory that this layer doesn't have, but those below may.
    Lower(Vec<&'a [u8]>),
    /// A directory that no layer has, or that this layer hides.
    Missing,
}

/// A walk through the current layer.
pub(super) struct Walk<'a> {
    links: &'a [Box<[u8]>],
    /// The directories entered, without the root.
    pub(super) here: Vec<(&'a [u8], u32)>,
    /// The remaining names, the next one last.
    pub(super) todo: Vec<&'a [u8]>,
    followed: usize,
    length: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(names: &[&'a [u8]], links: &'a [Box<[u8]>]) -> Self {
        let todo = names.iter().rev().copied().collect();
        Walk { links, here: Vec::with_capacity(names.len()), todo, followed: 0, length: 0 }
    }

    pub(super) fn number(&self) -> u32 {
        self.here.last().map_or(ROOT, |(_, number)| *number)
    }

    pub(super) fn enter(&mut self, name: &'a [u8], number: u32) -> Result<()> {
        if name.len() > MAX_NAME {
            return Err(Error::bad_input("a link leads to a name longer than 255 bytes"));
        }
        self.length += name.len() + 1;
        if self.length > MAX_PATH {
            return Err(Error::bad_input(format!(
                "its links lead to a path longer than {MAX_PATH} bytes"
            )));
        }
        self.here.push((name, number));
        Ok(())
    }

    pub(super) fn follow(&mut self, link: u32) -> Result<()> {
        self.followed += 1;
        if self.followed > MOST_LINKS {
            return Err(Error::bad_input("its path has too many symbolic links"));
        }
        let target = self.links.get(link as usize).map(|target| &**target).unwrap_or_default();
        let LinkTarget { absolute, up, down } = parse_link_target(target);
        self.here.truncate(if absolute { 0 } else { self.here.len().saturating_sub(up) });
        self.length = self.here.iter().map(|(name, _)| name.len() + 1).sum();
        self.todo.extend(down.into_iter().rev());
        Ok(())
    }

    pub(super) fn is_opaque(&self, tree: &Tree) -> bool {
        tree.opaque_root || self.here.iter().any(|(_, number)| tree.is_opaque(*number))
    }

    pub(super) fn place(self, tree: &Tree) -> Place<'a> {
        let (number, opaque) = (self.number(), self.is_opaque(tree));
        Place { names: self.here.into_iter().map(|(name, _)| name).collect(), number, opaque }
    }
}

pub(super) fn not_a_directory(walk: &Walk<'_>, name: &[u8]) -> Error {
    let mut path: Vec<&[u8]> = walk.here.iter().map(|(name, _)| *name).collect();
    path.push(name);
    Error::bad_input(format!("{} is not a directory in this layer", show(&path.join(&b'/'))))
}
