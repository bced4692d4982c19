//! Resolves a user of a container, from its /etc/passwd and /etc/group.
//!
//! The service controls both files: they are read in the container, with the container's rights, and only ids and the
//! path of the home directory are taken from them.

use std::fs::File;
use std::io::Read;

use nix::unistd::{Gid, Uid, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::sandbox::userns::namespace::set_groups;

/// The maximum number of bytes read from a file.
const MAX_BYTES: u64 = 1 << 20;
/// The maximum number of groups of a user; far below the kernel's `NGROUPS_MAX`.
const MAX_GROUPS: usize = 1024;

/// A user and groups to run a command as.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct User {
    pub(in crate::sandbox) uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: Option<String>,
}

impl User {
    /// Resolves `text` (`USER[:GROUP]`, names or numbers) in this process's root.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the user or group does not exist.
    pub(in crate::sandbox) fn find(text: &str) -> Result<User> {
        User::find_in(text, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn find_in(text: &str, passwd: &str, group: &str) -> Result<User> {
        let (name, wanted_group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        let entries = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let number = id(name);
        let found = entries().find(|entry| entry[0] == name).or_else(|| {
            let uid = number?;
            entries().find(|entry| field(entry, 2) == Some(uid))
        });
        let uid = found.as_ref().and_then(|entry| field(entry, 2)).or(number);
        let uid = uid.ok_or_else(|| missing("user", name, "/etc/passwd"))?;
        let primary = found.as_ref().and_then(|entry| field(entry, 3)).unwrap_or(0);
        let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let home = found.as_ref().and_then(|entry| entry.get(5));
        let home = home.filter(|home| home.starts_with('/')).map(|home| (*home).to_owned());
        let Some(wanted) = wanted_group else {
            let login = found.as_ref().map_or("", |entry| entry[0]);
            let member = |entry: &Vec<&str>| {
                entry.get(3).is_some_and(|all| all.split(',').any(|one| one == login))
            };
            let others = groups().filter(|entry| !login.is_empty() && member(entry));
            let others = others.filter_map(|entry| field(&entry, 2)).take(MAX_GROUPS);
            return Ok(User { uid, gid: primary, groups: others.collect(), home });
        };
        let named = groups().find(|entry| entry[0] == wanted).and_then(|entry| field(&entry, 2));
        let gid = named.or_else(|| id(wanted));
        let gid = gid.ok_or_else(|| missing("group", wanted, "/etc/group"))?;
        Ok(User { uid, gid, groups: Vec::new(), home })
    }

    /// Sets HOME to the user's home directory, if HOME is root's.
    pub(in crate::sandbox) fn set_home(&self, env: &mut [(String, String)]) {
        let home = env.iter_mut().find(|(name, home)| name == "HOME" && home == "/root");
        if let Some((_, value)) = home {
            *value = self.home.clone().unwrap_or_else(|| "/".to_owned());
        }
    }

    /// Changes this process to the user, irrevocably.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the id map does not contain the ids.
    pub(in crate::sandbox) fn switch_user(&self) -> Result<()> {
        let failed = |errno: nix::errno::Errno| {
            Error::bad_input(format!("can't change to user {} and group {}", self.uid, self.gid))
                .source(errno)
                .hint("use an id within the container's range: see `svp check`")
        };
        let groups: Vec<_> = std::iter::once(&self.gid).chain(&self.groups).collect();
        let groups: Vec<_> = groups.into_iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_groups(&groups).map_err(failed)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).map_err(failed)?;
        setresuid(uid, uid, uid).map_err(failed)
    }
}

fn field(entry: &[&str], n: usize) -> Option<u32> {
    id(entry.get(n)?)
}

/// Parses a user or group id. The highest number means "unchanged" to the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn missing(what: &str, name: &str, file: &str) -> Error {
    Error::bad_input(format!("the service has no {what} {name:?}"))
        .hint(format!("use a name from its {file}, or a number"))
}

/// Returns the beginning of a file; empty if it is missing or not a regular file.
fn read(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()).map(File::from) else {
        return String::new();
    };
    if !file.metadata().is_ok_and(|of| of.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    // Parse the part that could be read.
    let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nbad:x:many:0::/:\n\
        db:x:70:71:,,,:/var/lib/db:/bin/sh\n12:x:900:901::/twelve:\nnowhere:x:80:80::no/where:\n";
    const GROUP: &str = "root:x:0:\ndb:x:71:\nssl:x:101:www,db\nother:x:102:www\nempty:x:103:\n";

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let user = |uid, gid, groups: &[u32], home: Option<&str>| {
            Some(User { uid, gid, groups: groups.to_vec(), home: home.map(str::to_owned) })
        };
        for (text, expected) in [
            ("db", user(70, 71, &[101], Some("/var/lib/db"))),
            ("70", user(70, 71, &[101], Some("/var/lib/db"))),
            ("db:other", user(70, 102, &[], Some("/var/lib/db"))),
            ("db:5", user(70, 5, &[], Some("/var/lib/db"))),
            ("500", user(500, 0, &[], None)),
            ("500:501", user(500, 501, &[], None)),
            // A name takes precedence over a number.
            ("12", user(900, 901, &[], Some("/twelve"))),
            ("nowhere", user(80, 80, &[], None)),
            ("0", user(0, 0, &[], Some("/root"))),
            ("nobody", None),
            ("bad", None),
            ("db:nothing", None),
            ("", None),
            ("-1", None),
            ("4294967295", None),
            ("4294967296", None),
        ] {
            assert_eq!(User::find_in(text, PASSWD, GROUP).ok(), expected, "{text:?}");
        }
    }
}
