//! Finds the host's cgroup hierarchies: one unified hierarchy (cgroup v2), one for each controller (v1), or a
//! hybrid of both.

use std::path::{Path, PathBuf};

use super::resources::Resources;
use crate::mountinfo::{self, MountEntry};

/// A cgroup controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Pids,
}

/// A control file of a cgroup, the value to write, and whether the file may be missing.
pub(super) type Setting = (&'static str, String, bool);

/// The period of the CPU quota; microseconds.
const PERIOD: u64 = 100_000;

impl Controller {
    /// Returns the controllers that these limits need.
    pub(super) fn needed(resources: &Resources) -> Vec<Controller> {
        let needs = [
            (Controller::Memory, resources.memory),
            (Controller::Cpu, resources.milli_cpus),
            (Controller::Pids, resources.pids),
        ];
        needs.into_iter().filter(|(_, bound)| bound.is_some()).map(|(one, _)| one).collect()
    }

    /// Returns the kernel's name of the controller.
    pub(super) fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }

    /// Returns the option of `svp run` that sets the controller's limit.
    pub(super) fn option(self) -> &'static str {
        match self {
            Controller::Memory => "--memory",
            Controller::Cpu => "--cpus",
            Controller::Pids => "--pids",
        }
    }

    /// Returns the control file of the limit, in the unified hierarchy or in a v1 one.
    pub(super) fn file(self, unified: bool) -> &'static str {
        match (self, unified) {
            (Controller::Memory, true) => "memory.max",
            (Controller::Memory, false) => "memory.limit_in_bytes",
            (Controller::Cpu, true) => "cpu.max",
            (Controller::Cpu, false) => "cpu.cfs_quota_us",
            (Controller::Pids, _) => "pids.max",
        }
    }

    /// Returns the control files to write. Allows as much swap as memory, as podman does; the kernel may lack swap
    /// accounting.
    pub(super) fn settings(self, unified: bool, resources: &Resources) -> Vec<Setting> {
        let memory = resources.memory.unwrap_or_default();
        let quota = resources.milli_cpus.unwrap_or_default() * PERIOD / 1000;
        let file = self.file(unified);
        match (self, unified) {
            (Controller::Memory, true) => vec![
                (file, memory.to_string(), false),
                ("memory.swap.max", memory.to_string(), true),
            ],
            (Controller::Memory, false) => vec![
                (file, memory.to_string(), false),
                ("memory.memsw.limit_in_bytes", (2 * memory).to_string(), true),
            ],
            (Controller::Cpu, true) => vec![(file, format!("{quota} {PERIOD}"), false)],
            (Controller::Cpu, false) => vec![
                ("cpu.cfs_period_us", PERIOD.to_string(), false),
                (file, quota.to_string(), false),
            ],
            (Controller::Pids, _) => {
                vec![(file, resources.pids.unwrap_or_default().to_string(), false)]
            }
        }
    }
}

/// The v1 controllers in whose hierarchies programs look for their limits.
const LIMITING: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "pids"];

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Whether it is the unified hierarchy.
    pub(super) unified: bool,
    /// The controllers of a v1 hierarchy.
    controllers: Vec<String>,
    /// The cgroup at the root of the mount.
    root: PathBuf,
    /// The mount point.
    mount: PathBuf,
}

/// Returns all mounted hierarchies.
pub(super) fn mounted() -> Vec<Hierarchy> {
    mountinfo::read().unwrap_or_default().into_iter().filter_map(of_mount).collect()
}

/// Returns the hierarchy of a controller: its v1 hierarchy, else the unified one.
pub(super) fn of(controller: Controller, all: &[Hierarchy]) -> Option<&Hierarchy> {
    let own = all.iter().find(|one| one.controllers.iter().any(|name| name == controller.name()));
    own.or_else(|| all.iter().find(|one| one.unified))
}

/// Reads a process's cgroups from /proc.
pub(super) fn membership(process: &str) -> String {
    std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default()
}

/// Returns the hierarchy of a mount; `None` if it is not a cgroup mount.
pub(super) fn of_mount(mount: MountEntry) -> Option<Hierarchy> {
    let unified = match mount.kind.as_str() {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let controllers = if unified { Vec::new() } else { mount.options };
    Some(Hierarchy { unified, controllers, root: mount.root, mount: mount.at })
}

impl Hierarchy {
    /// Returns the mount point.
    pub(super) fn mount(&self) -> &Path {
        &self.mount
    }

    /// Returns the controllers of a v1 hierarchy that limit or account what a service uses.
    pub(super) fn limiting_controllers(&self) -> Vec<String> {
        let all = self.controllers.iter().filter(|name| LIMITING.contains(&name.as_str()));
        all.cloned().collect()
    }

    /// Returns the directory of a process's cgroup, if it lies below the root of the mount.
    pub(super) fn dir_of(&self, membership: &str) -> Option<PathBuf> {
        let below = self.path_of(membership)?.strip_prefix(&self.root).ok()?;
        // A process outside this process's cgroup namespace is at /../…
        let inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| self.mount.join(below))
    }

    /// Returns the path of a process's cgroup in the hierarchy.
    pub(super) fn path_of<'m>(&self, membership: &'m str) -> Option<&'m Path> {
        membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let this = match self.unified {
                true => number == "0" && controllers.is_empty(),
                false => {
                    controllers.split(',').any(|name| self.controllers.iter().any(|c| c == name))
                }
            };
            this.then_some(Path::new(path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
32 30 0:28 /user /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn cgroups_are_found_in_a_hybrid_hierarchy() {
        let all = mountinfo::parse(HYBRID.as_bytes());
        let all: Vec<Hierarchy> = all.into_iter().filter_map(of_mount).collect();
        assert_eq!(all.len(), 4);
        let process = "9:name=systemd:/\n4:memory:/user/a\n2:cpuacct,cpu:/b/c\n0::/d\n";
        let dir = |controller| of(controller, &all).and_then(|one| one.dir_of(process));
        assert_eq!(dir(Controller::Memory).unwrap(), Path::new("/sys/fs/cgroup/memory/a"));
        assert_eq!(dir(Controller::Cpu).unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/b/c"));
        // pids has no v1 hierarchy here.
        assert_eq!(dir(Controller::Pids).unwrap(), Path::new("/sys/fs/cgroup/unified/d"));
        let elsewhere = "4:memory:/other\n0::/../outside\n";
        for controller in [Controller::Memory, Controller::Cpu, Controller::Pids] {
            assert_eq!(of(controller, &all).unwrap().dir_of(elsewhere), None, "{controller:?}");
        }
        assert_eq!(of(Controller::Pids, &all[..3]), None);
    }

    #[test]
    fn limits_are_written_in_the_form_of_each_cgroup_version() {
        let resources =
            Resources { memory: Some(64 << 20), milli_cpus: Some(1500), pids: Some(100) };
        assert_eq!(Controller::needed(&resources).len(), 3);
        assert!(Controller::needed(&Resources::default()).is_empty());
        let first = |controller: Controller, unified| {
            let (file, value, _) = controller.settings(unified, &resources).pop().unwrap();
            format!("{file}={value}")
        };
        assert_eq!(first(Controller::Memory, true), "memory.swap.max=67108864");
        assert_eq!(first(Controller::Memory, false), "memory.memsw.limit_in_bytes=134217728");
        assert_eq!(first(Controller::Cpu, true), "cpu.max=150000 100000");
        assert_eq!(first(Controller::Cpu, false), "cpu.cfs_quota_us=150000");
        assert_eq!(first(Controller::Pids, true), "pids.max=100");
    }
}
