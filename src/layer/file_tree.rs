//! The content of stacked layers in memory: every path with its metadata, file contents as digests.
//!
//! Follows the rules of [`unpack`](crate::layer::unpack), so that a file tree is the tree that unpacking would create,
//! including everything that a host can't create. Copies share unchanged parts: two images on one base hold the base
//! once, and [`compare`](crate::layer::compare) skips shared parts.

mod inode;

use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::file_tree::inode::{inode_of, memory_size, read_kind};
use crate::layer::path::{
    EntryName, EntryPath, HardLinkTarget, LinkTarget, MAX_NAME, MAX_PATH, parse_link_target, show,
    split_entry,
};
use crate::layer::read::TarReader;
use crate::layer::unpack::NO_ROOT;
use crate::layer::unpack::tree::MOST_LINKS;

pub use crate::layer::file_tree::inode::{FileKind, Inode};

/// Approximate memory use of an entry besides its name, target and attributes, in bytes.
const ENTRY: u64 = 250;
/// The maximum memory use of a file tree, in bytes: some four million entries, more than any image has.
const MAX_MEMORY: u64 = 1 << 30;

/// The content of layers, with later ones applied on top of earlier ones.
#[derive(Clone)]
pub struct FileTree {
    root: Node,
    /// The number of the layer being applied.
    layer: u32,
    /// Approximate memory use, in bytes, including replaced entries.
    memory: u64,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) inode: Rc<Inode>,
    /// The layer that created or recreated it.
    layer: u32,
    /// A directory's entries.
    pub(super) children: Option<Rc<Children>>,
}

type Map = BTreeMap<Box<[u8]>, Node>;

/// A directory's entries, by name.
#[derive(Clone, Default)]
pub(super) struct Children(pub(super) Map);

impl Drop for Children {
    /// Drops iteratively: directories may be nested deeper than the stack allows.
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut todo = vec![std::mem::take(&mut self.0)];
        while let Some(map) = todo.pop() {
            for children in map.into_values().filter_map(|node| node.children) {
                if let Some(mut children) = Rc::into_inner(children) {
                    todo.push(std::mem::take(&mut children.0));
                }
            }
        }
    }
}

impl Default for FileTree {
    fn default() -> Self {
        FileTree { root: Node::directory(0), layer: 0, memory: 0 }
    }
}

/// The directories of a path, with links resolved: the existing ones, and those still to be created.
struct ResolvedPath {
    existing: Vec<Box<[u8]>>,
    missing: Vec<Box<[u8]>>,
}

impl FileTree {
    /// Applies the layer in `tar` on top, and reads `tar` to its end.
    ///
    /// # Errors
    /// `BadInput` for a layer that can't be unpacked, or has too many entries to compare; the message names the entry.
    /// The file tree then contains part of the layer.
    pub fn add_layer(&mut self, tar: &mut dyn Read) -> Result<()> {
        self.layer += 1;
        let mut reader = TarReader::new(tar);
        while let Some(entry) = reader.next_entry()? {
            interrupt::check()?;
            self.add(&entry, &mut reader)
                .context(format_args!("can't read {}", show(&entry.path)))?;
        }
        reader.drain()
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    fn add(&mut self, entry: &Entry, reader: &mut TarReader<'_>) -> Result<()> {
        let path = EntryPath::parse(&entry.path)?;
        if path.is_root() {
            if entry.kind != EntryKind::Directory {
                return Err(Error::bad_input(NO_ROOT));
            }
            self.root.inode = Rc::new(inode_of(entry, FileKind::Directory));
            return Ok(());
        }
        let Some((parents, name, kind)) = split_entry(&path)? else { return Ok(()) };
        let resolved = self.resolve(&parents)?;
        let length: usize =
            resolved.existing.iter().chain(&resolved.missing).map(|name| name.len() + 1).sum();
        if length + name.len() > MAX_PATH {
            return Err(Error::bad_input(format!(
                "its links lead to a path longer than {MAX_PATH} bytes"
            )));
        }
        let parent = self.create_missing(resolved)?;
        let layer = self.layer;
        match kind {
            EntryName::Opaque => {
                self.children_at_mut(&parent).retain(|_, node| node.drop_lower_content(layer))
            }
            EntryName::Whiteout(hidden) => {
                let dir = self.children_at_mut(&parent);
                if dir.get_mut(hidden).is_some_and(|node| !node.drop_lower_content(layer)) {
                    dir.remove(hidden);
                }
            }
            _ => self.insert(&parent, name, entry, reader)?,
        }
        Ok(())
    }

    /// Inserts `entry` at `name`, replacing an existing one; a directory keeps its content.
    fn insert(
        &mut self,
        parent: &[Box<[u8]>],
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<'_>,
    ) -> Result<()> {
        let layer = self.layer;
        let found = match entry.kind {
            EntryKind::HardLink => self.hard_link_target(parent, name, &entry.link)?,
            EntryKind::Directory => Rc::new(inode_of(entry, FileKind::Directory)),
            _ => Rc::new(inode_of(entry, read_kind(entry, reader)?)),
        };
        self.reserve_memory(ENTRY + (name.len() + entry.link.len()) as u64 + memory_size(&found))?;
        let dir = self.children_at_mut(parent);
        let children = match dir.get_mut(name) {
            Some(node) if entry.kind == EntryKind::Directory => node.children.take(),
            _ => None,
        };
        let mut node = Node { inode: found, layer, children };
        if entry.kind == EntryKind::Directory {
            node.children.get_or_insert_default();
        }
        dir.insert(name.into(), node);
        Ok(())
    }

    /// Returns the target of a hard link at `name`.
    fn hard_link_target(
        &self,
        parent: &[Box<[u8]>],
        name: &[u8],
        target: &[u8],
    ) -> Result<Rc<Inode>> {
        let target = HardLinkTarget::parse(target)?;
        let (parents, last) = target.split();
        let wrong = |why| Err(target.refused(why));
        let to = self.resolve(&parents)?;
        let found = if to.missing.is_empty() {
            self.children_at(&to.existing).and_then(|dir| dir.get(last))
        } else {
            None
        };
        let Some(found) = found else {
            return wrong("is neither in this layer nor in those below");
        };
        if found.children.is_some() {
            return wrong("is a directory");
        }
        let full = |dir: &[Box<[u8]>], name: &[u8]| [dir, &[name.into()]].concat();
        let (own, its) = (full(parent, name), full(&to.existing, last));
        if own == its {
            return wrong("is itself");
        }
        if its.starts_with(&own) {
            return wrong("it replaces");
        }
        Ok(found.inode.clone())
    }

    /// Resolves `names`. Follows links that this layer created; other non-directories are to be replaced.
    fn resolve(&self, names: &[&[u8]]) -> Result<ResolvedPath> {
        let mut here: Vec<(&[u8], &Node)> = Vec::new();
        let mut todo: Vec<&[u8]> = names.iter().rev().copied().collect();
        let mut links = 0;
        while let Some(name) = todo.last().copied() {
            let dir = here.last().map_or(&self.root, |(_, node)| node);
            let Some((name, node)) = dir.children.as_ref().and_then(|c| c.0.get_key_value(name))
            else {
                break;
            };
            if node.children.is_some() {
                here.push((name, node));
                todo.pop();
                continue;
            }
            if node.layer != self.layer {
                break;
            }
            let FileKind::Symlink(target) = &node.inode.kind else {
                let name = show(name);
                return Err(Error::bad_input(format!("{name} is not a directory in this layer")));
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(Error::bad_input("its path has too many symbolic links"));
            }
            let LinkTarget { absolute, up, down } = parse_link_target(target);
            here.truncate(if absolute { 0 } else { here.len().saturating_sub(up) });
            todo.pop();
            todo.extend(down.into_iter().rev());
        }
        let existing = here.into_iter().map(|(name, _)| name.into()).collect();
        let missing: Vec<Box<[u8]>> = todo.into_iter().rev().map(Into::into).collect();
        if missing.iter().any(|name| name.len() > MAX_NAME) {
            return Err(Error::bad_input("a link leads to a name longer than 255 bytes"));
        }
        Ok(ResolvedPath { existing, missing })
    }

    /// Returns the entries of the directory.
    fn children_at(&self, names: &[Box<[u8]>]) -> Option<&Map> {
        let mut map = &self.root.children.as_ref()?.0;
        for name in names {
            map = &map.get(name)?.children.as_ref()?.0;
        }
        Some(map)
    }

    /// Returns the entries of the directory, for changes.
    fn children_at_mut(&mut self, names: &[Box<[u8]>]) -> &mut Map {
        let mut map = self.root.children_mut();
        for name in names {
            map = map.get_mut(name).expect("it exists").children_mut();
        }
        map
    }

    /// Creates the missing directories; returns the names of all.
    fn create_missing(&mut self, resolved: ResolvedPath) -> Result<Vec<Box<[u8]>>> {
        let ResolvedPath { mut existing, missing } = resolved;
        let names: usize = missing.iter().map(|name| name.len()).sum();
        self.reserve_memory(ENTRY * missing.len() as u64 + names as u64)?;
        let layer = self.layer;
        let mut map = self.children_at_mut(&existing);
        for name in &missing {
            map.insert(name.clone(), Node::directory(layer));
            map = map.get_mut(name).expect("it was just created").children_mut();
        }
        existing.extend(missing);
        Ok(existing)
    }

    fn reserve_memory(&mut self, bytes: u64) -> Result<()> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MAX_MEMORY {
            return Err(Error::bad_input("the image has too many entries to compare"));
        }
        Ok(())
    }
}

impl Node {
    /// Creates a directory that no layer mentions.
    fn directory(layer: u32) -> Self {
        let entry = Entry::new("", EntryKind::Directory, 0o755);
        let inode = Rc::new(inode_of(&entry, FileKind::Directory));
        Node { inode, layer, children: Some(Rc::default()) }
    }

    fn children_mut(&mut self) -> &mut Map {
        &mut Rc::make_mut(self.children.get_or_insert_default()).0
    }

    /// Removes lower layers' content from it and below it; returns false if nothing else is left.
    fn drop_lower_content(&mut self, layer: u32) -> bool {
        if !self.has_own(layer) {
            return false;
        }
        if self.children.as_ref().is_some_and(|children| !children.0.is_empty()) {
            // The recursion is at most as deep as a path has names.
            self.children_mut().retain(|_, child| child.drop_lower_below(layer));
        }
        true
    }

    fn drop_lower_below(&mut self, layer: u32) -> bool {
        if self.children.as_ref().is_some_and(|children| !children.0.is_empty()) {
            self.children_mut().retain(|_, child| child.drop_lower_below(layer));
        }
        self.layer == layer || self.children.as_ref().is_some_and(|it| !it.0.is_empty())
    }

    /// Returns whether the layer created it or anything in it.
    fn has_own(&self, layer: u32) -> bool {
        let mut todo = vec![self];
        while let Some(node) = todo.pop() {
            if node.layer == layer {
                return true;
            }
            todo.extend(node.children.iter().flat_map(|children| children.0.values()));
        }
        false
    }
}
