//! The files that svp provides in a container, /etc/hosts, /etc/resolv.conf and those in /dev: changes to them do not
//! become part of an image, and this module finds them.

use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, FileType, OFlags};

use super::mounts::DEVICES;
use crate::layer::path::quoted;
use crate::rootfs::open_in_root;

/// The maximum number of paths in a report.
const MAX_PATHS: usize = 10;

/// The files that svp has provided, open since before the script could replace anything.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Provided {
    files: Vec<(&'static str, File, String)>,
    dev: Option<OwnedFd>,
}

impl Provided {
    /// Remembers the content of a file.
    pub(super) fn add(&mut self, path: &'static str, file: File, content: &str) {
        self.files.push((path, file, content.to_owned()));
    }

    /// Remembers /dev.
    pub(super) fn add_dev(&mut self, root: BorrowedFd<'_>) {
        self.dev = open_in_root(root, Path::new("dev"), OFlags::RDONLY | OFlags::DIRECTORY).ok();
    }

    /// Returns the paths of the files that a script has changed, or has added in /dev; at most ten. Leaves out sockets,
    /// which no image contains.
    pub(super) fn changed(&mut self) -> Vec<String> {
        let mut paths = Vec::new();
        for (path, file, content) in &mut self.files {
            let mut now = Vec::new();
            let most = content.len() as u64 + 1;
            // A file that can't be read counts as changed.
            let read = file.take(most).read_to_end(&mut now);
            if read.is_err() || now != content.as_bytes() {
                paths.push((*path).to_owned());
            }
        }
        let entries = self.dev.as_ref().and_then(|dev| Dir::read_from(dev).ok());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name().to_bytes();
            let known = DEVICES.iter().any(|known| known.as_bytes() == name);
            let is_socket = entry.file_type() == FileType::Socket;
            if !known && !is_socket && ![&b"."[..], b".."].contains(&name) {
                let path = Path::new("/dev").join(std::ffi::OsStr::from_bytes(name));
                paths.push(quoted(path.as_os_str().as_bytes()));
            }
        }
        paths.sort();
        paths.truncate(MAX_PATHS);
        paths
    }
}
