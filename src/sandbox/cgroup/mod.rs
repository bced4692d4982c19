//! The cgroup of a service's container: enforces its [`Resources`].
//!
//! svp moves the container's stage into the cgroup before the stage starts anything, so that all processes of the
//! container are created there. Where systemd runs, it owns the cgroup tree, so svp requests a scope; elsewhere, as in
//! containers and small systems, svp creates the directories itself where permitted. Nothing else in svp needs cgroups:
//! if none is available, the service runs without limits, and svp warns the user.
//!
//! | file | job |
//! |---|---|
//! | `hierarchy` | the host's cgroups, version 1 and 2 |
//! | `resources` | parses the requested limits |
//! | `scope` | requests a systemd scope |
//! | `view` | the cgroups that a container sees |

mod hierarchy;
pub(super) mod resources;
mod scope;
pub(super) mod view;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hierarchy::{Controller, Hierarchy, membership};

use crate::error::{Error, IoContext, Kind, Result};
use crate::sandbox::stage::launch::Stage;
use resources::Resources;

/// The prefix of the name of every cgroup that svp creates.
const PREFIX: &str = "svp-";
/// How long to wait for a cgroup's last process to end.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(5);

/// The cgroup of a container. Dropping it removes it: the container must have ended.
#[derive(Debug, Default)]
pub(super) struct Cgroup {
    /// The directories that svp has created, one for each hierarchy.
    created: Vec<PathBuf>,
    /// The file that counts OOM kills.
    kills: Option<PathBuf>,
    /// The file that counts refused processes and threads.
    refusals: Option<PathBuf>,
}

/// The limits that could not be set, and the reason.
#[derive(Debug)]
pub(super) struct Unbounded {
    what: Vec<Controller>,
    why: Error,
}

impl Cgroup {
    /// Moves a process into a new cgroup with these limits; also returns the limits that could not be set.
    pub(super) fn make(
        id: &str,
        resources: &Resources,
        process: u32,
    ) -> (Cgroup, Option<Unbounded>) {
        let name = format!("{PREFIX}{id}");
        let needed = Controller::needed(resources);
        if needed.is_empty() {
            return (Cgroup::default(), None);
        }
        let all = hierarchy::mounted();
        let (mut cgroup, unbounded) = match scope::start(&name, resources, process) {
            Ok(()) => (Cgroup::default(), not_delegated(&all, &needed, process)),
            Err(error) => Cgroup::without_systemd(&all, &name, resources, process, error),
        };
        let at = membership(&process.to_string());
        let events = |controller, unified: &str, v1: &str| {
            let hierarchy = hierarchy::of(controller, &all)?;
            Some(hierarchy.dir_of(&at)?.join(if hierarchy.unified { unified } else { v1 }))
        };
        cgroup.kills = events(Controller::Memory, "memory.events", "memory.oom_control")
            .filter(|_| resources.memory.is_some());
        cgroup.refusals = events(Controller::Pids, "pids.events", "pids.events")
            .filter(|_| resources.pids.is_some());
        (cgroup, unbounded)
    }

    /// Creates the cgroup below svp's own, without systemd.
    fn without_systemd(
        all: &[Hierarchy],
        name: &str,
        resources: &Resources,
        process: u32,
        no_scope: Error,
    ) -> (Cgroup, Option<Unbounded>) {
        let mut cgroup = Cgroup::default();
        let mut what = Vec::new();
        let mut first = None;
        for controller in Controller::needed(resources) {
            if let Err(why) = cgroup.set_limit(controller, all, name, resources, process) {
                what.push(controller);
                first.get_or_insert(why);
            }
        }
        cgroup.complete(all, name, process);
        let unbounded = first.map(|why| {
            // Where systemd runs, report why it did not create the scope.
            let why = match no_scope.hint_text() {
                Some(_) => no_scope,
                None => why.with_kind(Kind::Sandbox).hint(
                    "only root can create cgroups here; a host with systemd delegates them to every user",
                ),
            };
            Unbounded { what, why }
        });
        (cgroup, unbounded)
    }

    /// Sets the limit of one controller and moves the process into the cgroup.
    fn set_limit(
        &mut self,
        what: Controller,
        all: &[Hierarchy],
        name: &str,
        resources: &Resources,
        process: u32,
    ) -> Result<()> {
        let none = || Error::sandbox(format!("no cgroup for {} on this host", what.name()));
        let hierarchy = hierarchy::of(what, all).ok_or_else(none)?;
        let parent = hierarchy.dir_of(&membership("self")).ok_or_else(none)?;
        if hierarchy.unified {
            delegate(&parent, what)?;
        }
        let dir = parent.join(name);
        if !self.created.contains(&dir) {
            // Left by a container whose monitor was killed.
            remove(&dir);
            fs::create_dir(&dir).io("create", &dir)?;
            self.created.push(dir.clone());
        }
        let set = || {
            for (file, value, may_lack) in what.settings(hierarchy.unified, resources) {
                let path = dir.join(file);
                if !may_lack || path.exists() {
                    fs::write(&path, value).io("write to", &path)?;
                }
            }
            let path = dir.join("cgroup.procs");
            fs::write(&path, process.to_string()).io("write to", &path)
        };
        set().inspect_err(|_| {
            // The removal fails if another controller's limit is set there: then the process is in the cgroup.
            if fs::remove_dir(&dir).is_ok() {
                self.created.retain(|created| *created != dir);
            }
        })
    }

    /// Adds the process to a cgroup of its own in the remaining v1 hierarchies. The JVM believes in limits only where it
    /// finds those of all controllers, and the root of a hierarchy is never shown to a container.
    fn complete(&mut self, all: &[Hierarchy], name: &str, process: u32) {
        if self.created.is_empty() {
            return;
        }
        for hierarchy in all.iter().filter(|one| !one.limiting_controllers().is_empty()) {
            let Some(parent) = hierarchy.dir_of(&membership("self")) else { continue };
            let dir = parent.join(name);
            if self.created.contains(&dir) {
                continue;
            }
            remove(&dir);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // A new cpuset is empty, and accepts no process.
                if let Ok(value) = fs::read(parent.join(file)) {
                    // The next write fails if this does.
                    let _ = fs::write(dir.join(file), value);
                }
            }
            match fs::write(dir.join("cgroup.procs"), process.to_string()) {
                Ok(()) => self.created.push(dir),
                Err(_) => remove(&dir),
            }
        }
    }

    /// Returns the number of the container's processes that the OOM killer has killed.
    pub(super) fn memory_kills(&self) -> u64 {
        counter(self.kills.as_deref(), "oom_kill ")
    }

    /// Returns how often the container was refused a process or a thread.
    pub(super) fn refused_pids(&self) -> u64 {
        counter(self.refusals.as_deref(), "max ")
    }
}

/// Reads a counter from a file of events.
fn counter(path: Option<&Path>, name: &str) -> u64 {
    let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
}

impl Unbounded {
    /// Whether the memory has no limit.
    pub(super) fn includes_memory(&self) -> bool {
        self.what.contains(&Controller::Memory)
    }

    /// Returns the error for a limit without which nothing is started.
    pub(super) fn into_error(self) -> Error {
        let options: Vec<&str> = self.what.iter().map(|one| one.option()).collect();
        let options = options.join(" and ");
        self.why
            .context(format!("{options} can't be enforced here"))
            .with_kind(Kind::Sandbox)
            .also_hint(&format!("or omit {options}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.created.iter().for_each(|dir| remove(dir));
    }
}

impl std::fmt::Display for Unbounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options: Vec<&str> = self.what.iter().map(|one| one.option()).collect();
        let verb = if options.len() == 1 { "has" } else { "have" };
        write!(f, "{} {verb} no effect here: {}", options.join(", "), self.why)?;
        match self.why.hint_text() {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

/// Removes the cgroup that a killed monitor has left.
pub(super) fn forget(id: &str) {
    for hierarchy in hierarchy::mounted() {
        if let Some(parent) = hierarchy.dir_of(&membership("self")) {
            remove(&parent.join(format!("{PREFIX}{id}")));
        }
    }
}

/// Removes the cgroups `PREFIX-PID-…` that killed commands have left.
pub(super) fn sweep(prefix: &str) {
    let prefix = format!("{PREFIX}{prefix}-");
    for hierarchy in hierarchy::mounted() {
        let parent = hierarchy.dir_of(&membership("self"));
        for entry in parent.and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|name| name.strip_prefix(&prefix)?.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // EBUSY: its last process is about to end.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Moves a process that joins a container into the container's cgroup, if svp created one.
pub(super) fn join(init: u32, process: u32) -> Result<()> {
    let theirs = membership(&init.to_string());
    for hierarchy in hierarchy::mounted() {
        let Some(dir) = hierarchy.dir_of(&theirs) else { continue };
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(PREFIX) {
            continue;
        }
        if name.ends_with(".scope") {
            // systemd moves the process in all hierarchies at once.
            return scope::attach(name, process);
        }
        let path = dir.join("cgroup.procs");
        fs::write(&path, process.to_string()).io("write to", &path)?;
    }
    Ok(())
}

/// Returns why this host can't limit resources; `None` if it can.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the test can't run.
pub(crate) fn why_unbounded() -> Result<Option<Error>> {
    // The stage waits for a request, which svp never sends.
    let stage = Stage::<()>::spawn(Path::new("/"), "cgroup")?;
    let resources = Resources { memory: Some(64 << 20), milli_cpus: Some(1000), pids: Some(100) };
    let id = format!("check-{}", std::process::id());
    let (cgroup, unbounded) = Cgroup::make(&id, &resources, stage.pid());
    drop(stage);
    drop(cgroup);
    Ok(unbounded.map(|Unbounded { what, why }| {
        let names: Vec<&str> = what.iter().map(|one| one.option()).collect();
        why.context(format!("{} would have no effect", names.join(", ")))
    }))
}

/// Returns the limits that a scope's cgroup can't enforce: systemd accepts a property and ignores it if the
/// controller is not delegated to the user.
fn not_delegated(all: &[Hierarchy], needed: &[Controller], process: u32) -> Option<Unbounded> {
    let at = membership(&process.to_string());
    let is_set = |what: Controller| {
        hierarchy::of(what, all).is_some_and(|hierarchy| {
            let file = hierarchy.dir_of(&at).map(|dir| dir.join(what.file(hierarchy.unified)));
            file.and_then(|file| fs::read_to_string(file).ok())
                .is_some_and(|bound| !bound.starts_with("max") && !bound.starts_with('-'))
        })
    };
    let what: Vec<Controller> = needed.iter().copied().filter(|what| !is_set(*what)).collect();
    let names: Vec<&str> = what.iter().map(|what| what.name()).collect();
    let why = || {
        Error::sandbox(format!(
            "systemd does not delegate these controllers to users: {}",
            names.join(", ")
        ))
        .hint(
            "ask the administrator to run `systemctl edit user@.service` and write [Service] and \
                 Delegate=cpu cpuset io memory pids",
        )
    };
    (!what.is_empty()).then(|| Unbounded { why: why(), what })
}

/// Enables a controller for the cgroups below `parent`.
fn delegate(parent: &Path, what: Controller) -> Result<()> {
    let lists = |file: &str| {
        let text = fs::read_to_string(parent.join(file)).unwrap_or_default();
        text.split_whitespace().any(|name| name == what.name())
    };
    if lists("cgroup.subtree_control") {
        return Ok(());
    }
    if !lists("cgroup.controllers") {
        return Err(Error::sandbox(format!(
            "{} has no controller {}",
            parent.display(),
            what.name()
        )));
    }
    let path = parent.join("cgroup.subtree_control");
    fs::write(&path, format!("+{}", what.name())).io("write to", &path)
}

/// Removes a cgroup once its last process has ended; gives up after two seconds.
fn remove(dir: &Path) {
    let since = Instant::now();
    while let Err(error) = fs::remove_dir(dir) {
        if error.kind() != std::io::ErrorKind::ResourceBusy || since.elapsed() > REMOVE_TIMEOUT {
            break;
        }
        std::thread::sleep(TICK);
    }
}
