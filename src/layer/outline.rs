//! The paths of layers and their types, without content or metadata: enough to find out, while a layer streams, whether
//! [`unpack`](crate::layer::unpack) will accept it.
//!
//! Keeps some twenty bytes for each entry. Each layer has its own tree, as in an overlay: a layer is checked without
//! those below it, unless it has a hard link to a file of a lower layer, which is rare.

mod tree;
mod walk;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::Read;

use crate::error::{Context, Error, Result};
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::path::{
    EntryName, EntryPath, HardLinkTarget, check_symlink_target, show, split_entry,
};
use crate::layer::read::TarReader;
use crate::layer::unpack::NO_ROOT;
use tree::{Found, Node, ROOT, Tree, number};
use walk::{Place, Walk, Walked, not_a_directory};

/// The maximum number of entries of a layer and those below it, directories without an entry included: far more than any
/// image has.
const MAX_ENTRIES: usize = 8_000_000;
/// So many bytes of a link's target count as an entry.
const TARGET: usize = 32;

/// The outlines of stacked layers, the lowest first.
#[derive(Default)]
pub struct Outline {
    lower: Vec<Tree>,
    /// Whether `lower` has all layers below the current one.
    complete: bool,
    current: Tree,
    /// Whether the current layer has a hard link to a file of a lower layer, which is not known.
    needs_lower: bool,
    entries: usize,
    ignored: BTreeSet<&'static str>,
    hasher: RandomState,
}

/// The target of a hard link.
enum Target {
    File,
    /// A symbolic link of the same layer, by its index in [`Tree::links`].
    Link(u32),
    /// A symbolic link of a lower layer, with its target.
    LowerLink(Box<[u8]>),
}

/// A file of the lower layers.
enum LowerFile<'a> {
    None,
    Directory,
    /// A symbolic link, with its target.
    Link(&'a [u8]),
    File,
}

const MISSING: &str = "is neither in this layer nor in those below";

impl Outline {
    /// Creates an outline for the lowest layer of an image, to which further ones may be added.
    pub fn of_image() -> Self {
        Outline { complete: true, ..Outline::default() }
    }

    /// Creates an outline for a layer whose lower layers are not known.
    pub fn of_layer() -> Self {
        Outline::default()
    }

    /// Reads the layer in `tar` to its end. Returns whether it can only be unpacked on certain lower layers, because of
    /// a hard link into them; false if all lower layers are known.
    ///
    /// # Errors
    /// `BadInput` for a layer that can't be unpacked; the message names the entry.
    pub fn add_layer(&mut self, tar: &mut dyn Read) -> Result<bool> {
        let mut reader = TarReader::new(tar);
        while let Some(entry) = reader.next_entry()? {
            self.add(&entry)?;
        }
        reader.drain()?;
        self.ignored.extend(reader.ignored());
        Ok(self.end_layer())
    }

    /// Returns what [`TarReader::ignored`] returned for the layers.
    pub fn ignored(&self) -> &BTreeSet<&'static str> {
        &self.ignored
    }

    /// Ends the current layer; the next entry belongs to the one above. Returns as [`Outline::add_layer`].
    pub fn end_layer(&mut self) -> bool {
        self.lower.push(std::mem::take(&mut self.current));
        std::mem::take(&mut self.needs_lower)
    }

    /// Adds an entry of the current layer.
    ///
    /// # Errors
    /// As [`Outline::add_layer`].
    pub fn add(&mut self, entry: &Entry) -> Result<()> {
        if self.needs_lower {
            // Everything depends on the lower layers now; the caller has to check the whole image.
            return Ok(());
        }
        self.entries += 1 + entry.link.len() / TARGET;
        if self.entries + self.current.opaque.len() > MAX_ENTRIES {
            return Err(Error::bad_input(format!("more than {MAX_ENTRIES} entries")));
        }
        self.apply(entry).context(format_args!("can't unpack {}", show(&entry.path)))
    }

    fn apply(&mut self, entry: &Entry) -> Result<()> {
        let path = EntryPath::parse(&entry.path)?;
        if path.is_root() {
            return match entry.kind {
                EntryKind::Directory => Ok(()),
                _ => Err(Error::bad_input(NO_ROOT)),
            };
        }
        let Some((parents, name, kind)) = split_entry(&path)? else { return Ok(()) };
        // Taken out, since the walk borrows their targets while it changes the tree.
        let links = std::mem::take(&mut self.current.links);
        let added = self.create_parents(&parents, &links).and_then(|parent| match kind {
            EntryName::Opaque => {
                self.current.hide_lower(parent.number);
                Ok(None)
            }
            EntryName::Whiteout(hidden) => {
                let key = self.key(parent.number, hidden);
                match self.current.get(key) {
                    Found::Other(Node::Directory(number)) => self.current.hide_lower(number),
                    Found::Nothing => drop(self.current.others.insert(key, Node::Whiteout)),
                    _ => {}
                }
                Ok(None)
            }
            _ => self.insert(&parent, name, entry, &links),
        });
        self.current.links = links;
        if let Some(target) = added? {
            self.current.links.push(target);
        }
        Ok(())
    }

    /// Inserts `entry` at `name`, replacing an existing one; a directory keeps its content. Returns the target of a new
    /// symbolic link, which the caller adds to the others.
    fn insert(
        &mut self,
        parent: &Place<'_>,
        name: &[u8],
        entry: &Entry,
        links: &[Box<[u8]>],
    ) -> Result<Option<Box<[u8]>>> {
        let key = self.key(parent.number, name);
        let mut target = None;
        let node = match entry.kind {
            EntryKind::Directory => {
                self.current.make_directory(key);
                return Ok(None);
            }
            EntryKind::Symlink => {
                check_symlink_target(&entry.link)?;
                target = Some(entry.link.as_slice().into());
                Some(Node::Link(number(links.len())))
            }
            EntryKind::HardLink => match self.hard_link_target(parent, name, &entry.link, links)? {
                Target::File => None,
                Target::Link(link) => Some(Node::Link(link)),
                Target::LowerLink(link) => {
                    target = Some(link);
                    Some(Node::Link(number(links.len())))
                }
            },
            _ => None,
        };
        match node {
            Some(node) => {
                self.current.files.remove(&key);
                self.current.others.insert(key, node);
            }
            None => {
                self.current.others.remove(&key);
                self.current.files.insert(key);
            }
        }
        Ok(target)
    }

    /// Returns the target of a hard link at `name` in `parent`.
    fn hard_link_target(
        &mut self,
        parent: &Place<'_>,
        name: &[u8],
        target: &[u8],
        links: &[Box<[u8]>],
    ) -> Result<Target> {
        let target = HardLinkTarget::parse(target)?;
        let (parents, last) = target.split();
        let wrong = |why| Err(target.refused(why));
        let (mut names, own) = match self.walk(&parents, links)? {
            Walked::Missing => return wrong(MISSING),
            Walked::Lower(names) => (names, None),
            Walked::Own(place) => match self.current.get(self.key(place.number, last)) {
                Found::Other(Node::Directory(_)) => return wrong("is a directory"),
                Found::Other(Node::Whiteout) => return wrong("the layer hides"),
                Found::Nothing if place.opaque => return wrong(MISSING),
                Found::Nothing => (place.names, None),
                Found::File => (place.names, Some(Target::File)),
                Found::Other(Node::Link(link)) => (place.names, Some(Target::Link(link))),
            },
        };
        let through_link = names != parents;
        names.push(last);
        let here: Vec<&[u8]> = parent.names.iter().copied().chain([name]).collect();
        if names == here {
            return wrong("is itself");
        }
        if names.starts_with(&here) {
            return wrong("it replaces");
        }
        if let Some(own) = own {
            return Ok(own);
        }
        if through_link {
            return wrong("a lower layer may have, but only through a link of this layer");
        }
        match self.lower_file(&names) {
            LowerFile::None if !self.complete => self.needs_lower = true,
            LowerFile::None => return wrong(MISSING),
            LowerFile::Directory => return wrong("is a directory"),
            LowerFile::Link(link) => return Ok(Target::LowerLink(link.into())),
            LowerFile::File => {}
        }
        Ok(Target::File)
    }

    /// Goes to the directory `names` of the current layer, creating missing ones. Follows links of this layer; replaces
    /// files and links of lower layers by directories.
    fn create_parents<'a>(
        &mut self,
        names: &[&'a [u8]],
        links: &'a [Box<[u8]>],
    ) -> Result<Place<'a>> {
        let mut walk = Walk::new(names, links);
        while let Some(name) = walk.todo.pop() {
            let key = self.key(walk.number(), name);
            match self.current.get(key) {
                Found::Other(Node::Directory(number)) => walk.enter(name, number)?,
                Found::Other(Node::Link(link)) => walk.follow(link)?,
                Found::File => return Err(not_a_directory(&walk, name)),
                Found::Other(Node::Whiteout) | Found::Nothing => {
                    let number = self.current.make_directory(key);
                    walk.enter(name, number)?;
                }
            }
        }
        Ok(walk.place(&self.current))
    }

    /// Goes to the directory `names` of the current layer.
    fn walk<'a>(&self, names: &[&'a [u8]], links: &'a [Box<[u8]>]) -> Result<Walked<'a>> {
        let mut walk = Walk::new(names, links);
        while let Some(name) = walk.todo.pop() {
            match self.current.get(self.key(walk.number(), name)) {
                Found::Other(Node::Directory(number)) => walk.enter(name, number)?,
                Found::Other(Node::Link(link)) => walk.follow(link)?,
                Found::File => return Err(not_a_directory(&walk, name)),
                Found::Other(Node::Whiteout) => return Ok(Walked::Missing),
                Found::Nothing if walk.is_opaque(&self.current) => return Ok(Walked::Missing),
                Found::Nothing => {
                    let rest = std::iter::once(name).chain(walk.todo.into_iter().rev());
                    let own = walk.here.into_iter().map(|(name, _)| name);
                    return Ok(Walked::Lower(own.chain(rest).collect()));
                }
            }
        }
        Ok(Walked::Own(walk.place(&self.current)))
    }

    /// Finds the file at `names` in the merged lower layers. Follows no links.
    fn lower_file(&self, names: &[&[u8]]) -> LowerFile<'_> {
        let mut dirs: Vec<(&Tree, u32)> = Vec::new();
        for tree in self.lower.iter().rev() {
            dirs.push((tree, ROOT));
            if tree.opaque_root {
                break;
            }
        }
        for (at, name) in names.iter().enumerate() {
            let mut next = Vec::new();
            let is_last = at + 1 == names.len();
            for (tree, dir) in dirs {
                match tree.get(self.key(dir, name)) {
                    Found::Nothing => continue,
                    Found::Other(Node::Directory(number)) => {
                        next.push((tree, number));
                        if !tree.is_opaque(number) {
                            continue;
                        }
                    }
                    Found::File if is_last && next.is_empty() => return LowerFile::File,
                    Found::Other(Node::Link(link)) if is_last && next.is_empty() => {
                        return LowerFile::Link(&tree.links[link as usize]);
                    }
                    // It hides those below.
                    _ => {}
                }
                break;
            }
            if next.is_empty() {
                return LowerFile::None;
            }
            dirs = next;
        }
        LowerFile::Directory
    }

    fn key(&self, dir: u32, name: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        dir.hash(&mut hasher);
        hasher.write(name);
        hasher.finish()
    }
}
