use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::testing::{dir, pack, write};
use super::*;
use crate::error::Kind;

fn refused(dir: &Path) -> String {
    let error = Pack::open(dir).unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    format!("{error:?}")
}

#[test]
fn a_directory_that_is_not_a_pack_is_refused_with_the_reason() {
    let missing = dir(&[]);
    assert!(refused(&missing.path().join("x")).contains("No such file"));
    assert!(refused(missing.path()).contains("bin/query is missing"));
    let file = dir(&[("x", "")]);
    assert!(refused(&file.path().join("x")).contains("Not a directory"));
    let half = dir(&[("bin/query", "")]);
    assert!(refused(half.path()).contains("bin/build is missing"));
    let bin_is_a_file = dir(&[("bin", "")]);
    assert!(refused(bin_is_a_file.path()).contains("bin/query is missing"));
    let script_is_a_dir = dir(&[("bin/query/x", ""), ("bin/build", "")]);
    assert!(refused(script_is_a_dir.path()).contains("bin/query is not a file"));
    let dangling = dir(&[("bin/build", "")]);
    symlink("nowhere", dangling.path().join("bin/query")).unwrap();
    assert!(refused(dangling.path()).contains("bin/query is missing"));
}

#[test]
fn a_script_must_be_executable_by_its_owner() {
    let pack = pack(&[]);
    let build = pack.path().join("bin/build");
    for mode in [0o644, 0o611, 0o000] {
        fs::set_permissions(&build, Permissions::from_mode(mode)).unwrap();
        let error = refused(pack.path());
        assert!(error.contains("bin/build is not executable"), "{error}");
        assert!(error.contains(&format!("chmod +x {}", build.display())), "{error}");
    }
    fs::set_permissions(&build, Permissions::from_mode(0o700)).unwrap();
    let pack = Pack::open(pack.path()).unwrap();
    assert!(pack.has("bin/build") && !pack.has("bin/run"));
    assert!(pack.require("bin/run").unwrap_err().to_string().contains("bin/run is missing"));
}

#[test]
fn a_script_may_be_a_link() {
    let pack = pack(&[("lib/run", "#!/bin/sh\n")]);
    fs::set_permissions(pack.path().join("lib/run"), Permissions::from_mode(0o755)).unwrap();
    symlink("../lib/run", pack.path().join("bin/run")).unwrap();
    assert!(Pack::open(pack.path()).unwrap().has("bin/run"));
}

/// Lists the entries of a pack's layer: "kind mode path[ -> link]: content".
fn entries(dir: &Path) -> Vec<String> {
    let mut layer = Vec::new();
    let digest = Pack::open(dir).unwrap().write_layer(&mut layer, PREFIX).unwrap();
    assert_eq!(digest, crate::oci::digest::Digest::of(&layer));
    let mut out = Vec::new();
    for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let header = entry.header();
        assert_eq!(header.mtime().unwrap(), 315_532_800);
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let kind = format!("{:?}", header.entry_type());
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        out.push(format!(
            "{kind} {:o} {}{}: {}",
            header.mode().unwrap(),
            String::from_utf8_lossy(&entry.path_bytes()),
            link.map(|link| format!(" -> {link}")).unwrap_or_default(),
            String::from_utf8_lossy(&content)
        ));
    }
    out
}

#[test]
fn the_layer_contains_the_normalised_pack() {
    let pack = pack(&[
        ("z", "last"),
        ("a/b", "x"),
        ("a.b", ""),
        (".git/HEAD", "secret"),
        ("sub/.git", "gitdir: x"),
        (".gitignore", "x"),
    ]);
    symlink("../../etc/passwd", pack.path().join("out")).unwrap();
    symlink("nowhere", pack.path().join("dangling")).unwrap();
    fs::hard_link(pack.path().join("z"), pack.path().join("zz")).unwrap();
    fs::set_permissions(pack.path().join("z"), Permissions::from_mode(0o4600)).unwrap();
    fs::set_permissions(pack.path().join("bin/build"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(
        entries(pack.path()),
        [
            "Directory 755 service/: ",
            "Regular 644 service/.gitignore: x",
            "Directory 755 service/a/: ",
            "Regular 644 service/a/b: x",
            "Regular 644 service/a.b: ",
            "Directory 755 service/bin/: ",
            "Regular 755 service/bin/build: #!/bin/sh\n",
            "Regular 755 service/bin/query: #!/bin/sh\n",
            "Symlink 777 service/dangling -> nowhere: ",
            "Symlink 777 service/out -> ../../etc/passwd: ",
            "Directory 755 service/sub/: ",
            "Regular 644 service/z: last",
            "Regular 644 service/zz: last",
        ]
    );
}

#[test]
fn the_same_content_has_the_same_digest() {
    let files = [("bin/query", "q"), ("bin/build", "b"), ("x/y", "z"), ("a", "b")];
    let one = dir(&files);
    let two = dir(&[]);
    for (path, text) in files.iter().rev() {
        write(two.path(), path, text);
    }
    fs::set_permissions(two.path().join("a"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(two.path().join("x"), Permissions::from_mode(0o2775)).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::open(two.path().join("a")).unwrap().set_modified(time).unwrap();
    let digest =
        |dir: &Path| Pack::open(dir).unwrap().write_layer(&mut io::sink(), PREFIX).unwrap();
    let first = digest(one.path());
    assert_eq!(first, digest(two.path()));
    // Pinned: the digest is the same on any machine.
    assert_eq!(first.hex(), "60994ee4dc759165db33830f410e638627cb63ce12f38dcaaeaa7ec719d2f5aa");
    fs::set_permissions(two.path().join("a"), Permissions::from_mode(0o700)).unwrap();
    assert_ne!(first, digest(two.path()));
}

#[test]
fn svpignore_is_honoured() {
    let pack = pack(&[
        (".svpignore", "*.log\n/tests/\n!keep.log\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("tests/x", ""),
        ("lib/tests/x", ""),
    ]);
    let names: Vec<String> = entries(pack.path())
        .iter()
        .map(|entry| entry.split([' ', ':']).nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "service/",
            "service/.svpignore",
            "service/bin/",
            "service/bin/build",
            "service/bin/query",
            "service/keep.log",
            "service/lib/",
            "service/lib/tests/",
            "service/lib/tests/x"
        ]
    );
}

fn layer_error(dir: &Path) -> crate::error::Error {
    Pack::open(dir).unwrap().write_layer(&mut io::sink(), PREFIX).unwrap_err()
}

#[test]
fn files_that_a_pack_may_not_contain_are_refused() {
    for rule in ["bin\n", "query\n", "*\n"] {
        let pack = pack(&[(".svpignore", rule)]);
        let error = layer_error(pack.path());
        assert!(error.to_string().contains(".svpignore excludes bin/query"), "{error}");
    }
    let fifo = pack(&[]);
    let path = fifo.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(layer_error(fifo.path()).to_string().contains("pipe is a fifo"));
    write(fifo.path(), ".svpignore", "pipe\n");
    assert!(Pack::open(fifo.path()).unwrap().write_layer(&mut io::sink(), PREFIX).is_ok());
    let socket = pack(&[]);
    let _listener = std::os::unix::net::UnixListener::bind(socket.path().join("s")).unwrap();
    assert!(layer_error(socket.path()).to_string().contains("s is a socket"));
    let deep = pack(&[]);
    fs::create_dir_all(deep.path().join("d/".repeat(130))).unwrap();
    assert!(layer_error(deep.path()).to_string().contains("directories nested more than"));
}

#[test]
fn names_that_are_not_utf_8_are_kept() {
    use std::os::unix::ffi::OsStrExt;
    let pack = pack(&[]);
    fs::write(pack.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    let mut layer = Vec::new();
    Pack::open(pack.path()).unwrap().write_layer(&mut layer, PREFIX).unwrap();
    let mut archive = tar::Archive::new(&layer[..]);
    assert!(archive.entries().unwrap().any(|e| *e.unwrap().path_bytes() == *b"service/\xff"));
}

/// Changes a file once part of the layer has been written.
struct Meddler<'a> {
    path: &'a Path,
    written: usize,
    text: String,
}

impl std::io::Write for Meddler<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let before = self.written;
        self.written += buf.len();
        if before < 100_000 && self.written >= 100_000 {
            fs::write(self.path, &self.text)?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[rstest::rstest]
#[case::shorter("x".into())]
#[case::longer("x".repeat(500_000))]
#[case::other("y".repeat(400_000))]
fn a_file_that_changes_meanwhile_is_an_error(#[case] text: String) {
    let pack = pack(&[("a", &"x".repeat(400_000))]);
    let path = pack.path().join("a");
    // With a coarse clock both versions could have the same time.
    let earlier = std::time::SystemTime::now() - std::time::Duration::from_secs(10);
    fs::File::open(&path).unwrap().set_modified(earlier).unwrap();
    let mut meddler = Meddler { path: &path, written: 0, text };
    let result = Pack::open(pack.path()).unwrap().write_layer(&mut meddler, PREFIX);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("/a") && error.contains("changed while being read"), "{error}");
}

/// Only meaningful as an ordinary user: root can read everything.
#[test]
fn a_file_that_cannot_be_read_is_named() {
    let pack = pack(&[("secret", "x")]);
    fs::set_permissions(pack.path().join("secret"), Permissions::from_mode(0o000)).unwrap();
    let result = Pack::open(pack.path()).unwrap().write_layer(&mut io::sink(), PREFIX);
    match rustix::process::geteuid().is_root() {
        true => assert!(result.is_ok()),
        false => assert!(result.unwrap_err().to_string().contains("can't open")),
    }
}
