//! Lists, measures and removes the unpacked layers of every id map.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directories::{FORMAT, LAYERS, LOCKS, SERVICES, TMP, VOLUMES, key, names};
use super::remove::RemoveRequest;
use crate::channel::Channel;
use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::layer::unpack::UnpackReport;
use crate::oci::Digest;
use crate::random_name::random_name;
use crate::rootfs::{self, Cursor};
use crate::sandbox::create::Sandbox;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// A tree of a layer store: an unpacked layer, a build directory, a service's writes or a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CachedTree {
    /// The layer store that contains it.
    layer_store: PathBuf,
    /// The directory of the layer store that contains it, such as [`LAYERS`] or [`TMP`].
    dir: &'static str,
    /// The name of the tree's directory; for a layer, the beginning of its chain ID.
    key: String,
    /// Whether this version of svp can use it.
    known: bool,
}

impl CachedTree {
    /// Returns the name of the directory of the layer with this chain ID.
    pub(crate) fn key_of(chain_id: &Digest) -> String {
        key(chain_id)
    }

    /// Whether it is a layer in a format that this version of svp reads, and its [`CachedTree::key_of`] is in
    /// `keys`.
    pub(crate) fn is_among(&self, keys: &HashSet<String>) -> bool {
        self.known && self.dir == LAYERS && keys.contains(&self.key)
    }

    /// Whether it is a volume.
    pub(crate) fn is_volume(&self) -> bool {
        self.dir == VOLUMES
    }

    /// Whether it is a build directory.
    pub(crate) fn is_build_rootfs(&self) -> bool {
        self.dir == TMP
    }

    /// Whether a layer has all parts of a published layer. Does not verify the content.
    pub(crate) fn is_whole(&self) -> bool {
        let report = fs::read(self.path().join("report"));
        let report = report.is_ok_and(|text| serde_json::from_slice::<UnpackReport>(&text).is_ok());
        report && self.path().join("fs").is_dir()
    }

    /// Returns the name of its directory.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.layer_store.join(self.dir).join(&self.key)
    }
}

impl Sandbox {
    /// Lists the unpacked layers and the build directories below `trees`, for this id map and for earlier
    /// ones.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn cached_trees(trees: &Path) -> Result<Vec<CachedTree>> {
        let mut found = Vec::new();
        for layer_store in names(trees)? {
            let known = layer_store.ends_with(&format!("-{FORMAT}"));
            let layer_store = trees.join(layer_store);
            for dir in [LAYERS, TMP] {
                for key in names(&layer_store.join(dir))? {
                    found.push(CachedTree { layer_store: layer_store.clone(), dir, key, known });
                }
            }
        }
        Ok(found)
    }

    /// Lists the services' writes and the volumes, for every id map.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn persistent_trees(trees: &Path) -> Result<Vec<CachedTree>> {
        let mut found = Vec::new();
        for layer_store in names(trees)?.into_iter().map(|layer_store| trees.join(layer_store)) {
            for dir in [SERVICES, VOLUMES] {
                for key in names(&layer_store.join(dir))? {
                    found.push(CachedTree {
                        layer_store: layer_store.clone(),
                        dir,
                        key,
                        known: true,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Lists unexpected files below `trees` and in its layer stores.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn strays(trees: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for layer_store in names(trees)? {
            let path = trees.join(&layer_store);
            let is_layer_store = layer_store.split_once('-').is_some_and(|(map, format)| {
                map.bytes().all(|b| b.is_ascii_hexdigit()) && format.parse::<u32>().is_ok()
            });
            if !is_layer_store || !path.is_dir() {
                found.push(path);
                continue;
            }
            let known = [LAYERS, LOCKS, TMP, SERVICES, VOLUMES];
            let strays = names(&path)?.into_iter().filter(|name| !known.contains(&&**name));
            found.extend(strays.map(|name| path.join(name)));
        }
        Ok(found)
    }

    /// Whether a layer is unpacked for the current id map.
    pub(crate) fn holds(&self, layer: &CachedTree) -> bool {
        layer.layer_store == self.layer_store()
    }

    /// Returns the disk space that each tree takes; bytes.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn measure(&self, layers: &[CachedTree]) -> Result<Vec<u64>> {
        let mut sizes = Vec::with_capacity(layers.len());
        for group in layers.chunk_by(|a, b| a.layer_store == b.layer_store) {
            let paths = group.iter().map(|tree| format!("{}/{}", tree.dir, tree.key)).collect();
            let layer_store = &group[0].layer_store;
            let stage =
                Stage::start(layer_store, &MeasureRequest(paths), &self.owner_of(layer_store))?;
            sizes.extend(stage.finish()?);
        }
        Ok(sizes)
    }

    /// Removes unpacked layers, which must not be in use.
    ///
    /// Renames each layer first, so that an interrupt leaves no partly removed layer.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage), for example if a layer belongs to an id map that the
    /// caller no longer has.
    pub(crate) fn remove_cached(&self, layers: &[CachedTree]) -> Result<()> {
        let _cleaning = interrupt::cleaning();
        for group in layers.chunk_by(|a, b| a.layer_store == b.layer_store) {
            let layer_store = &group[0].layer_store;
            let mut paths = Vec::new();
            for layer in group {
                if layer.is_build_rootfs() {
                    paths.push(format!("{TMP}/{}", layer.key));
                    continue;
                }
                let name = random_name();
                let away = format!("{TMP}/{name}");
                fs::rename(layer.path(), layer_store.join(&away)).io("remove", layer.path())?;
                paths.extend([away, format!("{LOCKS}/{}", layer.key)]);
            }
            Stage::start_cleanup(layer_store, &RemoveRequest(paths), &self.owner_of(layer_store))?
                .finish()?;
        }
        Ok(())
    }

    /// Returns the user namespace in which to read and remove the trees of `layer_store`: this sandbox's. Returns none
    /// for the trees of an earlier id map of root, which only the host's root can access.
    fn owner_of(&self, layer_store: &Path) -> Vec<BorrowedFd<'_>> {
        let foreign = layer_store != self.layer_store() && rustix::process::geteuid().is_root();
        if foreign { Vec::new() } else { vec![self.namespace()] }
    }
}

/// Request: measure trees, given by paths relative to the stage's directory. A file with several hard links counts once
/// in each tree. Descriptors: the user namespace, if they belong to one.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct MeasureRequest(Vec<String>);

impl Request for MeasureRequest {
    const NAME: &'static str = "measure";
    type Answer = Vec<u64>;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<Vec<u64>> {
        fds.take_optional().map_or(Ok(()), |namespace| namespace::join(channel, namespace))?;
        self.0.iter().map(|path| tree_size(path).io("measure", path)).collect()
    }
}

fn tree_size(path: &str) -> rustix::io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(path, flags, Mode::empty()) {
        // The build directory may have been removed when its command ended; svp creates only directories here.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(0),
        other => other?,
    };
    let mut cursor = Cursor::new(root.as_fd())?;
    let mut linked = HashSet::new();
    let mut blocks = rustix::fs::fstat(&root)?.st_blocks as u64;
    let mut frames = vec![rootfs::list(cursor.dir())?];
    while let Some(names) = frames.last_mut() {
        let Some(name) = names.pop() else {
            frames.pop();
            cursor.pop()?;
            continue;
        };
        let stat = match statat(cursor.dir(), &*name.bytes, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let is_dir = name.kind == FileType::Directory;
        if is_dir || stat.st_nlink == 1 || linked.insert(stat.st_ino) {
            blocks += stat.st_blocks as u64;
        }
        if is_dir {
            match cursor.push(&name.bytes) {
                Ok(()) => frames.push(rootfs::list(cursor.dir())?),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(blocks * 512)
}
