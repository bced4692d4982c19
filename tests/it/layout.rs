//! Image layouts: their contents as svp writes them, and the layouts that it refuses to read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use svp::error::Kind;
use svp::oci::layout_writer::check_target;
use svp::oci::media_type::LAYER;
use svp::oci::{Descriptor, Digest, History, Image, Layout, LayoutWriter, Platform, Reference};
use svp::store::Store;

use crate::support;

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("svp")).unwrap();
        World { dir, store }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Returns an image of one layer, an empty tar archive made unique by `content`.
    fn image(&self, content: &str) -> Descriptor {
        let mut tar = vec![0; 1024];
        tar.extend_from_slice(&[0; 512]);
        let mut image = Image::new(&Platform::host());
        let digest = self.store.put_blob(&tar).unwrap();
        let descriptor = Descriptor::new(LAYER, digest, tar.len() as u64);
        let entry = History { created_by: content.to_owned(), ..Default::default() };
        image.append_layer(descriptor, digest, &entry).unwrap();
        self.store.write_image(&image).unwrap()
    }

    fn save(&self, content: &str, name: &str) -> Descriptor {
        let descriptor = self.image(content);
        self.store.save_to_layout(&descriptor, &self.out(), &reference(name)).unwrap();
        descriptor
    }

    fn find(&self, name: Option<&str>) -> Result<Digest, String> {
        let layout = Layout::open(&self.out()).map_err(|e| format!("{e:?}"))?;
        layout.find(name, &Platform::host()).map(|d| d.digest).map_err(|e| format!("{e:?}"))
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn index(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap()
}

fn tree(dir: &Path) -> Vec<String> {
    let output = Command::new("find").arg(dir).output().unwrap();
    let mut lines: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn tags_are_added_replaced_and_kept() {
    let world = World::new();
    let one = world.save("1", "mysql");
    assert_eq!(world.find(None).unwrap(), one.digest);
    let two = world.save("2", "mysql:8");
    let mut edited = index(&world.out());
    edited["annotations"] = json!({"made": "up"});
    edited["manifests"][0]["odd"] = json!([1]);
    fs::write(world.out().join("index.json"), edited.to_string()).unwrap();
    let three = world.save("3", "mysql:8");
    assert_eq!(world.find(Some("mysql")).unwrap(), one.digest);
    assert_eq!(world.find(Some("mysql:latest")).unwrap(), one.digest);
    assert_eq!(world.find(Some("docker.io/library/mysql:8")).unwrap(), three.digest);
    assert_ne!(two, three);
    let index = index(&world.out());
    assert_eq!(index["annotations"]["made"], "up");
    assert_eq!(index["manifests"][0]["odd"], json!([1]));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let error = world.find(None).unwrap_err();
    assert!(error.contains("available: mysql:8, mysql:latest"), "{error}");
    let error = world.find(Some("msql")).unwrap_err();
    assert!(error.contains("available: mysql:8, mysql:latest"), "{error}");
    assert_eq!(
        index["manifests"][1]["annotations"],
        json!({
            "org.opencontainers.image.ref.name": "mysql:8",
            "io.containerd.image.name": "docker.io/library/mysql:8",
        })
    );
}

#[test]
fn a_directory_that_is_not_a_layout_is_refused_and_unchanged() {
    let world = World::new();
    let make: [(&str, &dyn Fn(&Path)); 5] = [
        ("a file", &|p| fs::write(p, "x").unwrap()),
        ("something in it", &|p| {
            fs::create_dir(p).unwrap();
            fs::write(p.join("photo"), "x").unwrap();
        }),
        ("a layout of version 2", &|p| {
            fs::create_dir(p).unwrap();
            fs::write(p.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        }),
        ("no index", &|p| {
            fs::create_dir(p).unwrap();
            fs::write(p.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
            fs::create_dir_all(p.join("blobs/sha256")).unwrap();
            fs::write(p.join("blobs/sha256/x"), "x").unwrap();
        }),
        ("a damaged index", &|p| {
            fs::create_dir(p).unwrap();
            fs::write(p.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
            fs::write(p.join("index.json"), "{").unwrap();
        }),
    ];
    let image = world.image("1");
    for (n, (name, make)) in make.into_iter().enumerate() {
        let path = world.dir.path().join(format!("target{n}"));
        make(&path);
        let before = tree(&path);
        assert_eq!(check_target(&path).unwrap_err().kind(), Kind::BadInput, "{name}");
        let result = world.store.save_to_layout(&image, &path, &reference("a"));
        assert_eq!(result.unwrap_err().kind(), Kind::BadInput, "{name}");
        assert_eq!(tree(&path), before, "{name}");
    }
}

#[test]
fn a_failure_leaves_the_layout_unchanged() {
    let world = World::new();
    let broken = world.image("1");
    let manifest = world.store.load_manifest(&broken).unwrap();
    let layer = world.store.blob_path(&manifest.layers[0].digest);
    let good = fs::read(&layer).unwrap();
    let mut bad = good.clone();
    bad[700] ^= 1;
    fs::write(&layer, bad).unwrap();
    let save = |out: &Path| world.store.save_to_layout(&broken, out, &reference("a"));
    let deep = world.out().join("deep");
    assert_eq!(save(&deep).unwrap_err().kind(), Kind::BadInput);
    assert!(!world.out().exists());

    fs::write(&layer, good).unwrap();
    world.save("2", "b");
    let before = tree(&world.out());
    fs::write(&layer, "short").unwrap();
    fs::remove_file(world.out().join("blobs/sha256").join(manifest.layers[0].digest.hex()))
        .unwrap();
    let without: Vec<_> =
        before.into_iter().filter(|l| !l.ends_with(&manifest.layers[0].digest.hex())).collect();
    assert_eq!(save(&world.out()).unwrap_err().kind(), Kind::BadInput);
    assert_eq!(tree(&world.out()), without);
}

#[test]
fn leftovers_of_a_killed_writer_are_swept() {
    let world = World::new();
    fs::create_dir(world.out()).unwrap();
    fs::write(world.out().join(".svp-abc"), "half").unwrap();
    fs::write(world.out().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    check_target(&world.out()).unwrap();
    world.save("1", "a");
    assert!(!world.out().join(".svp-abc").exists());
}

#[test]
fn eighty_concurrent_writers_all_succeed() {
    let world = World::new();
    let image = world.image("1");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (world, image) = (&world, &image);
            scope.spawn(move || {
                for n in 0..10 {
                    let name = reference(&format!("t{thread}:{n}"));
                    world.store.save_to_layout(image, &world.out(), &name).unwrap();
                }
            });
        }
    });
    assert_eq!(Layout::open(&world.out()).unwrap().entries().unwrap().len(), 80);
}

#[test]
fn a_failing_writer_does_not_disturb_another() {
    let world = World::new();
    let image = world.image("1");
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|_| drop(LayoutWriter::begin(&world.out()).unwrap())));
        scope.spawn(|| {
            for n in 0..20 {
                let name = reference(&format!("a:{n}"));
                world.store.save_to_layout(&image, &world.out(), &name).unwrap();
            }
        });
    });
    assert_eq!(Layout::open(&world.out()).unwrap().entries().unwrap().len(), 20);
}

#[test]
fn hostile_blobs_are_refused() {
    let world = World::new();
    let descriptor = world.save("1", "a");
    let blobs = world.out().join("blobs");
    let path = blobs.join("sha256").join(descriptor.digest.hex());
    let content = fs::read(&path).unwrap();
    let secret = world.dir.path().join("secret");
    fs::write(&secret, &content).unwrap();
    let cases: [(&str, &dyn Fn()); 6] = [
        ("missing", &|| {}),
        ("symlink", &|| symlink(&secret, &path).unwrap()),
        ("flipped", &|| {
            let mut flipped = content.clone();
            flipped[10] ^= 1;
            fs::write(&path, flipped).unwrap();
        }),
        ("short", &|| fs::write(&path, &content[1..]).unwrap()),
        ("fifo", &|| {
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        }),
        ("directory", &|| fs::create_dir(&path).unwrap()),
    ];
    let read = || Layout::open(&world.out()).unwrap().read_blob(&descriptor, 1 << 20);
    assert_eq!(read().unwrap(), content);
    for (name, make) in cases {
        let _ = fs::remove_file(&path);
        make();
        let error = read().expect_err(name);
        assert_eq!(error.kind(), Kind::BadInput, "{name}: {error}");
        assert!(error.message().contains(&descriptor.digest.hex()), "{name}: {error}");
    }
    let _ = fs::remove_dir(&path);
    fs::write(&path, &content).unwrap();
    fs::rename(&blobs, world.out().join("elsewhere")).unwrap();
    symlink("elsewhere", &blobs).unwrap();
    assert_eq!(read().unwrap_err().kind(), Kind::BadInput);
}

#[test]
fn skopeo_and_umoci_read_written_layouts() {
    let world = World::new();
    let descriptor = world.save("1", "team/mysql");
    world.save("2", "other:1");
    let out = world.out().display().to_string();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let inspected = run("skopeo", &["inspect", &format!("oci:{out}:team/mysql:latest")]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], json!(descriptor.digest));
    let archive = world.dir.path().join("docker.tar").display().to_string();
    let (from, to) = (format!("oci:{out}:other:1"), format!("docker-archive:{archive}:other:1"));
    support::success(support::skopeo(world.dir.path()).args(["copy", &from, &to]));
    let listed = run("umoci", &["list", "--layout", &out]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["team/mysql:latest", "other:1"]);
}
