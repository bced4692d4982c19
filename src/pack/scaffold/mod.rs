//! Creates a new pack: a small service that can be built, set up and run without changes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::query::why_refused;
use crate::error::{Error, IoContext, Result};

/// The files of a new pack. `@NAME@` is replaced by its name, `@VAR@` by its name as a variable prefix.
const FILES: [(&str, u32, &str); 9] = [
    ("bin/query", 0o777, include_str!("template/query")),
    ("bin/build", 0o777, include_str!("template/build")),
    ("bin/run", 0o777, include_str!("template/run")),
    ("bin/client", 0o777, include_str!("template/client")),
    ("bin/extra", 0o777, include_str!("template/extra")),
    ("bin/backup", 0o777, include_str!("template/backup")),
    ("bin/restore", 0o777, include_str!("template/restore")),
    (".svpignore", 0o666, include_str!("template/svpignore")),
    ("README.md", 0o666, include_str!("template/README.md")),
];

/// Creates a pack for the service `name` in the new directory `parent/name`, and returns its path.
///
/// A name consists of lower-case letters, digits and single `-` between them, begins with a letter and has at
/// most 30 characters: it becomes a user name, a directory name and a variable prefix.
///
/// # Errors
/// [`crate::error::Kind::Usage`] for an invalid name or an existing directory; storage errors.
pub fn scaffold(name: &str, parent: &Path) -> Result<PathBuf> {
    check_name(name)?;
    let dir = parent.join(name);
    DirBuilder::new().mode(0o777).create(&dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::usage(format!("{} already exists", dir.display()))
            .hint("choose another name: svp new does not change an existing directory"),
        _ => Error::io("create", &dir, error),
    })?;
    fill(&dir, name).inspect_err(|_| {
        // Nothing else uses the new directory. Ignore an error here: the original one is returned.
        let _ = fs::remove_dir_all(&dir);
    })?;
    Ok(dir)
}

fn fill(dir: &Path, name: &str) -> Result<()> {
    fs::create_dir(dir.join("bin")).io("create", dir.join("bin"))?;
    for (path, mode, template) in FILES {
        let path = dir.join(path);
        let text = template.replace("@NAME@", name).replace("@VAR@", &variable(name));
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(mode).open(&path).io("create", &path)?;
        file.write_all(text.as_bytes()).io("write", &path)?;
    }
    Ok(())
}

/// Converts `my-service` to `MY_SERVICE`.
fn variable(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}

fn check_name(name: &str) -> Result<()> {
    let ok = name.len() <= 30
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.contains("--")
        && !name.ends_with('-');
    if !ok {
        return Err(Error::usage(format!("invalid pack name: {name:?}")).hint(
            "use lower-case letters, digits and single - between them, at most 30 characters",
        ));
    }
    // For example LD_PORT for `ld`.
    if why_refused(&format!("{}_PORT", variable(name))).is_some() {
        return Err(Error::usage(format!("invalid pack name: {name:?}"))
            .hint("choose another name: a pack may not set variables with this prefix"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::pack::query::{RawAnswer, query_all};
    use crate::pack::{Key, Pack, lint};

    fn run_query(dir: &Path, key: Key) -> Result<RawAnswer> {
        let output = Command::new(dir.join("bin/query")).arg(key.as_str()).output().unwrap();
        let status = output.status.code().unwrap();
        Ok(RawAnswer { stdout: output.stdout, status, stderr_tail: String::new() })
    }

    #[test]
    fn a_new_pack_has_no_problems() {
        let parent = tempfile::tempdir().unwrap();
        let dir = scaffold("my-service", parent.path()).unwrap();
        assert_eq!(dir, parent.path().join("my-service"));
        Pack::open(&dir).unwrap();
        assert_eq!(lint(&dir, &mut |key| run_query(&dir, key)), []);
        let answers = query_all(&mut |key| run_query(&dir, key)).unwrap();
        assert_eq!(answers.os.to_string(), "debian/12");
        assert_eq!(answers.secrets, ["MY_SERVICE_PASSWORD"]);
        for script in fs::read_dir(dir.join("bin")).unwrap() {
            let path = script.unwrap().path();
            assert!(!fs::read_to_string(&path).unwrap().contains('@'), "{path:?}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o700, 0o700);
            let status = Command::new("sh").arg("-n").arg(&path).status().unwrap();
            assert!(status.success(), "{path:?}");
        }
    }

    #[rstest::rstest]
    #[case("")]
    #[case("A")]
    #[case("1a")]
    #[case("a--b")]
    #[case("a-")]
    #[case("-a")]
    #[case("a/b")]
    #[case("..")]
    #[case("a b")]
    #[case("a_b")]
    #[case("ld")]
    #[case("svp")]
    #[case("abcdefghijklmnopqrstuvwxyzabcde")]
    fn invalid_names_are_refused(#[case] name: &str) {
        let parent = tempfile::tempdir().unwrap();
        let error = scaffold(name, parent.path()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_directory_is_left_unchanged() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("x")).unwrap();
        let error = scaffold("x", parent.path()).unwrap_err();
        assert!(error.to_string().ends_with("x already exists"), "{error}");
        assert_eq!(fs::read_dir(parent.path().join("x")).unwrap().count(), 0);
    }
}
