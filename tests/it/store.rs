//! The store as other modules use it, on a real file system.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use svp::error::Kind;
use svp::oci::media_type::{Compression, LAYER};
use svp::oci::{Descriptor, Digest, History, Image, Platform, Reference};
use svp::store::Store;

fn new() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("svp")).unwrap();
    (dir, store)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Returns every file below `dir`, as relative paths.
fn files(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => todo.push(path),
                false => out.push(path.strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    out.sort();
    out
}

fn image(store: &Store, content: &str) -> Image {
    let mut image = Image::new(&Platform::host());
    let digest = store.put_blob(content.as_bytes()).unwrap();
    let descriptor =
        Descriptor::new(Compression::None.layer_media_type(), digest, content.len() as u64);
    image.append_layer(descriptor, digest, &History::default()).unwrap();
    image
}

#[test]
fn a_blob_is_written_atomically() {
    let (_dir, store) = new();
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    let error = writer.finish_expecting(Digest::of("hello"), 6).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"hallo").unwrap();
    writer.finish_expecting(Digest::of("hello"), 5).unwrap_err();
    assert_eq!(files(store.root()), ["lock"]);

    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(writer.finish().unwrap(), (Digest::of("hello"), 5));
    let hex = Digest::of("hello").hex();
    assert_eq!(files(store.root()), [format!("blobs/sha256/{hex}"), "lock".into()]);
    assert_eq!(store.read_blob_bounded(&Digest::of("hello"), 5).unwrap(), b"hello");
    assert!(store.read_blob_bounded(&Digest::of("hello"), 4).is_err());
}

#[test]
fn a_stage_may_write_directly_to_the_file() {
    let (_dir, store) = new();
    let writer = store.blob_writer().unwrap();
    writer.as_file().write_all(b"layer").unwrap();
    writer.adopt_verified(Digest::of("layer"), 5).unwrap();
    assert_eq!(store.blob_size(&Digest::of("layer")), Some(5));
    let writer = store.blob_writer().unwrap();
    writer.as_file().write_all(b"lay").unwrap();
    assert_eq!(writer.adopt_verified(Digest::of("x"), 5).unwrap_err().kind(), Kind::Storage);
}

#[test]
fn a_flipped_bit_is_found_and_repaired() {
    let (_dir, store) = new();
    let digest = store.put_blob(b"content").unwrap();
    fs::set_permissions(store.blob_path(&digest), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(store.blob_path(&digest), b"cOntent").unwrap();
    let error = store.read_blob_bounded(&digest, 100).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert!(error.message().contains(&digest.hex()), "{error}");
    let descriptor = Descriptor::of(LAYER, b"content");
    assert!(store.blob_reader(&descriptor).unwrap().drain().is_err());
    store.put_blob(b"content").unwrap();
    assert_eq!(store.read_blob_bounded(&digest, 100).unwrap(), b"content");
}

#[test]
fn only_a_store_or_an_empty_directory_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("photo.jpg"), "x").unwrap();
    assert_eq!(Store::open(dir.path()).unwrap_err().kind(), Kind::Usage);
    assert_eq!(files(dir.path()), ["photo.jpg"]);

    let (_dir, store) = new();
    let root = store.root().to_owned();
    drop(store);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    drop(store);
    fs::write(root.join("lock"), "2\n").unwrap();
    assert_eq!(Store::open(&root).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn many_concurrent_writers_and_taggers() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("svp");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let root = &root;
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                for n in 0..10 {
                    let image = image(&store, &format!("{thread} {n}"));
                    store.insert_image(&image, &name(&format!("t{thread}:{n}"))).unwrap();
                    store.insert_image(&image, &name("shared:tag")).unwrap();
                }
            });
        }
    });
    let store = Store::open(&root).unwrap();
    assert_eq!(store.tags().unwrap().map(Result::unwrap).count(), 81);
    for record in store.tags().unwrap() {
        store.load_image(&record.unwrap().manifest).unwrap();
    }
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
}

#[test]
fn tags() {
    let (_dir, store) = new();
    let one = store.write_image(&image(&store, "1")).unwrap();
    let two = store.write_image(&image(&store, "2")).unwrap();
    store.set_tag(&name("mysql"), &one, Some("2024-01-01T00:00:00Z")).unwrap();
    store.set_tag(&name("mysql:8"), &two, None).unwrap();
    assert_eq!(store.resolve(&name("mysql:latest")).unwrap().manifest, one);
    assert_eq!(store.resolve(&name("mysql:8")).unwrap().manifest, two);
    let at = name("mysql").at_digest(two.digest);
    assert_eq!(store.resolve(&at).unwrap().name, "mysql:8");
    assert_eq!(store.set_tag(&at, &two, None).unwrap_err().kind(), Kind::Usage);
    assert!(store.resolve(&name("other").at_digest(two.digest)).is_err());

    let error = store.resolve(&name("msql")).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert!(error.hint_text().unwrap().contains("docker://docker.io/library/msql"), "{error:?}");

    store.set_tag(&name("mysql"), &two, None).unwrap();
    assert_eq!(store.resolve(&name("mysql")).unwrap().manifest, two);
    assert!(store.remove_tag(&name("mysql")).unwrap());
    assert!(!store.remove_tag(&name("mysql")).unwrap());
    assert_eq!(store.tags().unwrap().count(), 1);

    let long = name(&format!("h.x/{}b:{}", "a/".repeat(120), "t".repeat(128)));
    store.set_tag(&long, &one, None).unwrap();
    assert_eq!(store.resolve(&long).unwrap().reference().unwrap(), long);
}

#[test]
fn an_image_needs_its_layers() {
    let (_dir, store) = new();
    let image = image(&store, "1");
    fs::remove_file(store.blob_path(&image.layers()[0].diff_id)).unwrap();
    assert_eq!(store.write_image(&image).unwrap_err().kind(), Kind::BadInput);
    assert_eq!(files(store.root()), ["lock"]);
}

#[test]
fn collection_keeps_reachable_blobs_and_does_not_wait() {
    let (_dir, mut store) = new();
    let kept = image(&store, "kept");
    store.insert_image(&kept, &name("kept")).unwrap();
    store.insert_image(&image(&store, "gone"), &name("gone")).unwrap();
    store.remove_tag(&name("gone")).unwrap();

    let other = Store::open(store.root()).unwrap();
    let collect = |store: &Store| store.collect(&store.mark()?.whole()?, None);
    assert_eq!(store.with_exclusive_lock(Duration::ZERO, collect).unwrap(), None);
    let waited = store.with_exclusive_lock(Duration::from_millis(50), collect);
    assert_eq!(waited.unwrap(), None);
    drop(other);
    let collected = store.with_exclusive_lock(Duration::ZERO, collect).unwrap().unwrap();
    assert_eq!(collected.blobs, 3);
    assert!(collected.bytes > 4);
    let record = store.resolve(&name("kept")).unwrap();
    assert_eq!(store.load_image(&record.manifest).unwrap(), kept);
    let chains: Vec<_> = store.mark().unwrap().chain_ids.into_iter().collect();
    assert_eq!(chains, kept.chain_ids());
}

#[test]
fn collection_removes_nothing_if_a_manifest_is_damaged() {
    let (_dir, mut store) = new();
    let descriptor = store.insert_image(&image(&store, "1"), &name("a")).unwrap();
    store.put_blob(b"unreached").unwrap();
    fs::remove_file(store.blob_path(&descriptor.digest)).unwrap();
    let error = store.mark().unwrap().whole().unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert!(error.to_string().contains("a:latest"), "{error}");
    store.insert_image(&image(&store, "2"), &name("b")).unwrap();
    assert_eq!(store.remove_images(&[name("b")], |_, _| Ok(())).unwrap().collected, None);
    assert!(store.has_blob(&Digest::of("2")));
}

#[test]
fn removing_an_image_removes_blobs_that_no_other_tag_reaches() {
    let (_dir, mut store) = new();
    let base = image(&store, "base");
    let mut more = base.clone();
    let digest = store.put_blob(b"more").unwrap();
    more.append_layer(Descriptor::new(LAYER, digest, 4), digest, &History::default()).unwrap();
    let base = store.insert_image(&base, &name("base")).unwrap();
    store.insert_image(&more, &name("more")).unwrap();
    store.set_tag(&name("also"), &base, None).unwrap();
    // An untagged blob may belong to a pulled base: it is left for prune.
    store.put_blob(b"unreached").unwrap();

    assert_eq!(
        store.remove_images(&[name("also")], |_, _| Ok(())).unwrap().collected.unwrap().blobs,
        0
    );
    let removed = store.remove_images(&[name("more")], |_, _| Ok(())).unwrap();
    assert_eq!((&*removed.tags[0], removed.collected.unwrap().blobs), ("more:latest", 3));
    assert!(!store.has_blob(&digest) && store.has_blob(&Digest::of("unreached")));
    store.load_image(&base).unwrap();
    assert_eq!(
        store.remove_images(&[name("more")], |_, _| Ok(())).unwrap_err().kind(),
        Kind::BadInput
    );

    let other = Store::open(store.root()).unwrap();
    assert_eq!(store.remove_images(&[name("base")], |_, _| Ok(())).unwrap().collected, None);
    assert!(other.has_blob(&base.digest));
}

#[test]
fn lists_and_inspections() {
    let (_dir, store) = new();
    let mut image = image(&store, "content");
    image.config_mut().set_created("2024-01-02T03:04:05Z");
    image.config_mut().set_label("a", "b");
    let descriptor = store.insert_image(&image, &name("h.x/b:2")).unwrap();
    store.insert_image(&image, &name("a")).unwrap();
    let listed = store.list().unwrap();
    let lines: Vec<_> = listed.iter().map(|l| (&*l.repository, &*l.tag, l.size)).collect();
    assert_eq!(lines, [("a", "latest", Some(7)), ("h.x/b", "2", Some(7))]);
    let printed = store.inspect(&name("a"), &Platform::host()).unwrap();
    assert_eq!(printed.tags, ["a:latest", "h.x/b:2"]);
    assert_eq!((printed.digest, printed.size), (descriptor.digest, 7));
    assert_eq!(printed.created.as_deref(), Some("2024-01-02T03:04:05Z"));
    assert_eq!(printed.config["config"]["Labels"]["a"], "b");
    assert_eq!(printed.layers[0].diff_id, Digest::of("content"));

    fs::remove_file(store.blob_path(&descriptor.digest)).unwrap();
    assert_eq!(store.list().unwrap()[0].size, None);
    assert_eq!(store.inspect(&name("a"), &Platform::host()).unwrap_err().kind(), Kind::BadInput);
}
