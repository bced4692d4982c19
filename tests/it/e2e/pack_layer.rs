//! The pack's layer replaces what the image below has at `/service`.

use std::path::{Path, PathBuf};

use crate::e2e::common::{blob, manifest};
use crate::support::podman::Podman;
use crate::support::{TestEnv, as_root, busybox_base, run, success};

const QUERY: &str = "#!/bin/sh\n[ \"$1\" = os ] && echo busybox/1\n:\n";

/// Writes a pack with the given files besides its two scripts; `bin/build` checks that nothing else is at `/service`.
fn pack(env: &TestEnv, name: &str, more: &[(&str, &str)]) -> String {
    let files = more.len() + 2;
    let build = format!("#!/bin/sh\n[ $(find /service -type f | wc -l) = {files} ]\n");
    let all: Vec<_> = [("bin/query", QUERY), ("bin/build", &build)]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    env.write_pack(name, &all).to_str().unwrap().to_owned()
}

fn build<'a>(pack: &'a str, tag: &'a str, base: &'a str) -> [&'a str; 9] {
    ["build", "-b", pack, "-t", tag, "--base", base, "--network", "none"]
}

/// Returns the files below `root/service`, sorted.
fn service_files(root: &Path) -> Vec<String> {
    let root = root.join("service");
    let listing = run("find", [root.to_str().unwrap(), "-mindepth", "1", "-printf", "%P\\n"]);
    let mut files: Vec<String> = listing.lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[track_caller]
fn unpacked(env: &TestEnv, image: &str) -> PathBuf {
    let root = env.path(&format!("root-{image}"));
    env.ok(["unpack", image, root.to_str().unwrap()]);
    root
}

/// Checks that svp, umoci and podman see exactly `files` at `/service` of the image.
#[track_caller]
fn everyone_sees(env: &TestEnv, image: &str, files: &[&str]) {
    assert_eq!(service_files(&unpacked(env, image)), files, "svp unpack {image}");
    let layout = env.path(&format!("out-{image}"));
    env.ok(["save", image, "-o", &format!("oci:{}", layout.display())]);
    let bundle = env.path(&format!("bundle-{image}"));
    let mut umoci = vec!["unpack"];
    umoci.extend((!as_root()).then_some("--rootless"));
    let name = format!("{}:{image}:latest", layout.display());
    umoci.extend(["--image", &name, bundle.to_str().unwrap()]);
    run("umoci", umoci);
    assert_eq!(service_files(&bundle.join("rootfs")), files, "umoci {image}");
    for format in ["oci-archive", "docker-archive"] {
        let archive = env.path(&format!("{image}-{format}.tar"));
        env.ok(["save", image, "-o", &format!("{format}:{}", archive.display())]);
        let podman = Podman::new(env);
        let loaded = podman.load(&archive);
        let list = "cd /service && find . -mindepth 1 | sed s,./,, | sort";
        let arguments = ["--network=none", "--entrypoint=/bin/sh", &loaded, "-c", list];
        let found = podman.run(&arguments);
        assert_eq!(found.lines().collect::<Vec<_>>(), files, "podman {format} {image}");
    }
}

/// Returns whether the layer `at` of an image has an opaque whiteout at `/service`.
fn is_opaque(env: &TestEnv, image: &str, at: usize) -> bool {
    let layout = env.path(&format!("layers-{image}"));
    env.ok(["save", image, "-o", &format!("oci:{}", layout.display())]);
    let manifest = manifest(&layout, &format!("{image}:latest"));
    let file = blob(&layout, &manifest["layers"][at]);
    run("tar", ["-tf", file.to_str().unwrap()]).lines().any(|line| line == "service/.wh..wh..opq")
}

#[test]
fn a_pack_replaces_the_pack_of_its_base() {
    let env = TestEnv::new();
    env.import_busybox();
    let old = pack(&env, "old", &[("bin/backup", "#!/bin/sh\n"), ("lib/old/deep", "old\n")]);
    env.ok(build(&old, "old", "busybox"));
    assert!(!is_opaque(&env, "old", 1), "nothing is below, so the layer's digest is the pack's");
    let new = pack(&env, "new", &[("lib/new", "new\n")]);
    env.ok(build(&new, "new", "old"));
    everyone_sees(&env, "new", &["bin", "bin/build", "bin/query", "lib", "lib/new"]);
    // The pack has the same content digest on any base.
    env.ok(build(&new, "plain", "busybox"));
    let label = |image: &str| {
        let printed = env.ok(["inspect", image, "--config"]);
        let config: serde_json::Value = serde_json::from_str(&printed).unwrap();
        config["config"]["Labels"]["dev.servicepack.pack"].as_str().unwrap().to_owned()
    };
    assert_eq!(label("new"), label("plain"));
    // A service of it has no backup script, so its files are copied.
    env.ok(["setup", "-i", "new", "-t", "one", "--network", "none"]);
    assert_eq!(service_files(&unpacked(&env, "one")).len(), 5);
    env.assert_nothing_left();
}

#[test]
fn an_updated_pack_replaces_the_images_own() {
    let env = TestEnv::new();
    env.import_busybox();
    let old = pack(&env, "old", &[("bin/backup", "#!/bin/sh\n"), ("bin/run", "#!/bin/sh\n")]);
    env.ok(build(&old, "base", "busybox"));
    let new = pack(&env, "new", &[("bin/run", "#!/bin/sh\necho new\n")]);
    let setup = ["setup", "-i", "base", "-t", "mine", "-b", &new, "--network", "none"];
    env.ok(setup.iter().chain(&["--update-pack"]));
    let files = ["bin", "bin/build", "bin/query", "bin/run"];
    assert_eq!(service_files(&unpacked(&env, "mine")), files);
    // The container sees the same.
    env.ok(["run", "--rm", "mine"]);
    env.assert_nothing_left();
}

/// Imports busybox with what `script` makes of its root, as the image `name`.
fn import_changed(env: &TestEnv, name: &str, script: &str) {
    let tar = env.path(&format!("{name}.tar"));
    let make = format!(
        "set -e; mkdir {name}; tar -C {name} --exclude './dev/*' -xf \"$1\"; cd {name}; {script}; \
         tar -cf ../{name}.tar --owner=0 --group=0 ."
    );
    let mut sh = env.command("sh");
    success(sh.current_dir(env.path("")).args(["-c", &make, "sh"]).arg(busybox_base()));
    env.ok(["import", tar.to_str().unwrap(), "-t", name]);
}

#[test]
fn foreign_files_at_service_are_replaced_whatever_their_type() {
    let env = TestEnv::new();
    let new = pack(&env, "new", &[]);
    for (name, script, opaque) in [
        ("dir", "mkdir -p service/bin; echo x >service/bin/backup; echo x >service/.hidden", true),
        ("file", "echo x >service", false),
        ("link", "mkdir -p opt/it/bin; echo x >opt/it/bin/backup; ln -s opt/it service", false),
        ("dangling", "ln -s /nowhere service", false),
    ] {
        import_changed(&env, name, script);
        let image = format!("on-{name}");
        env.ok(build(&new, &image, name));
        everyone_sees(&env, &image, &["bin", "bin/build", "bin/query"]);
        assert_eq!(is_opaque(&env, &image, 1), opaque, "{name}");
        if name == "link" {
            let kept = unpacked_again(&env, &image).join("opt/it/bin/backup");
            assert_eq!(std::fs::read_to_string(kept).unwrap(), "x\n", "the link's target stays");
        }
    }
    env.assert_nothing_left();
}

fn unpacked_again(env: &TestEnv, image: &str) -> PathBuf {
    env.path(&format!("root-{image}"))
}

/// A pack removed by the base's own build leaves nothing to replace.
#[test]
fn a_directory_that_a_layer_removed_is_not_below() {
    let env = TestEnv::new();
    env.import_busybox();
    let gone = env.write_pack(
        "gone",
        &[("bin/query", QUERY), ("bin/build", "#!/bin/sh\ncd /\nrm -r /service\n")],
    );
    env.ok(build(gone.to_str().unwrap(), "gone", "busybox"));
    let new = pack(&env, "new", &[("data", "x\n")]);
    env.ok(build(&new, "after", "gone"));
    assert_eq!(service_files(&unpacked(&env, "after")), ["bin", "bin/build", "bin/query", "data"]);
    assert!(!is_opaque(&env, "after", 3));
}
