//! Pulls from layouts, archives and a real registry into the store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::support;
use crate::support::fault_registry::{FaultRegistry, Piece, Reply};
use crate::support::registry::Registry;
use serde_json::{Value, json};
use svp::error::{Error, Kind};
use svp::layer::compress::Encoder;
use svp::oci::json::canonical;
use svp::oci::media_type::{Compression, INDEX};
use svp::oci::{Descriptor, Digest, History, Image, Layout, LayoutWriter, Platform, Reference};
use svp::progress::{Event, Reporter, Silent, Transfer, Warning};
use svp::registry::ClientOptions;
use svp::source::{PullOptions, Source, pull};
use svp::store::{ArchiveFormat, Store};

/// A directory with a store that creates images and an empty one that pulls them.
struct World {
    dir: tempfile::TempDir,
    maker: Store,
    store: Store,
}

/// Counts started transfers and keeps warnings.
#[derive(Default)]
struct Watch {
    begun: Mutex<Vec<String>>,
    warnings: Mutex<Vec<Warning>>,
}

impl Reporter for Watch {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Transfer(Transfer { digest, done: 0, .. }) => {
                self.begun.lock().unwrap().push(digest.to_owned());
            }
            Event::Warning(warning) => self.warnings.lock().unwrap().push(warning),
            _ => {}
        }
    }
}

fn options() -> PullOptions {
    PullOptions { client: ClientOptions::isolated(), ..PullOptions::default() }
}

fn compress(tar: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression.into(), 1).unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let maker = Store::open(&dir.path().join("maker")).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        World { dir, maker, store }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Returns an image with one layer of each compression.
    fn image(&self, platform: &str) -> Image {
        self.image_of(platform, &[Compression::None, Compression::Gzip, Compression::Zstd])
    }

    fn image_of(&self, platform: &str, layers: &[Compression]) -> Image {
        let mut image = Image::new(&platform.parse().unwrap());
        for &compression in layers {
            let mut tar = svp::layer::write::TarWriter::new(Vec::new());
            let name = format!("{compression:?}");
            let mut entry =
                svp::layer::entry::Entry::new(name, svp::layer::entry::EntryKind::File, 0o644);
            entry.size = 3 << 20;
            tar.append(&entry, &mut std::io::Read::take(std::io::repeat(7), 3 << 20)).unwrap();
            let tar = tar.finish().unwrap();
            let blob = compress(&tar, compression);
            self.maker.put_blob(&blob).unwrap();
            let descriptor = Descriptor::of(compression.layer_media_type(), &blob);
            image.append_layer(descriptor, Digest::of(&tar), &History::default()).unwrap();
        }
        image
    }

    /// Writes the image into the layout `out` as `name`.
    fn save(&self, image: &Image, name: &str) -> Descriptor {
        let descriptor = self.maker.write_image(image).unwrap();
        let reference: Reference = name.parse().unwrap();
        self.maker.save_to_layout(&descriptor, &self.out(), &reference).unwrap();
        descriptor
    }

    fn pull(&self, source: &str) -> Result<Descriptor, Error> {
        pull(&source.parse::<Source>().unwrap(), &self.store, &options(), &Silent)
    }

    #[track_caller]
    fn assert_pulls(&self, source: &str, image: &Image) -> Descriptor {
        let descriptor = self.pull(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
        let pulled = self.store.load_image(&descriptor).unwrap();
        assert_eq!(pulled.config(), image.config());
        assert_eq!(pulled.chain_ids(), image.chain_ids());
        for layer in pulled.layers() {
            self.store.blob_reader(&layer.descriptor).unwrap().drain().unwrap();
        }
        assert_eq!(fs::read_dir(self.store.root().join("tags")).unwrap().count(), 0);
        descriptor
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { todo.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    out
}

const HOST: &str = "linux/amd64";

#[test]
fn layouts_and_archives() {
    let world = World::new();
    let image = world.image(&Platform::host().to_string());
    let saved = world.save(&image, "base:1");
    let out = world.out().display().to_string();
    assert_eq!(world.assert_pulls(&format!("oci:{out}"), &image).digest, saved.digest);
    assert_eq!(world.assert_pulls(&format!("oci:{out}:base:1"), &image).digest, saved.digest);

    let archive = world.dir.path().join("a.tar").display().to_string();
    let to = format!("oci-archive:{archive}:x:2");
    let from = format!("oci:{out}:base:1");
    let mut skopeo = support::skopeo(world.dir.path());
    support::success(skopeo.args(["copy", "--preserve-digests", &from, &to]));
    let fresh = World::new();
    assert_eq!(fresh.assert_pulls(&to, &image).digest, saved.digest);
    support::run("gzip", [&archive]);
    let fresh = World::new();
    assert_eq!(
        fresh.assert_pulls(&format!("oci-archive:{archive}.gz"), &image).digest,
        saved.digest
    );
    drop(fresh.maker);
    drop(fresh.store);
    assert_eq!(fs::read_dir(fresh.dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[test]
fn a_registry_with_oci_and_docker_types() {
    let world = World::new();
    let image = world.image(HOST);
    world.save(&image, "base:1");
    let gzip = world.image_of(HOST, &[Compression::Gzip]);
    world.save(&gzip, "gzip:1");
    let out = world.out().display().to_string();
    let registry = Registry::start();
    let host = registry.host();
    let copy = |from: &str, format: &str| {
        let (from, to) = (format!("oci:{out}:{from}"), format!("docker://{host}/team/{from}"));
        let arguments = ["copy", "--dest-tls-verify=false", "--format", format, &from, &to];
        support::success(support::skopeo(world.dir.path()).args(arguments));
        to
    };
    world.assert_pulls(&copy("base:1", "oci"), &image);
    let docker = copy("gzip:1", "v2s2");
    let fresh = World::new();
    let descriptor = fresh.pull(&docker).unwrap();
    let pulled = fresh.store.load_image(&descriptor).unwrap();
    assert_eq!(descriptor.media_type.as_ref(), svp::oci::media_type::DOCKER_MANIFEST);
    assert_eq!(pulled.chain_ids(), gzip.chain_ids());
    // Images written from it have OCI media types.
    let value: Value = serde_json::from_slice(&pulled.encode().manifest).unwrap();
    assert!(!value.to_string().contains("docker"), "{value}");

    let watch = Watch::default();
    pull(&docker.parse().unwrap(), &fresh.store, &options(), &watch).unwrap();
    assert_eq!(*watch.begun.lock().unwrap(), Vec::<String>::new());
    let error = fresh.pull(&format!("docker://{host}/team/gzip:nope")).unwrap_err();
    assert_eq!(error.kind(), Kind::Registry);
}

#[test]
fn bad_layouts_are_refused_and_only_verified_layers_stay() {
    type Break = fn(&World, &Image);
    fn layer(world: &World, image: &Image, n: usize) -> PathBuf {
        world.out().join("blobs/sha256").join(image.layers()[n].descriptor.digest.hex())
    }
    fn rewrite(world: &World, edit: impl Fn(&mut Value)) {
        let layout = Layout::open(&world.out()).unwrap();
        let old = layout.entries().unwrap().remove(0);
        let mut manifest: Value =
            serde_json::from_slice(&layout.read_blob(&old, 1 << 20).unwrap()).unwrap();
        edit(&mut manifest);
        let bytes = canonical(&manifest);
        let new = Descriptor::of(old.media_type.clone(), &bytes);
        let mut writer = LayoutWriter::begin(&world.out()).unwrap();
        writer.put_blob(&new, &bytes[..]).unwrap();
        writer.commit(&new, &"base:1".parse().unwrap()).unwrap();
    }
    let cases: [(&str, Break); 10] = [
        ("missing", |w, i| fs::remove_file(layer(w, i, 1)).unwrap()),
        ("is a symbolic link", |w, i| {
            let path = layer(w, i, 2);
            fs::rename(&path, w.dir.path().join("moved")).unwrap();
            symlink(w.dir.path().join("moved"), path).unwrap();
        }),
        ("damaged", |w, i| flip(&layer(w, i, 0), 600)),
        ("damaged", |w, i| flip(&layer(w, i, 1), 1000)),
        ("damaged", |w, i| flip(&layer(w, i, 2), 100)),
        ("bytes, not", |w, i| fs::write(layer(w, i, 2), "short").unwrap()),
        ("unknown layer media type", |w, _| {
            rewrite(w, |m| m["layers"][1]["mediaType"] = json!("application/x-rar"));
        }),
        ("3 diff IDs", |w, _| rewrite(w, |m| drop(m["layers"].as_array_mut().unwrap().remove(0)))),
        // Layers in another order than in the config: every blob is right, every diff ID wrong.
        ("as the config says", |w, _| {
            rewrite(w, |m| m["layers"].as_array_mut().unwrap().reverse())
        }),
        ("no image \"base:1\"", |w, _| {
            fs::write(w.out().join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        }),
    ];
    for (expected, break_it) in cases {
        let world = World::new();
        let image = world.image(HOST);
        world.save(&image, "base:1");
        break_it(&world, &image);
        let before = files(world.store.root());
        let error = world.pull(&format!("oci:{}:base:1", world.out().display())).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput, "{expected}: {error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        // Verified layers stay, for the next pull.
        let mut left = files(world.store.root());
        left.retain(|path| !is_verified_layer(path, &image));
        assert_eq!(left, before, "{expected}");
    }
}

/// Returns whether a file of the store is one of the image's layers, with the right content, or the note about it.
fn is_verified_layer(path: &Path, image: &Image) -> bool {
    let named = |digest: Digest| path.ends_with(digest.hex());
    let layers = image.layers().iter().map(|layer| layer.descriptor.digest);
    layers.filter(|layer| named(*layer)).any(|layer| {
        let is_blob = path.parent().is_some_and(|dir| dir.ends_with("sha256"));
        !is_blob || Digest::of(fs::read(path).unwrap()) == layer
    })
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_wrong_diff_id_is_found_although_the_blob_exists() {
    let world = World::new();
    let image = world.image(HOST);
    world.save(&image, "base:1");
    let source = format!("oci:{}", world.out().display());
    world.pull(&source).unwrap();
    let mut liar = Image::new(&Platform::host());
    let stolen = image.layers()[1].descriptor.clone();
    liar.append_layer(stolen, Digest::of("a lie"), &History::default()).unwrap();
    world.save(&liar, "liar:1");
    let error = world.pull(&format!("{source}:liar:1")).unwrap_err();
    assert!(error.to_string().contains("as the config says"), "{error}");
}

#[test]
fn a_damaged_blob_of_the_store_is_fetched_again() {
    let world = World::new();
    let image = world.image(HOST);
    world.save(&image, "base:1");
    let blob = &image.layers()[1].descriptor;
    let bytes = fs::read(world.maker.blob_path(&blob.digest)).unwrap();
    world.store.put_blob(&bytes).unwrap();
    flip(&world.store.blob_path(&blob.digest), 40);
    world.assert_pulls(&format!("oci:{}", world.out().display()), &image);
}

#[test]
fn an_index_selects_the_image_of_the_platform() {
    let world = World::new();
    let entries: Vec<Descriptor> = ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"]
        .map(|platform| {
            world.save(&world.image(platform), &format!("x:{}", platform.replace('/', "-")))
        })
        .into();
    let index = canonical(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
    let mut writer = LayoutWriter::begin(&world.out()).unwrap();
    let descriptor = Descriptor::of(INDEX, &index);
    writer.put_blob(&descriptor, &index[..]).unwrap();
    writer.commit(&descriptor, &"multi:1".parse().unwrap()).unwrap();
    let source: Source = format!("oci:{}:multi:1", world.out().display()).parse().unwrap();
    let pull_for = |platform: &str| {
        let options = PullOptions { platform: platform.parse().unwrap(), ..options() };
        pull(&source, &world.store, &options, &Silent)
    };
    for (n, platform) in ["linux/amd64", "linux/arm64", "linux/arm/v7"].into_iter().enumerate() {
        assert_eq!(pull_for(platform).unwrap().digest, entries[n].digest, "{platform}");
    }
    let error = pull_for("linux/s390x").unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("linux/amd64, linux/arm64/v8, linux/arm/v7"), "{hint}");
}

#[test]
fn an_image_for_another_platform_is_warned_about() {
    let world = World::new();
    world.save(&world.image("linux/s390x"), "x:1");
    let source = format!("oci:{}", world.out().display()).parse().unwrap();
    let watch = Watch::default();
    pull(&source, &world.store, &options(), &watch).unwrap();
    let warnings = watch.warnings.lock().unwrap();
    let [Warning::OtherPlatform { offered, .. }] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!(offered, "linux/s390x");
}

#[test]
fn local_names_stay_local() {
    let world = World::new();
    let error = world.pull("debian:12").unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert!(error.hint_text().unwrap().contains("docker://docker.io/library/debian:12"));
    let image = world.image(HOST);
    world.save(&image, "base:1");
    let descriptor = world.pull(&format!("oci:{}", world.out().display())).unwrap();
    world.store.set_tag(&"here".parse().unwrap(), &descriptor, None).unwrap();
    assert_eq!(world.pull("here").unwrap().digest, descriptor.digest);
}

#[test]
fn an_archive_with_any_bit_flipped_gives_the_same_image_or_is_refused() {
    let world = World::new();
    let image = world.image_of(HOST, &[Compression::Gzip]);
    let descriptor = world.maker.write_image(&image).unwrap();
    let path = world.dir.path().join("a.tar");
    world.maker.save_as(ArchiveFormat::Oci, &descriptor, &path, &"a:1".parse().unwrap()).unwrap();
    let good = fs::read(&path).unwrap();
    let source = format!("oci-archive:{}:a:1", path.display());
    let (mut same, mut refused) = (0, 0);
    for at in (0..good.len()).step_by(61) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        let store = Store::open(&world.dir.path().join("each")).unwrap();
        match pull(&source.parse().unwrap(), &store, &options(), &Silent) {
            // The bit was in padding, or in a number that is never read.
            Ok(pulled) => {
                assert_eq!(pulled.digest, descriptor.digest, "byte {at}");
                same += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::BadInput, "byte {at}: {error}");
                assert!(files(&world.dir.path().join("each/blobs")).is_empty(), "byte {at}");
                refused += 1;
            }
        }
        drop(store);
        fs::remove_dir_all(world.dir.path().join("each")).unwrap();
    }
    assert!(same > 0 && refused > 50, "{same} the same, {refused} refused");
}

#[test]
fn other_files_than_archives_are_refused() {
    let world = World::new();
    let path = world.dir.path().join("x.tar");
    let shown = format!("oci-archive:{}", path.display());
    let empty_tar: &[u8] = &[0; 1024];
    for (name, content) in [("text", &b"hello"[..]), ("an empty tar", empty_tar), ("empty", b"")] {
        fs::write(&path, content).unwrap();
        assert_eq!(world.pull(&shown).unwrap_err().kind(), Kind::BadInput, "{name}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(world.pull(&shown).unwrap_err().kind(), Kind::BadInput, "missing");
    fs::create_dir(&path).unwrap();
    assert_eq!(world.pull(&shown).unwrap_err().kind(), Kind::BadInput, "a directory");
}

/// Serves the only image of the layout `out`; `fault` may replace the reply for a blob.
fn serve(
    out: &Path,
    fault: impl Fn(&str, &[u8]) -> Option<Reply> + Send + Sync + 'static,
) -> FaultRegistry {
    let layout = Layout::open(out).unwrap();
    let manifest = layout.entries().unwrap().remove(0);
    let bytes = layout.read_blob(&manifest, 1 << 20).unwrap();
    FaultRegistry::start(move |request| {
        let path = request.path();
        if path == "/v2/" {
            return Reply::status(200).body("{}");
        }
        if path.contains("/manifests/") {
            return Reply::status(200)
                .header("Content-Type", manifest.media_type.as_ref())
                .body(&bytes);
        }
        let digest: Digest = path.rsplit('/').next().unwrap().parse().unwrap();
        let blob = fs::read(layout.blob_path(&digest)).unwrap();
        fault(&digest.to_string(), &blob).unwrap_or_else(|| Reply::status(200).body(blob))
    })
}

#[test]
fn registry_faults_are_registry_errors_and_only_verified_layers_stay() {
    let world = World::new();
    let image = world.image(HOST);
    let saved = world.save(&image, "base:1");
    let config = world.maker.load_manifest(&saved).unwrap().config.digest.to_string();
    let blobs = [config, image.layers()[1].descriptor.digest.to_string()];
    let faults: [(&str, fn(&[u8]) -> Reply); 5] = [
        ("another blob", |blob| {
            let mut bytes = blob.to_vec();
            bytes[40] ^= 1;
            Reply::status(200).body(bytes)
        }),
        ("half a blob", |blob| {
            let (length, half) = (blob.len().to_string(), blob[..blob.len() / 2].to_vec());
            Reply::status(200).header("Content-Length", &length).pieces(vec![Piece::Bytes(half)])
        }),
        ("too much", |blob| Reply::status(200).body([blob, b"more"].concat())),
        ("gone", |_| Reply::status(404).body("")),
        ("broken", |_| Reply::status(500).body("")),
    ];
    let mut options = options();
    options.client.retries = 1;
    options.client.backoff = std::time::Duration::from_millis(1);
    let before = files(world.store.root());
    for (name, fault) in faults {
        for bad in &blobs {
            let wanted = bad.clone();
            let registry =
                serve(&world.out(), move |digest, blob| (digest == wanted).then(|| fault(blob)));
            let source = format!("docker://{}/x:1", registry.address()).parse().unwrap();
            let error = pull(&source, &world.store, &options, &Silent).unwrap_err();
            assert_eq!(error.kind(), Kind::Registry, "{name}: {error}");
            assert!(error.to_string().contains(&bad[7..19]), "{name} of {bad}: {error}");
            // Verified layers stay, for the next pull.
            let good = |path: &PathBuf| {
                let layers = image.layers().iter().map(|layer| layer.descriptor.digest.to_string());
                layers.filter(|layer| layer != bad).any(|layer| path.ends_with(&layer[7..]))
            };
            let mut left = files(world.store.root());
            left.retain(|path| !good(path));
            assert_eq!(left, before, "{name}");
        }
    }
    let registry = serve(&world.out(), |_, _| None);
    world.assert_pulls(&format!("docker://{}/x:1", registry.address()), &image);
}
