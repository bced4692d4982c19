//! Finds why this host refuses a namespace or an id map, and the command that mends it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::error::{Cause, Error, Result};
use crate::mountinfo;
use crate::sandbox::programs::as_root;
use crate::shell_words::quote_path;

/// How to do without no_new_privs.
pub(in crate::sandbox) const WITHOUT_NO_NEW_PRIVS: &str = "start svp without no_new_privs, which can't be unset: in a \
    systemd unit NoNewPrivileges=no, for a container docker's --security-opt no-new-privileges=false, in a shell without \
    setpriv's --no-new-privs";

/// The namespaces of a container besides the user namespace, as `user.max_NAME_namespaces` names them.
const OTHERS: [&str; 6] = ["mnt", "pid", "ipc", "uts", "net", "cgroup"];

/// Fails if /proc is not mounted, or numbers processes as another PID namespace does: svp starts its stages and writes id
/// maps through it, and a PID would be that of an unrelated process.
pub(in crate::sandbox) fn check_proc() -> Result<()> {
    let missing = || Error::sandbox("/proc is not mounted, or is of another PID namespace");
    if Path::new("/proc/self/exe").symlink_metadata().is_err() {
        return Err(missing().hint(as_root("mount -t proc proc /proc")));
    }
    let pid = fs::read_link("/proc/self").ok();
    if pid.is_some_and(|pid| pid.as_os_str() == &*std::process::id().to_string()) {
        return Ok(());
    }
    // In a mount namespace that others use, the command would hide their /proc.
    Err(missing().hint(
        "enter a PID namespace together with a mount namespace that has its /proc: `unshare --mount-proc` creates both",
    ))
}

/// Returns the error for a refused user namespace.
pub(in crate::sandbox) fn no_user_namespace(errno: Errno) -> Error {
    let refused = |why: &str| Error::sandbox(format!("can't create a user namespace: {why}"));
    match errno {
        Errno::ENOSPC | Errno::EUSERS => return none_left(&refused),
        Errno::EINVAL if !Path::new("/proc/self/ns/user").exists() => {
            return refused("this kernel has none")
                .hint("use a kernel that was compiled with CONFIG_USER_NS");
        }
        _ => {}
    }
    match forbidden() {
        Some((why, remedy)) => refused(why).hint(remedy),
        None => Error::sandbox("can't create a user namespace").source(errno).hint(
            "in a container, its engine must allow it: see docs/ci.md; in a chroot the kernel never does; on a host, a \
             security module may forbid it: see `dmesg`",
        ),
    }
}

/// Returns the error for a kernel that creates no further user namespace.
fn none_left(refused: &dyn Fn(&str) -> Error) -> Error {
    match setting("user/max_user_namespaces") {
        Some(0) => refused("user.max_user_namespaces is 0")
            .hint(as_root("sysctl -w user.max_user_namespaces=10000")),
        Some(most) => refused(&format!(
            "none is left: all {most} that user.max_user_namespaces allows are in use, or svp runs in namespaces that \
             are nested 32 deep"
        ))
        .hint(format!(
            "end the programs that have them, which `lsns -t user` shows, or, {}",
            as_root(&format!("sysctl -w user.max_user_namespaces={}", most.saturating_mul(2)))
        )),
        None => refused("none is left").source(Errno::ENOSPC),
    }
}

/// Returns the error for refused namespaces other than the user namespace: `what`.
pub(in crate::sandbox) fn no_namespaces(what: &str, errno: Errno) -> Error {
    let error = Error::sandbox(format!("can't create {what}"));
    match (errno, forbidden()) {
        (Errno::ENOSPC, _) => error.cause(Cause::NoNamespaceLeft),
        (Errno::EPERM | Errno::EACCES, Some((why, remedy))) => {
            Error::sandbox(format!("{}: {why}", error.message())).hint(remedy)
        }
        _ => error.source(errno).hint("see `svp check`"),
    }
}

/// Names the limit on namespaces that a container or a stage has reached. Call it outside of the user namespace, which
/// has limits of its own.
pub(in crate::sandbox) fn name_limit(error: Error) -> Error {
    if !error.is(Cause::NoNamespaceLeft) || error.hint_text().is_some() {
        return error;
    }
    let name = |kind: &str| format!("user.max_{kind}_namespaces");
    let limits = OTHERS
        .iter()
        .filter_map(|kind| Some((setting(&format!("user/max_{kind}_namespaces"))?, name(kind))));
    let refused = |why: &str| Error::sandbox(format!("{}: {why}", error.message()));
    match limits.min() {
        Some((most, name)) => {
            let more = if most == 0 { 10_000 } else { most.saturating_mul(2) };
            refused(&format!("{name} allows {most}"))
                .hint(as_root(&format!("sysctl -w {name}={more}")))
        }
        None => refused("none is left").source(Errno::ENOSPC),
    }
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}

/// Returns which rule of this host forbids namespaces, and the remedy.
fn forbidden() -> Option<(&'static str, String)> {
    // busybox's sysctl needs -w.
    if setting("kernel/unprivileged_userns_clone") == Some(0) && !is_root() {
        let remedy = as_root("sysctl -w kernel.unprivileged_userns_clone=1");
        return Some(("kernel.unprivileged_userns_clone is 0", remedy));
    }
    if setting("user/max_user_namespaces") == Some(0) {
        let remedy = as_root("sysctl -w user.max_user_namespaces=10000");
        return Some(("user.max_user_namespaces is 0", remedy));
    }
    if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) && !is_root() {
        let remedy = format!(
            "install an AppArmor profile that allows svp `userns`, or, {}",
            as_root("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
        );
        return Some(("AppArmor restricts the namespaces of ordinary users", remedy));
    }
    if is_chrooted() {
        let remedy = "run svp outside of it, or enter the directory with pivot_root, as bwrap and systemd-nspawn do";
        return Some(("svp runs in a chroot", remedy.to_owned()));
    }
    if status("Seccomp").as_deref() == Some("2") {
        let remedy = "have the container's engine allow it: docker and podman with --security-opt seccomp=unconfined, \
                      Kubernetes with seccompProfile Unconfined (see docs/ci.md)";
        return Some(("a seccomp filter around svp forbids it", remedy.to_owned()));
    }
    None
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a field of this process's status.
fn status(name: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
}

/// Whether the root of this process is not that of a mount namespace: no mount is at `/`.
fn is_chrooted() -> bool {
    mountinfo::read().is_ok_and(|mounts| !mounts.iter().any(|mount| mount.at == Path::new("/")))
}

/// Returns the error for an id map that the kernel refuses to take from svp itself.
pub(super) fn map_refused(path: &str, error: std::io::Error) -> Error {
    let refused = Error::sandbox(format!("can't write the id map {path}"));
    match forbidden() {
        Some((why, remedy)) => Error::sandbox(format!("{}: {why}", refused.message())).hint(remedy),
        None if is_root() => refused.source(error).hint(
            "root needs the capabilities CAP_SETUID and CAP_SETGID here: give them to the container, as docker's \
             --cap-add does, or run svp as an ordinary user",
        ),
        None => refused.source(error).hint("see `svp check`"),
    }
}

/// Returns the error of `newuidmap` or `newgidmap`, which could not write the map.
pub(super) fn helper_refused(name: &str, path: &Path, said: &str, file: &str) -> Error {
    let refused = |why: String| Error::sandbox(format!("can't map the ids of a container: {why}"));
    let program = path.display();
    // Fails only on kernels that svp does not support.
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return refused(format!("no_new_privs is set for svp, so {program} gets no privilege"))
            .hint(WITHOUT_NO_NEW_PRIVS);
    }
    if !is_privileged(path) {
        return refused(format!("{program} is neither setuid root nor has file capabilities"))
            .hint(as_root(&format!("chmod u+s {}", quote_path(&path.to_string_lossy()))));
    }
    if statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOSUID)) {
        return refused(format!("{program} is on a file system that is mounted with nosuid"))
            .hint("mount it without nosuid, or put a copy elsewhere, earlier in PATH");
    }
    if let Some((why, remedy)) = forbidden() {
        return refused(why.to_owned()).hint(remedy);
    }
    Error::sandbox(format!("{name} refused: {said}")).hint(format!(
        "check that the line for you in {file} has a range of its own; `svp check` prints the ids that svp uses"
    ))
}

/// Whether a program gets privileges when it is executed.
fn is_privileged(path: &Path) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let setuid = found.permissions().mode() & 0o4000 != 0 && found.uid() == 0;
    setuid || rustix::fs::getxattr(path, c"security.capability", &mut [0; 64]).is_ok()
}
