//! Landlock: a second wall around processes that read hostile input with the host's files in reach.
//!
//! The first wall is a mount namespace with nothing of the host, or with its programs mounted read-only. Should a mount be
//! writable that must not be, or a descriptor lead out, the kernel still refuses the access. Without Landlock in the kernel
//! the first wall stands alone, and `svp check` reports it; a rule that can't be set is an error.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::set_no_new_privs;

use crate::error::{Error, Result};
use crate::sys;

/// What a rule allows in a directory and below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Access {
    Read,
    /// Read and execute.
    Execute,
    /// Read, write, create, rename, link and remove.
    Write,
}

/// The kernel's LANDLOCK_ACCESS_FS_….
const EXECUTE: u64 = 1 << 0;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// All kinds of access of version 2. Version 1 refuses every link and rename between directories.
const ALL_OF_VERSION_2: u64 = (1 << 14) - 1;
/// Added in version 3.
const TRUNCATE: u64 = 1 << 14;

/// The first version that svp can use: that of Linux 5.19.
const OLDEST: u32 = 2;

/// Restricts this thread and its children, irrevocably: they can open, change and execute only files that a rule
/// allows. What they have open stays usable. Sets `no_new_privs`.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the kernel has Landlock and refuses.
pub(in crate::sandbox) fn restrict(rules: &[(BorrowedFd<'_>, Access)]) -> Result<()> {
    let Ok(version) = usable_version() else { return Ok(()) };
    restrict_with(version, rules).map_err(|error| {
        Error::sandbox("can't restrict a process with Landlock")
            .source(error)
            .hint("boot the kernel without landlock in lsm= if its Landlock does not work")
    })
}

fn restrict_with(version: u32, rules: &[(BorrowedFd<'_>, Access)]) -> io::Result<()> {
    let handled = handled(version);
    let ruleset = sys::landlock_ruleset(handled)?;
    for (tree, access) in rules {
        sys::landlock_allow(&ruleset, tree, allowed(*access) & handled)?;
    }
    set_no_new_privs(true)?;
    sys::landlock_restrict(ruleset)
}

fn handled(version: u32) -> u64 {
    if version < 3 { ALL_OF_VERSION_2 } else { ALL_OF_VERSION_2 | TRUNCATE }
}

fn allowed(access: Access) -> u64 {
    match access {
        Access::Read => READ_FILE | READ_DIR,
        Access::Execute => READ_FILE | READ_DIR | EXECUTE,
        Access::Write => u64::MAX,
    }
}

/// Returns the version of the kernel's Landlock, or why svp does without it. The request for the version fails only
/// without Landlock, or if a seccomp filter around svp refuses it.
fn usable_version() -> Result<u32, String> {
    usable(sys::landlock_version())
}

fn usable(version: io::Result<u32>) -> Result<u32, String> {
    match version {
        Ok(version) if version >= OLDEST => Ok(version),
        Ok(version) => Err(format!("its version is {version}: svp needs {OLDEST} (Linux 5.19)")),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS) => Err("the kernel has none".to_owned()),
            Some(libc::EOPNOTSUPP) => Err("it is disabled at boot".to_owned()),
            _ => Err(format!("a filter around svp refuses it: {error}")),
        },
    }
}

/// Returns why processes can't be restricted with Landlock on this host, if so.
pub(crate) fn why_no_landlock() -> Option<Error> {
    let why = usable_version().err()?;
    Some(Error::sandbox(format!("no Landlock as a second wall: {why}")).hint(
        "use Linux 5.19 or later with landlock among the modules in /sys/kernel/security/lsm",
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_kernel_without_landlock_is_told_from_an_old_one() {
        let error = |errno| Err(io::Error::from_raw_os_error(errno));
        assert_eq!(usable(Ok(2)), Ok(2));
        assert_eq!(usable(Ok(7)), Ok(7));
        assert!(usable(Ok(1)).unwrap_err().contains("Linux 5.19"));
        assert!(usable(error(libc::ENOSYS)).unwrap_err().contains("the kernel has none"));
        assert!(usable(error(libc::EOPNOTSUPP)).unwrap_err().contains("disabled"));
        assert!(usable(error(libc::EPERM)).unwrap_err().contains("filter"));
    }

    #[test]
    fn rules_are_of_the_version() {
        assert_eq!(allowed(Access::Write) & handled(2), (1 << 14) - 1);
        assert_eq!(allowed(Access::Write) & handled(3), (1 << 15) - 1);
        assert_eq!(handled(3), handled(9));
        assert_eq!(allowed(Access::Read) & handled(7), READ_FILE | READ_DIR);
    }

    #[test]
    fn only_what_a_rule_allows_is_accessible() {
        if let Err(why) = usable_version() {
            // Written past the test runner, which hides the output of passing tests.
            let _ = writeln!(std::io::stderr(), "landlock: not run: {why}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [read, write, other] = ["read", "write", "other"].map(|name| dir.path().join(name));
        for dir in [&read, &write, &other] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), "text").unwrap();
        }
        fs::create_dir(write.join("below")).unwrap();
        let open = |path| fs::File::open(path).unwrap();
        let (read_fd, write_fd, before) = (open(&read), open(&write), open(&other.join("file")));
        // A thread of its own: the restriction stays.
        let restricted = move || {
            restrict(&[(read_fd.as_fd(), Access::Read), (write_fd.as_fd(), Access::Write)])
                .unwrap();
            let refused = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            assert_eq!(fs::read_to_string(read.join("file")).unwrap(), "text");
            refused(fs::write(read.join("file"), ""));
            refused(fs::remove_file(read.join("file")));
            refused(fs::create_dir(read.join("new")));
            refused(fs::read(other.join("file")).map(drop));
            refused(fs::read_dir(&other).map(drop));
            refused(fs::write(other.join("new"), ""));
            refused(symlink("x", other.join("link")));
            fs::write(write.join("file"), "new").unwrap();
            fs::hard_link(write.join("file"), write.join("below/linked")).unwrap();
            fs::rename(write.join("file"), write.join("below/renamed")).unwrap();
            // A link does not lead out.
            symlink(&other, write.join("out")).unwrap();
            refused(fs::read(write.join("out/file")).map(drop));
            // What is open stays usable.
            assert_eq!(io::read_to_string(before).unwrap(), "text");
        };
        std::thread::spawn(restricted).join().unwrap();
    }
}
