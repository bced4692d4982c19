//! The build history of an image, matched with its layers.

use serde::Serialize;

use super::Store;
use crate::error::Result;
use crate::oci::{Digest, History, Image, Layer, Platform, Reference};

/// One line of `svp history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Time of the step, as RFC 3339, if recorded.
    pub created: Option<String>,
    /// The command; empty if not recorded.
    pub created_by: String,
    /// The comment, if any.
    pub comment: Option<String>,
    /// Number of the layer that the step created, from 1 for the lowest; `None` if it created none.
    pub number: Option<usize>,
    /// The layer's blob.
    pub layer: Option<Digest>,
    /// The layer's stored size in bytes; 0 without a layer.
    pub size: u64,
}

impl Store {
    /// Returns the history of the image `reference`, newest first; for an index, of its image for `platform`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image is missing or damaged.
    pub fn history(&self, reference: &Reference, platform: &Platform) -> Result<Vec<HistoryEntry>> {
        let chosen = self.choose(&self.resolve(reference)?.manifest, platform)?;
        let mut past = past(&self.load_image(&chosen)?);
        past.reverse();
        Ok(past)
    }
}

/// Returns the history, oldest first. Only the order relates history entries to layers, and an image may have
/// too many or too few entries: each layer is listed exactly once in any case.
fn past(image: &Image) -> Vec<HistoryEntry> {
    let mut layers = (1..).zip(image.layers());
    let to_entry = |entry: History, layer: Option<(usize, &Layer)>| HistoryEntry {
        created: entry.created,
        created_by: entry.created_by,
        comment: entry.comment,
        number: layer.map(|(number, _)| number),
        layer: layer.map(|(_, layer)| layer.descriptor.digest),
        size: layer.map_or(0, |(_, layer)| layer.descriptor.size),
    };
    let mut past = Vec::new();
    for entry in image.config().history() {
        let layer = if entry.empty_layer { None } else { layers.next() };
        past.push(to_entry(entry, layer));
    }
    past.extend(layers.map(|layer| to_entry(History::default(), Some(layer))));
    past
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Manifest, media_type};
    use serde_json::json;

    #[test]
    fn every_layer_is_listed_once_even_with_a_wrong_history() {
        let ids: Vec<Digest> = ["a", "b", "c"].map(Digest::of).to_vec();
        let empty = json!({"created_by": "ENV", "empty_layer": true});
        let made = json!({"created_by": "RUN"});
        let cases = [
            (json!([made, empty, made, made]), "a RUN|- ENV|b RUN|c RUN"),
            (json!([]), "a |b |c "),
            (json!(null), "a |b |c "),
            (json!([empty, made]), "- ENV|a RUN|b |c "),
            (json!([made, made, made, made]), "a RUN|b RUN|c RUN|- RUN"),
        ];
        for (history, expected) in cases {
            let config = serde_json::to_vec(&json!({
                "architecture": "amd64", "os": "linux", "history": history,
                "rootfs": {"type": "layers", "diff_ids": ids},
            }))
            .unwrap();
            let layers = ids.iter().map(|id| Descriptor::new(media_type::LAYER, *id, 1)).collect();
            let manifest = Manifest {
                config: Descriptor::of(media_type::CONFIG, &config),
                layers,
                annotations: Default::default(),
            };
            let image = Image::from_parts(&manifest, &config).unwrap();
            let name = |digest: Option<Digest>| match digest {
                None => "-",
                Some(digest) => ["a", "b", "c"][ids.iter().position(|id| *id == digest).unwrap()],
            };
            let shown: Vec<_> = past(&image)
                .iter()
                .map(|p| format!("{} {}", name(p.layer), p.created_by))
                .collect();
            assert_eq!(shown.join("|"), expected, "{history}");
            let numbers: Vec<_> = past(&image).into_iter().filter_map(|p| p.number).collect();
            assert_eq!(numbers, [1, 2, 3], "{history}");
        }
    }
}
