//! Verifies that each unpacked layer is complete and matches its blob.

use std::collections::{HashMap, HashSet};

use super::{Check, REMOVE, Reached, STRAY, UNPACK};
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::progress::{Step, Warning};
use crate::sandbox::layer_sources;
use crate::sandbox::{AlteredLayer, CachedTree, Sandbox};

impl Check<'_> {
    /// Checks that every unpacked layer is complete, and compares those of `images` with their blobs.
    pub(super) fn unpacked(&mut self, images: &[Reached]) -> Result<()> {
        let trees = self.store.layout().trees();
        for stray in Sandbox::strays(&trees)? {
            let what = stray.strip_prefix(self.store.root()).unwrap_or(&stray).display();
            self.fault(what.to_string(), STRAY, REMOVE);
        }
        let mut whole = Vec::new();
        for tree in
            Sandbox::cached_trees(&trees)?.into_iter().filter(|tree| !tree.is_build_rootfs())
        {
            if tree.is_whole() {
                whole.push(tree);
            } else {
                let problem = "is not an unpacked layer, or is incomplete";
                self.fault(self.shown(&tree), problem, UNPACK);
            }
        }
        if whole.is_empty() || images.is_empty() {
            return Ok(());
        }
        let sandbox = match Sandbox::create(&trees) {
            Err(error) if error.kind() == Kind::Sandbox => {
                let reason = error.to_string();
                self.reporter.warning(Warning::LayersUnreadable { reason });
                return Ok(());
            }
            other => other?,
        };
        self.reporter.step(Step::CheckUnpackedLayers);
        // Trees of other id maps can't be recreated for comparison.
        whole.retain(|tree| sandbox.holds(tree));
        let known: HashMap<String, String> =
            whole.iter().map(|tree| (tree.key().to_owned(), self.shown(tree))).collect();
        let mut seen = HashSet::new();
        for Reached { manifest, .. } in images {
            interrupt::check()?;
            let Ok(image) = self.store.load_image(manifest) else { continue };
            let keys: Vec<String> = image.chain_ids().iter().map(CachedTree::key_of).collect();
            if !keys.iter().any(|key| known.contains_key(key) && !seen.contains(key)) {
                continue;
            }
            let altered = match sandbox.altered(layer_sources(self.store, &image), &mut seen) {
                // The damaged blob is already reported.
                Err(error) if error.kind() == Kind::BadInput => continue,
                other => other?,
            };
            for AlteredLayer { key, differences } in altered {
                for difference in differences {
                    self.fault(known[&key].clone(), difference, UNPACK);
                }
            }
        }
        Ok(())
    }

    /// Returns the tree's path, relative to the store's directory.
    fn shown(&self, tree: &CachedTree) -> String {
        let path = tree.path();
        path.strip_prefix(self.store.root()).unwrap_or(&path).display().to_string()
    }
}
