//! Reads the commit of a work tree from its `.git`, without running git.
//!
//! Supports a branch, a detached HEAD, packed refs, and the `.git` file of a linked work tree or a submodule.
//! All reads are bounded, and only a well-formed commit name is returned.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

/// The maximum number of symbolic refs to follow.
const MAX_LINKS: usize = 5;
/// The maximum size of HEAD, a ref, or a `.git` file, in bytes.
const MAX_REF: u64 = 4096;
/// The maximum size of `packed-refs`, in bytes.
const MAX_PACKED: u64 = 256 << 20;

/// Returns the commit of the work tree at `dir`; `None` if it can't be determined.
pub(super) fn revision(dir: &Path) -> Option<String> {
    let git = git_dir(&dir.join(".git"))?;
    let mut text = read_small(&git.join("HEAD"))?;
    for _ in 0..MAX_LINKS {
        let Some(name) = text.strip_prefix("ref:") else {
            return commit(&text);
        };
        let name = name.trim();
        if !is_safe_ref(name) {
            return None;
        }
        // A linked work tree has a HEAD of its own; its branches are in the main repository.
        let common = common_dir(&git);
        match read_small(&git.join(name)).or_else(|| read_small(&common.join(name))) {
            Some(next) => text = next,
            None => return packed(&common.join("packed-refs"), name),
        }
    }
    None
}

/// Returns the repository: the directory `.git`, or the target of the file `.git`.
fn git_dir(dot_git: &Path) -> Option<PathBuf> {
    if dot_git.is_dir() {
        return Some(dot_git.to_owned());
    }
    let text = read_small(dot_git)?;
    let target = text.strip_prefix("gitdir:")?.trim();
    Some(dot_git.parent()?.join(target))
}

fn common_dir(git: &Path) -> PathBuf {
    match read_small(&git.join("commondir")) {
        Some(text) => git.join(text.trim()),
        None => git.to_owned(),
    }
}

/// Returns whether a ref's name stays below the repository.
fn is_safe_ref(name: &str) -> bool {
    let path = Path::new(name);
    name.starts_with("refs/") && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Parses a commit name: 40 hexadecimal digits, or 64 in a sha256 repository.
fn commit(text: &str) -> Option<String> {
    let text = text.trim();
    let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (hex && matches!(text.len(), 40 | 64)).then(|| text.to_owned())
}

fn packed(path: &Path, name: &str) -> Option<String> {
    let mut reader = BufReader::new(open_file(path)?.take(MAX_PACKED));
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_REF).read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let text = std::str::from_utf8(&line).unwrap_or_default();
        if let Some((id, found)) = text.split_once(' ')
            && found.trim_end() == name
        {
            return commit(id);
        }
    }
}

fn read_small(path: &Path) -> Option<String> {
    let mut text = String::new();
    open_file(path)?.take(MAX_REF).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Opens a regular file, without blocking on a fifo.
fn open_file(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn with(files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(dir.path(), path, text);
        }
        revision(dir.path())
    }

    #[test]
    fn the_commit_is_found_wherever_git_stores_it() {
        let line = format!("{COMMIT}\n");
        let packed = format!(
            "# pack-refs with: peeled\n{}1 refs/heads/x\n{COMMIT} refs/heads/main\n^{COMMIT}\n",
            &COMMIT[1..]
        );
        let on_main = "ref: refs/heads/main\n";
        let cases: [&[(&str, &str)]; 6] = [
            &[(".git/HEAD", &line)],
            &[(".git/HEAD", on_main), (".git/refs/heads/main", &line)],
            &[(".git/HEAD", on_main), (".git/packed-refs", &packed)],
            &[
                (".git/HEAD", on_main),
                (".git/refs/heads/main", "ref: refs/heads/x\n"),
                (".git/refs/heads/x", &line),
            ],
            &[(".git", "gitdir: sub/module\n"), ("sub/module/HEAD", &line)],
            &[
                (".git", "gitdir: r/worktrees/w\n"),
                ("r/worktrees/w/HEAD", on_main),
                ("r/worktrees/w/commondir", "../..\n"),
                ("r/packed-refs", &packed),
            ],
        ];
        for files in cases {
            assert_eq!(with(files).as_deref(), Some(COMMIT), "{files:?}");
        }
    }

    #[test]
    fn only_a_well_formed_commit_is_returned() {
        let cases: [&[(&str, &str)]; 8] = [
            &[],
            &[(".git/HEAD", "")],
            &[(".git/HEAD", "root:x:0:0:root:/root:/bin/bash\n")],
            &[(".git/HEAD", "ref: refs/heads/.invalid\n")],
            &[(".git/HEAD", "ref: refs/heads/main\n"), (".git/packed-refs", "x\n")],
            &[(".git/HEAD", "ref: refs/../../secret\n"), ("secret", COMMIT)],
            &[(".git/HEAD", "ref: ../secret\n"), ("secret", COMMIT)],
            &[(".git/HEAD", "ref: refs/a\n"), (".git/refs/a", "ref: refs/a\n")],
        ];
        for files in cases {
            assert_eq!(with(files), None, "{files:?}");
        }
    }

    #[test]
    fn repositories_that_git_creates_are_supported() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let output = Command::new("git")
                .current_dir(dir.path())
                .args(["-c", "user.name=x", "-c", "user.email=x@example.org"])
                .args(args)
                .output()
                .expect("this test needs git");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        git(&["init", "-q", "-b", "trunk"]);
        assert_eq!(revision(dir.path()), None, "a branch without commits");
        git(&["commit", "-q", "--allow-empty", "-m", "one"]);
        let head = git(&["rev-parse", "HEAD"]);
        assert_eq!(revision(dir.path()).as_ref(), Some(&head));
        git(&["pack-refs", "--all"]);
        git(&["worktree", "add", "-q", "linked", "-b", "other"]);
        assert_eq!(revision(dir.path()).as_ref(), Some(&head));
        assert_eq!(revision(&dir.path().join("linked")).as_ref(), Some(&head));
        git(&["checkout", "-q", "--detach"]);
        assert_eq!(revision(dir.path()).as_ref(), Some(&head));
    }
}
