//! Import of root file systems, as other tools archive them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support;
use svp::error::{Error, Kind};
use svp::import::{ImportOptions, Input, import};
use svp::oci::media_type::{LAYER_GZIP, LAYER_ZSTD};
use svp::oci::{Descriptor, Digest, Platform, Reference};
use svp::progress::Silent;
use svp::store::{ArchiveFormat, Store};

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        World { dir, store }
    }

    /// A small tar archive by GNU tar, with the file types of root file systems.
    fn tar(&self) -> PathBuf {
        let root = self.dir.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/tool"), vec![7; 300_000]).unwrap();
        fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/alias")).unwrap();
        std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
        let tar = self.dir.path().join("root.tar");
        let shown = tar.display().to_string();
        support::run("tar", ["-C", &root.display().to_string(), "--xattrs", "-cf", &shown, "."]);
        tar
    }

    fn import(&self, path: &Path) -> Result<Descriptor, Error> {
        self.import_on(Input::open(path)?, 1)
    }

    fn import_on(&self, input: Input, threads: usize) -> Result<Descriptor, Error> {
        let options = ImportOptions { platform: Platform::host(), created: 86_400, threads };
        import(input, &self.store, &name(), &options, &Silent)
    }
}

fn name() -> Reference {
    "base:1".parse().unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let listing = support::run("find", [&dir.display().to_string(), "-type", "f"]);
    let mut lines: Vec<_> = listing.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn compressed_tars_keep_their_bytes_and_plain_ones_are_compressed() {
    let world = World::new();
    let tar = world.tar();
    let shown = tar.display().to_string();
    support::run("gzip", ["-k", &shown]);
    support::run("zstd", ["-q", "-k", &shown]);
    let diff_id = Digest::of(fs::read(&tar).unwrap());
    for (suffix, media_type) in [("", LAYER_GZIP), (".gz", LAYER_GZIP), (".zst", LAYER_ZSTD)] {
        let path = PathBuf::from(format!("{shown}{suffix}"));
        let descriptor = world.import(&path).unwrap();
        let record = world.store.resolve(&name()).unwrap();
        assert_eq!(
            (record.manifest.digest, record.created.as_deref()),
            (descriptor.digest, Some("1970-01-02T00:00:00Z"))
        );
        let image = world.store.load_image(&descriptor).unwrap();
        let [layer] = image.layers() else { panic!("one layer") };
        assert_eq!((layer.descriptor.media_type.as_ref(), layer.diff_id), (media_type, diff_id));
        if !suffix.is_empty() {
            assert_eq!(layer.descriptor.digest, Digest::of(fs::read(&path).unwrap()));
        }
        assert_eq!(image.config().platform(), Platform::host());
        assert!(image.config().env()[0].starts_with("PATH=/usr/local/sbin:"));
        assert_eq!(image.config().history().len(), 1);
    }
}

#[test]
fn same_content_same_digest_from_a_stream_on_any_number_of_threads() {
    let world = World::new();
    let tar = world.tar();
    let one = world.import(&tar).unwrap();
    let pipe = world.dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::thread::scope(|scope| {
        // In small pieces, like a slow pipe.
        scope.spawn(|| {
            let mut pipe = fs::File::options().write(true).open(&pipe).unwrap();
            fs::read(&tar).unwrap().chunks(1000).for_each(|piece| pipe.write_all(piece).unwrap());
        });
        assert_eq!(world.import_on(Input::open(&pipe).unwrap(), 4).unwrap(), one);
    });
}

#[test]
fn umoci_unpacks_imported_images() {
    let world = World::new();
    let descriptor = world.import(&world.tar()).unwrap();
    let out = world.dir.path().join("out");
    world.store.save_to_layout(&descriptor, &out, &name()).unwrap();
    let bundle = world.dir.path().join("bundle").display().to_string();
    let image = format!("{}:base:1", out.display());
    support::run("umoci", ["unpack", "--rootless", "--image", &image, &bundle]);
    let tool = fs::read(Path::new(&bundle).join("rootfs/bin/alias")).unwrap();
    assert_eq!(tool, vec![7; 300_000]);
}

#[test]
fn other_inputs_than_root_file_systems_are_refused() {
    let world = World::new();
    let tar = fs::read(world.tar()).unwrap();
    let gzip = {
        let path = world.dir.path().join("root.tar");
        support::run("gzip", ["-k", &path.display().to_string()]);
        fs::read(world.dir.path().join("root.tar.gz")).unwrap()
    };
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    let cases: [(&str, Vec<u8>); 9] = [
        ("text", b"hello, this is no tar\n".repeat(100)),
        ("nothing", Vec::new()),
        ("an empty tar", vec![0; 10240]),
        ("xz", b"\xfd7zXZ\0 and so on".repeat(100)),
        ("a cut tar", tar[..tar.len() / 2].to_vec()),
        ("a damaged header", flipped(&tar, 5)),
        ("a cut gzip", gzip[..gzip.len() - 4].to_vec()),
        ("a damaged gzip", flipped(&gzip, gzip.len() / 2)),
        ("gzip and more", [&gzip[..], b"garbage"].concat()),
    ];
    let before = files(world.store.root());
    for (name, bytes) in cases {
        let file = world.dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let error = world.import(&file).expect_err(name);
        assert_eq!(error.kind(), Kind::BadInput, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert!(error.hint_text().is_some(), "{name}: {error}");
        assert_eq!(files(world.store.root()), before, "{name}");
    }
    let root = world.dir.path().join("root");
    assert_eq!(world.import(&root).unwrap_err().kind(), Kind::BadInput, "a directory");
    assert_eq!(world.import("/does/not/exist".as_ref()).unwrap_err().kind(), Kind::BadInput);
}

#[test]
fn an_image_is_not_mistaken_for_a_root_file_system() {
    let world = World::new();
    let descriptor = world.import(&world.tar()).unwrap();
    let archive = world.dir.path().join("image.tar");
    world.store.save_as(ArchiveFormat::Oci, &descriptor, &archive, &name()).unwrap();
    let error = world.import(&archive).unwrap_err();
    assert!(error.hint_text().unwrap().contains("oci-archive:"), "{error:?}");
}
