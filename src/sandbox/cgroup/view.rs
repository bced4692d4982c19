//! The hierarchies in which a container may see its own cgroups.

use std::path::Path;

use super::hierarchy::{self, Hierarchy, membership};

/// Where programs look for cgroups.
const MOUNT: &str = "/sys/fs/cgroup";

/// A hierarchy to mount in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct CgroupMount {
    /// The directory in /sys/fs/cgroup; empty for /sys/fs/cgroup itself.
    pub(in crate::sandbox) name: String,
    /// Whether it is the unified hierarchy.
    pub(in crate::sandbox) unified: bool,
    /// The controllers of a v1 hierarchy.
    pub(in crate::sandbox) controllers: Vec<String>,
}

/// Returns the hierarchies whose root is this process's own cgroup, because it is in a cgroup namespace. A new mount
/// shows nothing above that.
pub(in crate::sandbox) fn visible() -> Vec<CgroupMount> {
    visible_in(&hierarchy::mounted(), &membership("self"))
}

fn visible_in(all: &[Hierarchy], membership: &str) -> Vec<CgroupMount> {
    let mount = |one: &Hierarchy| {
        let name = one.mount().strip_prefix(MOUNT).ok()?.to_str()?.to_owned();
        let controllers = one.limiting_controllers();
        let useful = if one.unified { true } else { !name.is_empty() && !controllers.is_empty() };
        let plain = !name.contains('/');
        (useful && plain && one.path_of(membership) == Some(Path::new("/")))
            .then_some(CgroupMount { name, unified: one.unified, controllers })
    };
    all.iter().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo;

    fn names(table: &str, membership: &str) -> Vec<String> {
        let all = mountinfo::parse(table.as_bytes());
        let all: Vec<Hierarchy> = all.into_iter().filter_map(hierarchy::of_mount).collect();
        let show = |one: CgroupMount| format!("{}:{}", one.name, one.controllers.join(","));
        visible_in(&all, membership).into_iter().map(show).collect()
    }

    #[test]
    fn a_container_sees_only_its_own_cgroups() {
        let unified = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(names(unified, "0::/\n"), [":"]);
        // Outside a cgroup namespace.
        assert!(names(unified, "0::/user.slice/user-1000.slice\n").is_empty());
        let hybrid = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
31 30 0:27 /a /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
32 30 0:28 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory,clone_children\n\
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
34 30 0:30 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
35 30 0:31 / /mnt/pids rw - cgroup cgroup rw,pids\n\
36 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "9:name=systemd:/\n5:freezer:/\n4:memory:/\n2:cpu,cpuacct:/\n1:pids:/\n0::/\n";
        assert_eq!(names(hybrid, own), ["cpu,cpuacct:cpu,cpuacct", "memory:memory", "unified:"]);
        let partly = "4:memory:/b\n2:cpu,cpuacct:/../c\n0::/d\n";
        assert!(names(hybrid, partly).is_empty());
    }
}
