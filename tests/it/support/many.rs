//! A store with very many tags, written straight to its files: through svp, with an fsync each, it would take hours.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use svp::layer::compress::Encoder;
use svp::layer::entry::{Entry, EntryKind};
use svp::layer::write::TarWriter;
use svp::oci::config::History;
use svp::oci::media_type::{Compression, LAYER_GZIP};
use svp::oci::{Descriptor, Digest, Image, Platform};
use svp::store::Store;

/// Fills the store at `root` with `images` images that have `tags` tags between them: `team/n0:t0`, `team/n1:t1`, … Tag
/// `n` refers to the image `n % images`. The images share ten base layers, and each has one layer of its own.
pub fn fill(root: &Path, images: usize, tags: usize) {
    drop(Store::open(root).expect("a store"));
    let bases: Vec<_> = (0..10).map(|n| layer(root, &format!("base{n}"))).collect();
    let made: Vec<_> = (0..images).map(|n| image(root, &bases, n)).collect();
    for n in 0..tags {
        let name = format!("team/n{n}:t{n}");
        let file = format!("team%2Fn{n}%3At{n}");
        let record = json!({"name": name, "manifest": made[n % images], "created": TIME});
        fs::write(root.join("tags").join(file), record.to_string()).expect("a tag");
    }
}

const TIME: &str = "2024-01-01T00:00:00Z";

fn image(root: &Path, bases: &[(Descriptor, Digest)], number: usize) -> Descriptor {
    let mut image = Image::new(&Platform::host());
    image.config_mut().set_created(TIME);
    for n in 0..20 {
        image.config_mut().set_env(&format!("VARIABLE_{n}"), &format!("value {number}"));
    }
    let own = layer(root, &format!("own{number}"));
    let shared = (number % 7..).take(4).map(|n| &bases[n]);
    for (descriptor, diff_id) in shared.chain([&own]) {
        let entry = History { created_by: "a test".into(), ..History::default() };
        image.append_layer(descriptor.clone(), *diff_id, &entry).expect("a layer");
    }
    let encoded = image.encode();
    blob(root, &encoded.config);
    blob(root, &encoded.manifest);
    encoded.descriptor
}

fn layer(root: &Path, content: &str) -> (Descriptor, Digest) {
    let mut tar = TarWriter::new(Vec::new());
    let size = content.len() as u64;
    let entry = Entry { size, ..Entry::new(content, EntryKind::File, 0o644) };
    tar.append(&entry, &mut content.as_bytes()).expect("an entry");
    let tar = tar.finish().expect("a tar");
    let mut encoder = Encoder::new(Vec::new(), Compression::Gzip.into(), 1).expect("an encoder");
    encoder.write_all(&tar).expect("a write");
    let bytes = encoder.finish().expect("an end");
    blob(root, &bytes);
    let diff_id = Digest::of(&tar);
    let descriptor = Descriptor::of(LAYER_GZIP, &bytes);
    let note = root.join("diff-ids").join(descriptor.digest.hex());
    fs::write(note, diff_id.to_string()).expect("a note");
    (descriptor, diff_id)
}

fn blob(root: &Path, bytes: &[u8]) {
    let path = root.join("blobs/sha256").join(Digest::of(bytes).hex());
    fs::write(path, bytes).expect("a blob");
}
