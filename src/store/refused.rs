//! Explains why a store can't be opened, and the command that mends it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::mountinfo::{self, MountEntry};
use crate::shell_words::quote_path;

/// Adds a hint to the error of opening the store at `root`.
pub(super) fn explain(root: &Path, error: Error) -> Error {
    let source = std::error::Error::source(&error);
    let kind =
        source.and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    match kind {
        Some(ErrorKind::ReadOnlyFilesystem) => {
            let remount = remount(root)
                .map(|command| format!("as root, run `{command}`, or "))
                .unwrap_or_default();
            error.hint(format!(
                "the store is on a file system that is mounted read-only: {remount}set SVP_ROOT to a directory on \
                 another one"
            ))
        }
        Some(ErrorKind::PermissionDenied) => {
            let owner = existing(root).and_then(|dir| Some((fs::metadata(&dir).ok()?.uid(), dir)));
            let whose =
                owner.map(|(uid, dir)| format!("{} belongs to the user {uid}: ", dir.display()));
            error.hint(format!(
                "{}set SVP_ROOT to a directory of your own",
                whose.unwrap_or_default()
            ))
        }
        _ => error,
    }
}

/// Returns the directory, or its closest parent that exists.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|dir| dir.canonicalize().ok())
}

/// Returns the command that makes the file system of a directory writable.
fn remount(root: &Path) -> Option<String> {
    remount_of(&mountinfo::read().ok()?, &existing(root)?)
}

fn remount_of(mounts: &[MountEntry], dir: &Path) -> Option<String> {
    let below = mounts.iter().filter(|mount| dir.starts_with(&mount.at));
    // The last one of several at the same place is on top.
    let mount = below.max_by_key(|mount| mount.at.as_os_str().len())?;
    // A read-only view of a writable file system is a property of the mount.
    let whole = mount.options.iter().any(|option| option == "ro");
    let options = if whole { "remount,rw" } else { "remount,bind,rw" };
    Some(format!("mount -o {options} {}", quote_path(&mount.at.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_the_topmost_mount() {
        let mounts = b"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            21 20 8:2 / /srv ro,relatime - ext4 /dev/sda2 ro\n\
            22 20 8:1 /x /srv/a\\040b ro shared:1 - ext4 /dev/sda1 rw\n";
        let mounts = mountinfo::parse(mounts);
        let of = |dir: &str| remount_of(&mounts, Path::new(dir)).unwrap();
        assert_eq!(of("/srv/x/store"), "mount -o remount,rw /srv");
        assert_eq!(of("/srv/a b/store"), "mount -o remount,bind,rw '/srv/a b'");
        assert_eq!(of("/home"), "mount -o remount,bind,rw /");
    }
}
