//! Creates packs for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

/// Writes `text` to the file `path` in `dir`, with mode 0755 below `bin/` and 0644 elsewhere.
pub(crate) fn write(dir: &Path, path: &str, text: &str) {
    let mode = if path.starts_with("bin/") { 0o755 } else { 0o644 };
    let full = dir.join(path);
    fs::create_dir_all(full.parent().unwrap()).unwrap();
    fs::write(&full, text).unwrap();
    fs::set_permissions(&full, fs::Permissions::from_mode(mode)).unwrap();
}

/// Creates a directory with these files.
pub(crate) fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    dir
}

/// Creates a minimal pack with these additional files.
pub(crate) fn pack(files: &[(&str, &str)]) -> TempDir {
    let dir = dir(&[("bin/query", "#!/bin/sh\n"), ("bin/build", "#!/bin/sh\n")]);
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    dir
}
