//! Helpers of the layer tests: user namespaces with root, real overlay mounts, handmade tars.

pub mod index;
pub mod judge;
pub mod mutate;

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::layer::meta::IdRanges;
use svp::layer::unpack::{Mode, UnpackOptions, UnpackReport, unpack_layer};
use svp::layer::write::TarWriter;

/// The ids that exist inside [`inside`].
pub const LAST_ID: u32 = 65535;

/// Runs the test `name` (with its module) again, in its own process, as root of a new user namespace with ids 0 to
/// [`LAST_ID`], in which any caller can mount overlays and change owners. Returns true inside; returns false outside
/// once the test has succeeded.
pub fn inside(name: &str) -> bool {
    if std::env::var_os("SVP_TEST_INSIDE").is_some() {
        return true;
    }
    let mut holder = Command::new("unshare")
        .args(["--user", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare, of util-linux");
    let mut ready = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "\n", "no user namespace can be created here");
    let pid = holder.id().to_string();
    map_ids(&pid);
    let output = Command::new("nsenter")
        .args(["--target", &pid, "--user", "--mount", "--setuid", "0", "--setgid", "0", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("SVP_TEST_INSIDE", "1")
        .stderr(Stdio::inherit())
        .output()
        .expect("nsenter, of util-linux");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {}\n{stdout}", output.status);
    // A name without a test would succeed too.
    assert!(stdout.contains("1 passed"), "there is no test {name}:\n{stdout}");
    false
}

/// Maps ids 0 to [`LAST_ID`] of the process's user namespace.
fn map_ids(pid: &str) {
    if nix::unistd::geteuid().is_root() {
        for file in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{file}"), "0 100000 65536\n").unwrap();
        }
        return;
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().expect("a user name");
    let own = [nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()];
    for (tool, file, own) in
        [("newuidmap", "/etc/subuid", own[0]), ("newgidmap", "/etc/subgid", own[1])]
    {
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{}:", user.name)));
        let line = line.unwrap_or_else(|| panic!("{} has no range in {file}", user.name));
        let first = line.split(':').nth(1).unwrap();
        let status = Command::new(tool)
            .args([pid, "0", &own.to_string(), "1", "1", first, &LAST_ID.to_string()])
            .status()
            .expect(tool);
        assert!(status.success(), "{tool}: {status}");
    }
}

pub fn open(path: &Path) -> OwnedFd {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Unpacks for an overlay, on top of the mounted `lower`.
pub fn unpack_overlay(
    tar: &[u8],
    root: &Path,
    lower: Option<&Path>,
) -> svp::error::Result<UnpackReport> {
    let lower = lower.map(open);
    let options = UnpackOptions {
        mode: Mode::Overlay,
        ids: IdRanges::up_to(LAST_ID),
        lower: lower.as_ref().map(|lower| lower.as_fd()),
        drop_set_id: false,
    };
    unpack_layer(&mut &*tar, open(root).as_fd(), &options)
}

/// Unpacks into the tree at `root`.
pub fn unpack_plain(tar: &[u8], root: &Path) -> svp::error::Result<UnpackReport> {
    let ids = IdRanges::up_to(LAST_ID);
    let options = UnpackOptions { mode: Mode::Plain, ids, lower: None, drop_set_id: false };
    unpack_layer(&mut &*tar, open(root).as_fd(), &options)
}

/// An overlay or other mount, unmounted when dropped.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("unmount");
    }
}

/// A directory with unpacked layers, for mounting overlays of them.
pub struct Lab {
    pub dir: tempfile::TempDir,
    /// Lowest first.
    pub layers: Vec<PathBuf>,
    made: usize,
}

impl Lab {
    /// Returns a lab with one empty layer (an overlay needs two).
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("svp-l").tempdir().unwrap();
        let mut lab = Lab { dir, layers: Vec::new(), made: 0 };
        let empty = lab.make_dir();
        unpack_overlay(&tar(&[]), &empty, None).unwrap();
        lab.layers.push(empty);
        lab
    }

    pub fn make_dir(&mut self) -> PathBuf {
        self.made += 1;
        let path = self.dir.path().join(self.made.to_string());
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Mounts the merged view of the layers, with an upper and a work directory or read-only.
    pub fn mount(&mut self, upper: Option<(&Path, &Path)>) -> Mounted {
        let target = self.make_dir();
        let mut lowers: Vec<_> =
            self.layers.iter().rev().map(|path| path.display().to_string()).collect();
        if lowers.len() == 1 && upper.is_none() {
            lowers.push(self.make_dir().display().to_string());
        }
        let mut options = format!("lowerdir={},userxattr", lowers.join(":"));
        if let Some((upper, work)) = upper {
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        let flags = MsFlags::empty();
        mount(Some("overlay"), &target, Some("overlay"), flags, Some(&*options))
            .unwrap_or_else(|error| panic!("overlay {options}: {error}"));
        Mounted(target)
    }

    /// Unpacks a tar as the next layer.
    pub fn add(&mut self, tar: &[u8]) -> svp::error::Result<UnpackReport> {
        let below = self.mount(None);
        let root = self.make_dir();
        let report = unpack_overlay(tar, &root, Some(&below.0));
        self.layers.push(root);
        report
    }
}

impl Drop for Lab {
    /// Removes trees too deep for the temporary directory's own removal, which opens a file descriptor per level.
    fn drop(&mut self) {
        // The check after the tests reports a failure.
        let _ = Command::new("rm").arg("-rf").arg(self.dir.path()).status();
    }
}

/// Returns a tar of entries with content.
pub fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

/// Returns a tar of lines of the form `KIND PATH [ARGUMENT]`: `d`irectory, `f`ile (content), `s`ymlink (target), hard
/// `l`ink (target), fif`p`, character device `c`. Each has a different time.
pub fn sketch(lines: &[&str]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let mut words = line.splitn(3, ' ');
        let (kind, path) = (words.next().unwrap(), words.next().unwrap_or_default());
        let argument = words.next().unwrap_or_default();
        let (kind, mode) = match kind {
            "d" => (EntryKind::Directory, 0o755),
            "f" => (EntryKind::File, 0o644),
            "s" => (EntryKind::Symlink, 0o777),
            "l" => (EntryKind::HardLink, 0o644),
            "p" => (EntryKind::Fifo, 0o600),
            "c" => (EntryKind::CharDevice, 0o666),
            other => panic!("{other}"),
        };
        let mut entry = Entry::new(path, kind, mode);
        entry.mtime = Timestamp { seconds: 1_000_000 + number as i64, nanoseconds: 0 };
        let mut content = &b""[..];
        match kind {
            EntryKind::File => {
                content = argument.as_bytes();
                entry.size = content.len() as u64;
            }
            EntryKind::CharDevice => (entry.major, entry.minor) = (1, 3),
            _ => entry.link = argument.into(),
        }
        entries.push((entry, content));
    }
    tar(&entries)
}
