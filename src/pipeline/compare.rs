//! Compares two images, or finds the changes of one layer: `svp diff`.
//!
//! Nothing is unpacked: the layers are read from the store, and those that both sides share only once.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::layer::compare;
use crate::layer::file_tree::FileTree;
use crate::layer::verify::read_verified;
use crate::oci::{Descriptor, Digest, Layer};
use crate::progress::{Reporter, Step};
use crate::store::Store;

pub(crate) use crate::layer::compare::Difference;

/// Selects a layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LayerChoice {
    /// The topmost.
    Top,
    /// Counted from the lowest, which is 1.
    Number(usize),
    /// A prefix of the hexadecimal digits of its digest or diff ID.
    Digest(String),
}

impl FromStr for LayerChoice {
    type Err = Error;

    /// Parses `N`, of at most three digits, or `[sha256:]HEX`, of at least four.
    fn from_str(text: &str) -> Result<Self> {
        if text.len() <= 3
            && let Ok(number @ 1..) = text.parse()
        {
            return Ok(LayerChoice::Number(number));
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let digits = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits && (4..=64).contains(&hex.len()) {
            return Ok(LayerChoice::Digest(hex.to_owned()));
        }
        Err(Error::usage(format!("invalid layer: {text:?}")).hint(
            "name a layer by its number, where the lowest is 1, or by its digest or a prefix of it: `svp history` \
             lists both",
        ))
    }
}

/// Some of an image's layers, the lowest first.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// The image's manifest.
    pub manifest: Digest,
    layers: Vec<Layer>,
}

impl Stack {
    /// All layers of the image of the store that `descriptor` points at.
    ///
    /// # Errors
    /// As [`Store::load_image`].
    pub(crate) fn whole(store: &Store, descriptor: &Descriptor) -> Result<Self> {
        let layers = store.load_image(descriptor)?.layers().to_vec();
        Ok(Stack { manifest: descriptor.digest, layers })
    }

    /// The number of layers.
    pub(crate) fn height(&self) -> usize {
        self.layers.len()
    }

    /// Returns the layers below `choice`, and the same layers with `choice` on top.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if no layer or several layers match.
    pub(crate) fn split(&self, choice: &LayerChoice) -> Result<(Self, Self)> {
        let numbers = 1..=self.height();
        let has = |number: usize, hex: &str| {
            let Layer { descriptor, diff_id } = &self.layers[number - 1];
            descriptor.digest.hex().starts_with(hex) || diff_id.hex().starts_with(hex)
        };
        let found: Vec<usize> = match choice {
            LayerChoice::Top => numbers.last().into_iter().collect(),
            LayerChoice::Number(number) => numbers.filter(|n| n == number).collect(),
            LayerChoice::Digest(hex) => numbers.filter(|n| has(*n, hex)).collect(),
        };
        let hint = "`svp history` lists the layers; the lowest is 1";
        let error = |text: String| Err(Error::bad_input(text).hint(hint));
        let [number] = found[..] else {
            return match choice {
                _ if self.layers.is_empty() => error("the image has no layer".into()),
                LayerChoice::Digest(hex) if !found.is_empty() => {
                    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                    error(format!("several layers match {hex}: {}", found.join(", ")))
                }
                LayerChoice::Digest(hex) => error(format!("the image has no layer {hex}")),
                LayerChoice::Number(number) => {
                    error(format!("the image has no layer {number}: it has {}", self.height()))
                }
                LayerChoice::Top => unreachable!("an image with layers has a topmost"),
            };
        };
        let lower =
            |height| Stack { manifest: self.manifest, layers: self.layers[..height].to_vec() };
        Ok((lower(number - 1), lower(number)))
    }
}

/// Two trees, to be compared.
pub(crate) struct Compared {
    before: FileTree,
    after: FileTree,
}

impl Compared {
    /// Returns all differences, sorted by path; entries that differ only in time count only if `times` is set.
    pub(crate) fn differences(&self, times: bool) -> Vec<Difference<'_>> {
        compare::compare(&self.before, &self.after, times)
    }
}

/// Reads the file trees of both stacks of layers.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a layer that is missing or damaged, or can't be unpacked;
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn read(
    before: &Stack,
    after: &Stack,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Compared> {
    let pairs = before.layers.iter().zip(&after.layers);
    let shared = pairs.take_while(|(a, b)| a.diff_id == b.diff_id).count();
    let mut base = FileTree::default();
    if shared == before.height() && shared == after.height() {
        return Ok(Compared { before: base.clone(), after: base });
    }
    let put_on = |tree: &mut FileTree, layers: &[Layer]| {
        layers.iter().try_for_each(|layer| add_layer(tree, layer, store, reporter))
    };
    put_on(&mut base, &before.layers[..shared])?;
    let mut first = base.clone();
    put_on(&mut first, &before.layers[shared..])?;
    put_on(&mut base, &after.layers[shared..])?;
    Ok(Compared { before: first, after: base })
}

fn add_layer(
    tree: &mut FileTree,
    layer: &Layer,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<()> {
    let Descriptor { digest, size, .. } = &layer.descriptor;
    reporter.step(Step::ReadLayer { digest: digest.to_string() });
    let blob = store.open_blob(digest)?;
    read_verified(blob, (*digest, *size), layer.diff_id, |tar| tree.add_layer(tar))
}
