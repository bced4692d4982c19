//! Verifies unpacked layers: unpacks each blob again and compares the two trees.

use std::collections::HashSet;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::directories::{LAYERS, key};
use super::layer_store::LayerSource;
use super::overlay;
use crate::channel::Channel;
use crate::error::Result;
use crate::interrupt;
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::path::show;
use crate::layer::snapshot::{self, Difference, Node, Snapshot};
use crate::sandbox::create::Sandbox;
use crate::sandbox::landlock::{self, Access};
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// The maximum number of reported differences of a layer.
const MAX_REPORTED: usize = 10;

/// An unpacked layer that differs from its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AlteredLayer {
    /// The name of its directory, as [`CachedTree::key_of`](crate::sandbox::CachedTree::key_of) gives it.
    pub key: String,
    /// The differences, one line each: at most ten, and the number of the rest.
    pub differences: Vec<String>,
}

impl Sandbox {
    /// Compares the unpacked layers of an image, the lowest first, with their blobs: type, owner, mode, size, content,
    /// target, attributes and time of every file, and its hard links. Skips layers that aren't unpacked for this id map
    /// and those whose key is in `seen`; adds the keys of the compared layers to `seen`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a damaged blob,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn altered(
        &self,
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        seen: &mut HashSet<String>,
    ) -> Result<Vec<AlteredLayer>> {
        let mut rootfs = self.empty_build_rootfs()?;
        let mut altered = Vec::new();
        for layer in layers {
            interrupt::check()?;
            let layer = layer?;
            let key = key(&layer.chain_id);
            let fs = format!("{LAYERS}/{key}/fs");
            if !self.layer_store().join(&fs).is_dir() {
                break;
            }
            if seen.insert(key.clone()) {
                let again = rootfs.unpack_again(&layer)?;
                let request = CompareRequest([format!("{again}/fs"), fs.clone()]);
                let stage = Stage::start(self.layer_store(), &request, &[self.namespace()])?;
                let differences = stage.finish()?;
                self.remove(vec![again])?;
                if !differences.is_empty() {
                    altered.push(AlteredLayer { key, differences });
                }
            }
            rootfs.push_layer(fs);
        }
        Ok(altered)
    }
}

/// Request: list how the second of two trees differs from the first. Descriptors: the user namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct CompareRequest([String; 2]);

impl Request for CompareRequest {
    const NAME: &'static str = "compare";
    type Answer = Vec<String>;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<Vec<String>> {
        namespace::join(channel, fds.take()?)?;
        compare(&self.0)
    }
}

fn compare([meant, found]: &[String; 2]) -> Result<Vec<String>> {
    landlock::restrict(&[(overlay::open(".")?.as_fd(), Access::Read)])?;
    let take = |path: &str| -> Result<Snapshot> {
        let mut tree = snapshot::take(overlay::open(path)?.as_fd())?;
        // Ignore the times of directories and whiteouts: for a whiteout, or a directory that no layer contains, it is
        // the time of creation.
        for node in tree.values_mut().filter(|node| has_no_time(&node.entry)) {
            node.entry.mtime = Default::default();
        }
        Ok(tree)
    };
    let (meant, found) = (take(meant)?, take(found)?);
    let differences = snapshot::compare(&meant, &found);
    let mut lines: Vec<String> = (differences.iter().take(MAX_REPORTED))
        .map(|(path, difference)| line(path, difference, &meant, &found))
        .collect();
    if differences.len() > MAX_REPORTED {
        lines.push(format!("and {} more", differences.len() - MAX_REPORTED));
    }
    Ok(lines)
}

fn has_no_time(entry: &Entry) -> bool {
    let whiteout = entry.kind == EntryKind::CharDevice && (entry.major, entry.minor) == (0, 0);
    whiteout || entry.kind == EntryKind::Directory
}

fn line(path: &[u8], difference: &Difference, meant: &Snapshot, found: &Snapshot) -> String {
    let what = match difference {
        Difference::Added => "is not in the layer".to_owned(),
        Difference::Removed => "is missing".to_owned(),
        Difference::Changed => {
            format!("differs in {}", meant.get(path).zip(found.get(path)).map_or("state", changed))
        }
        Difference::Linked { with, now: true } => format!("is a hard link to {}", show(with)),
        Difference::Linked { with, now: false } => {
            format!("is no longer a hard link to {}", show(with))
        }
    };
    format!("{} {what}", show(&[b"/", path].concat()))
}

/// Returns the first attribute that differs.
fn changed((meant, found): (&Node, &Node)) -> &'static str {
    let (a, b) = (&meant.entry, &found.entry);
    match () {
        () if a.kind != b.kind => "type",
        () if a.size != b.size => "size",
        () if meant.content != found.content => "content",
        () if a.link != b.link => "target",
        () if a.mode != b.mode => "mode",
        () if (a.uid, a.gid) != (b.uid, b.gid) => "owner",
        () if a.xattrs != b.xattrs => "attribute",
        () if (a.major, a.minor) != (b.major, b.minor) => "device number",
        () => "time",
    }
}
