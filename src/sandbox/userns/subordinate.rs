//! Advises how a user gets subordinate ids on this host: the packages, and a range that nobody else has.

use std::collections::BTreeSet;
use std::fs;

use super::idmap::{ROOT_BASE, ROOT_COUNT, has_helpers, login_name, parse_subordinate};
use crate::sandbox::programs::{Package, as_root, find_program, install};
use crate::shell_words::quote;

/// The files that the advice depends on.
#[derive(Default)]
struct Host {
    subuid: String,
    subgid: String,
    passwd: String,
    group: String,
    login_defs: String,
    has_helpers: bool,
    has_usermod: bool,
}

/// Returns the commands that give the caller the ids that they lack; they need root.
pub(crate) fn advice() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = Host {
        subuid: read("/etc/subuid"),
        subgid: read("/etc/subgid"),
        passwd: read("/etc/passwd"),
        group: read("/etc/group"),
        login_defs: read("/etc/login.defs"),
        has_helpers: has_helpers(),
        has_usermod: find_program("usermod").is_some(),
    };
    let uid = rustix::process::geteuid().as_raw();
    let name = login_name(uid);
    let mut steps: Vec<String> = Vec::new();
    if !host.has_helpers {
        steps.push(install(Package::Uidmap));
    }
    steps.extend(host.ranges(uid, name.as_deref()));
    if let Ok(user) = std::env::var("USER")
        && name.as_deref() != Some(user.as_str())
    {
        let name = name.unwrap_or_else(|| "a user without a name".to_owned());
        steps.push(format!("$USER is {user}, but svp goes by the uid {uid}, which is {name}"));
    }
    steps.join("; ")
}

impl Host {
    /// Returns how to add the ranges that a user lacks.
    fn ranges(&self, uid: u32, name: Option<&str>) -> Option<String> {
        let lacks = |text: &str| parse_subordinate(text, uid, name).is_empty();
        let (users, groups) = (lacks(&self.subuid), lacks(&self.subgid));
        if !users && !groups {
            return None;
        }
        let (start, count) = self.free_range()?;
        let end = start + (count - 1);
        let known = name.filter(|name| field(&self.passwd, 0).any(|known| known == *name));
        let Some(name) = known.filter(|_| self.has_usermod) else {
            let files = match (users, groups) {
                (true, true) => "/etc/subuid and /etc/subgid",
                (true, false) => "/etc/subuid",
                _ => "/etc/subgid",
            };
            return Some(format!("as root, add the line {uid}:{start}:{count} to {files}"));
        };
        let mut command = "usermod".to_owned();
        if users {
            command += &format!(" --add-subuids {start}-{end}");
        }
        if groups {
            command += &format!(" --add-subgids {start}-{end}");
        }
        Some(as_root(&format!("{command} {}", quote(name))))
    }

    /// Returns the first range that no user and no group has, of the size that useradd assigns.
    fn free_range(&self) -> Option<(u32, u32)> {
        let setting = |name: &str| {
            let mut lines = self.login_defs.lines().map(str::split_whitespace);
            lines.find_map(|mut words| {
                (words.next() == Some(name)).then(|| words.next()?.parse::<u32>().ok())?
            })
        };
        let count = setting("SUB_UID_COUNT").filter(|n| *n > 0).unwrap_or(65536);
        let first = setting("SUB_UID_MIN").unwrap_or(100_000);
        let last = setting("SUB_UID_MAX").unwrap_or(600_100_000);
        let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
        for line in self.subuid.lines().chain(self.subgid.lines()) {
            let mut numbers = line.split(':').skip(1).map(|text| text.trim().parse::<u64>());
            if let (Some(Ok(start)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
                taken.insert((start, start.saturating_add(count)));
            }
        }
        // Such as those of a directory service.
        let ids = field(&self.passwd, 2).chain(field(&self.passwd, 3)).chain(field(&self.group, 2));
        taken.extend(ids.filter_map(|id| id.parse::<u64>().ok()).map(|id| (id, id + 1)));
        taken.insert((ROOT_BASE.into(), u64::from(ROOT_BASE) + u64::from(ROOT_COUNT)));
        let mut start = u64::from(first);
        for (from, to) in taken {
            if from < start + u64::from(count) && to > start {
                start = to;
            }
        }
        let end = start + u64::from(count) - 1;
        (end <= u64::from(last)).then_some((u32::try_from(start).ok()?, count))
    }
}

/// Returns a field of each line of a file such as /etc/passwd.
fn field(text: &str, number: usize) -> impl Iterator<Item = &str> {
    text.lines().filter_map(move |line| line.split(':').nth(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(subuid: &str, subgid: &str) -> Host {
        Host {
            subuid: subuid.into(),
            subgid: subgid.into(),
            passwd:
                "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\nyou:x:1001:1001::/:/bin/sh\n"
                    .into(),
            has_helpers: true,
            has_usermod: true,
            ..Host::default()
        }
    }

    #[test]
    fn the_range_is_nobodys() {
        let of = |host: Host| host.ranges(1000, Some("me"));
        let command = |text: &str| Some(as_root(text));
        assert_eq!(
            of(host("", "")),
            command("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 me")
        );
        // Another's, in either file, also when a gap before it is too small.
        let taken = "you:100000:65536\nsystemd:190000:10\n";
        for host in
            [host(taken, ""), host("", taken), host("systemd:190000:10\n1001:100000:65536", "")]
        {
            let got = of(host);
            assert_eq!(
                got,
                command("usermod --add-subuids 190010-255545 --add-subgids 190010-255545 me")
            );
        }
        // Only what is missing.
        assert_eq!(
            of(host("me:100000:65536\n", "")),
            command("usermod --add-subgids 165536-231071 me")
        );
        assert_eq!(of(host("me:100000:65536\n", "1000:100000:65536\n")), None);
        // The ids of other users, and the host's settings.
        let mut ids = host("", "");
        ids.passwd += "far:x:120000:120001::/:/bin/sh\n";
        ids.login_defs = "# SUB_UID_MIN 5\nSUB_UID_MIN 110000\nSUB_UID_COUNT\t20000\n".into();
        assert_eq!(
            of(ids),
            command("usermod --add-subuids 120002-140001 --add-subgids 120002-140001 me")
        );
    }

    #[test]
    fn a_user_whom_usermod_does_not_know_gets_a_line() {
        let line = "as root, add the line 5000:100000:65536 to /etc/subuid and /etc/subgid";
        assert_eq!(host("", "").ranges(5000, None).as_deref(), Some(line));
        assert_eq!(host("", "").ranges(5000, Some("me@corp")).as_deref(), Some(line));
        let alpine = Host { has_usermod: false, ..host("5000:1:2\n", "") };
        let line = "as root, add the line 5000:100000:65536 to /etc/subgid";
        assert_eq!(alpine.ranges(5000, Some("me")).as_deref(), Some(line));
    }

    #[test]
    fn a_full_host_gets_no_range() {
        let full = Host { login_defs: "SUB_UID_MAX 150000\n".into(), ..host("", "") };
        assert_eq!(full.ranges(1000, Some("me")), None);
    }
}
