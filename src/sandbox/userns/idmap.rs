//! Id maps: the host ids that a container's user and group ids map to.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use log::debug;
use serde::{Deserialize, Serialize};

use super::cause::{check_proc, helper_refused, map_refused};
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sandbox::programs::{Package, find_program, install};

/// The host ids of containers that root creates: a range that no distribution assigns (systemd's
/// UIDS-GIDS lists 0x70000000 to 0x7fffffff as unused).
pub(super) const ROOT_BASE: u32 = 0x7000_0000;
pub(super) const ROOT_COUNT: u32 = 0x1000_0000;

/// Maps `count` ids, starting at `inside` (in the container), to ids starting at `outside` (on the host).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// The first id in the container.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// The number of ids.
    pub count: u32,
}

/// The user and group ids of a user namespace, as `user_namespaces(7)` writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMap {
    /// User ids.
    pub uids: Vec<Extent>,
    /// Group ids.
    pub gids: Vec<Extent>,
    /// How the map is written.
    pub how: MapMethod,
}

/// The ways to write an id map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MapMethod {
    /// svp writes the map itself: it has CAP_SETUID and CAP_SETGID.
    Direct,
    /// The setuid helpers `newuidmap` and `newgidmap` write it, from /etc/subuid and /etc/subgid.
    Helpers,
    /// svp writes a map of a single id, after it has denied `setgroups`.
    Single,
}

impl IdMap {
    /// Returns the widest map that the calling user may have.
    ///
    /// Root maps to a private high range, so that a container's root has no rights on the host; in a user namespace
    /// that is too small for that range, root maps to the ids of that namespace. An ordinary user maps to their own id
    /// and their subordinate ranges; without such a range, or without the helpers, to their own id alone.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if there is no /proc.
    pub(crate) fn for_caller() -> Result<IdMap> {
        check_proc()?;
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        if uid == 0 {
            let uids = root_extents(&read("/proc/self/uid_map")?);
            let gids = root_extents(&read("/proc/self/gid_map")?);
            return Ok(IdMap { uids, gids, how: MapMethod::Direct });
        }
        let name = login_name(uid);
        let uids = subordinate(Path::new("/etc/subuid"), uid, name.as_deref());
        let gids = subordinate(Path::new("/etc/subgid"), uid, name.as_deref());
        let single = |outside| vec![Extent { inside: 0, outside, count: 1 }];
        if uids.is_empty() || gids.is_empty() || !has_helpers() {
            return Ok(IdMap { uids: single(uid), gids: single(gid), how: MapMethod::Single });
        }
        let all = |outside, ranges: Vec<(u32, u32)>| {
            let mut extents = single(outside);
            let mut inside = 1u32;
            for (start, count) in ranges {
                let count = count.min(u32::MAX - inside);
                extents.push(Extent { inside, outside: start, count });
                inside += count;
            }
            extents
        };
        Ok(IdMap { uids: all(uid, uids), gids: all(gid, gids), how: MapMethod::Helpers })
    }

    /// Returns the user and group id that the container's root has on the host.
    pub(crate) fn root(&self) -> (u32, u32) {
        (self.uids[0].outside, self.gids[0].outside)
    }

    /// Returns whether a container has a single user id.
    pub(crate) fn is_single(&self) -> bool {
        self.uids.iter().map(|extent| u64::from(extent.count)).sum::<u64>() == 1
    }

    /// Returns a short key of this map, for directory names that depend on it.
    pub(crate) fn key(&self) -> String {
        Digest::of(format!("{:?}{:?}", self.uids, self.gids)).hex()[..16].to_owned()
    }

    /// Writes the map of the user namespace that process `pid` has just created.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with the message of newuidmap or the kernel.
    pub(crate) fn write(&self, pid: u32) -> Result<()> {
        if self.how == MapMethod::Helpers {
            run_helper("newuidmap", pid, &self.uids, "/etc/subuid")?;
            return run_helper("newgidmap", pid, &self.gids, "/etc/subgid");
        }
        let put = |file: &str, text: String| {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text).map_err(|error| map_refused(&path, error))
        };
        if self.how == MapMethod::Single {
            put("setgroups", "deny".into())?;
        }
        put("uid_map", lines(&self.uids))?;
        put("gid_map", lines(&self.gids))
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).io("read", path)
}

fn lines(extents: &[Extent]) -> String {
    extents.iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.count)).collect()
}

/// Returns root's map, given the map of the namespace that svp runs in.
fn root_extents(own: &str) -> Vec<Extent> {
    let own: Vec<(u32, u32)> = own
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
            let (start, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
            Some((start, count))
        })
        .collect();
    let end = u64::from(ROOT_BASE) + u64::from(ROOT_COUNT);
    let whole = |(start, count): &(u32, u32)| {
        *start <= ROOT_BASE && u64::from(*start) + u64::from(*count) >= end
    };
    if own.iter().any(whole) {
        return vec![Extent { inside: 0, outside: ROOT_BASE, count: ROOT_COUNT }];
    }
    own.into_iter().map(|(start, count)| Extent { inside: start, outside: start, count }).collect()
}

/// Returns the user's ranges in a file of the format of subuid(5).
fn subordinate(path: &Path, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    parse_subordinate(&text, uid, name)
}

/// As [`subordinate`], for a file's text.
pub(super) fn parse_subordinate(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let start = fields.next()?.trim().parse::<u32>().ok()?;
            let count = fields.next()?.trim().parse::<u32>().ok()?;
            let ours = Some(owner) == name || owner == number;
            (ours && count > 0 && start.checked_add(count).is_some()).then_some((start, count))
        })
        .collect()
}

/// Returns the login name of a uid: from /etc/passwd, else from getent, since NSS needs a C library that can load
/// modules. $USER may name another user.
pub(in crate::sandbox) fn login_name(uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let name_in = |text: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    };
    name_in(&fs::read_to_string("/etc/passwd").unwrap_or_default()).or_else(|| {
        let mut getent = Command::new(find_program("getent")?);
        let output = getent.args(["passwd", &uid]).stdin(Stdio::null()).output().ok()?;
        name_in(&String::from_utf8_lossy(&output.stdout))
    })
}

/// Whether the helpers that write an id map for ordinary users are installed.
pub(super) fn has_helpers() -> bool {
    ["newuidmap", "newgidmap"].iter().all(|name| find_program(name).is_some())
}

fn run_helper(name: &str, pid: u32, extents: &[Extent], file: &str) -> Result<()> {
    let path = find_program(name).unwrap_or_else(|| PathBuf::from(name));
    let mut command = Command::new(&path);
    command.arg(pid.to_string());
    for extent in extents {
        command.args([extent.inside, extent.outside, extent.count].map(|n| n.to_string()));
    }
    debug!("running {} for process {pid}", path.display());
    // Ctrl-C on the terminal must not end the helper.
    command.process_group(0);
    let output = command.output().map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let failed = Error::sandbox(format!("can't run {}", path.display())).not_started(error);
        if missing { failed.hint(install(Package::Uidmap)) } else { failed }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(helper_refused(name, &path, stderr.trim(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_and_by_number() {
        let text = "a:100000:65536\n1000:200000:10\n\nbad\nb:1:x\na:5:0\na:4294967295:2\n";
        assert_eq!(parse_subordinate(text, 1000, Some("a")), vec![(100_000, 65536), (200_000, 10)]);
        assert_eq!(parse_subordinate(text, 7, None), vec![]);
    }

    #[test]
    fn root_maps_to_a_high_range_or_to_the_ids_it_has() {
        let high = Extent { inside: 0, outside: ROOT_BASE, count: ROOT_COUNT };
        assert_eq!(root_extents("         0          0 4294967295\n"), vec![high]);
        let same = |inside, count| Extent { inside, outside: inside, count };
        assert_eq!(root_extents("0 1000 1\n1 100000 65536\n"), vec![same(0, 1), same(1, 65536)]);
    }
}
