//! The tarball and the .deb of `make dist`, and the files of `make install`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{TestEnv, repo, run, success};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A program that runs svp: packages of the debug build itself would take a minute to compress.
fn program(env: &TestEnv) -> PathBuf {
    let program = env.dir().join("svp-runner");
    let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_svp"));
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Creates the two packages of `binary` in the directory `name`.
fn packages(env: &TestEnv, binary: &Path, name: &str) -> [PathBuf; 2] {
    let out = env.dir().join(name);
    let mut command = env.command(repo().join("scripts/package.sh"));
    command.arg(binary).arg(&out).env("SOURCE_DATE_EPOCH", "1700000000");
    success(&mut command);
    let [arch, debian] = match std::env::consts::ARCH {
        "aarch64" => ["aarch64", "arm64"],
        _ => ["x86_64", "amd64"],
    };
    [format!("svp-{VERSION}-{arch}.tar.gz"), format!("svp_{VERSION}_{debian}.deb")]
        .map(|name| out.join(name))
}

#[test]
fn the_packages_are_complete_and_reproducible() {
    let env = TestEnv::new();
    let binary = program(&env);
    let [tarball, deb] = packages(&env, &binary, "one");
    for (one, two) in [&tarball, &deb].into_iter().zip(packages(&env, &binary, "two")) {
        assert!(fs::read(one).unwrap() == fs::read(&two).unwrap(), "{} differ", two.display());
    }
    let version = format!("svp {VERSION}\n");

    let unpacked = env.dir().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run(
        "tar",
        [Path::new("-C"), &unpacked, Path::new("--strip-components=1"), Path::new("-xf"), &tarball],
    );
    for name in ["LICENSE", "completions/_svp", "completions/svp.fish", "man/man1/svp-run.1"] {
        assert!(unpacked.join(name).is_file(), "{name}");
    }
    assert_eq!(run(unpacked.join("svp"), ["--version"]), version);

    let listed = run("dpkg-deb", [Path::new("-c"), &deb]);
    for (mode, name) in [
        ("-rwxr-xr-x root/root", "./usr/bin/svp"),
        ("-rw-r--r-- root/root", "./usr/share/bash-completion/completions/svp"),
        ("-rw-r--r-- root/root", "./usr/share/zsh/vendor-completions/_svp"),
        ("-rw-r--r-- root/root", "./usr/share/fish/vendor_completions.d/svp.fish"),
        ("-rw-r--r-- root/root", "./usr/share/man/man1/svp.1.gz"),
        ("-rw-r--r-- root/root", "./usr/share/doc/svp/copyright"),
    ] {
        let there = listed.lines().any(|line| line.starts_with(mode) && line.ends_with(name));
        assert!(there, "no {mode} {name} in\n{listed}");
    }
    let field = |name| run("dpkg-deb", [Path::new("-f"), &deb, Path::new(name)]);
    assert_eq!(field("Recommends"), "uidmap, passt\n");
    assert_eq!(field("Version"), format!("{VERSION}\n"));
    let root = env.dir().join("root");
    run("dpkg-deb", [Path::new("-x"), &deb, &root]);
    assert_eq!(run(root.join("usr/bin/svp"), ["--version"]), version);
}

#[test]
fn an_installation_uses_the_given_directories() {
    let env = TestEnv::new();
    let mut install = env.command(repo().join("scripts/install.sh"));
    install.arg(env!("CARGO_BIN_EXE_svp"));
    success(install.env("DESTDIR", env.dir()).env("PREFIX", "/opt/svp"));
    let opt = env.dir().join("opt/svp");
    assert_eq!(run(opt.join("bin/svp"), ["--version"]), format!("svp {VERSION}\n"));
    for name in ["share/man/man1/svp.1", "share/zsh/site-functions/_svp", "share/doc/svp/copyright"]
    {
        assert!(opt.join(name).is_file(), "{name}");
    }
}
