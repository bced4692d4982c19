//! The stages: what each fresh start of svp is asked to do, and how it enters its namespaces.
//!
//! This and its neighbours (`init`, `overlay`, `trees`, `network`) are the only callers of unshare, setns,
//! mount and pivot_root.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};
use serde::{Deserialize, Serialize};

use super::launch::STAGE_NAME;
use super::{
    carry, directory, init, join, keeper, network, room, run, saved, service, shield, trees,
    unpacked, verify, volume,
};
use crate::channel::Channel;
use crate::error::{Error, Result, WireError};

/// What a stage is asked to do. The descriptors that go with each are named in its comment, in order.
// No Debug: there are secrets in environments.
#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    /// Make a user namespace and hand it back. No descriptors.
    UserNamespace,
    /// Unpack a layer. The user namespace, the blob.
    Unpack(trees::UnpackRequest),
    /// Diff an upper directory against the layers below it. The user namespace, the file for the blob.
    Diff(trees::DiffRequest),
    /// Apply a layer onto the directory that the stage is started in. The blob.
    Directory(directory::DirectoryRequest),
    /// Remove everything in the directory that the stage is started in. No descriptors.
    Clear,
    /// Remove trees. The user namespace, if they belong to one.
    Remove(Vec<String>),
    /// Tell the space that trees take. The user namespace, if they belong to one.
    Measure(Vec<String>),
    /// Tell how the second of two trees differs from the first. The user namespace.
    Compare([String; 2]),
    /// Run a command. The user namespace, its stdout, its stderr, and a pack's tar for host tools.
    Run(run::RunRequest),
    /// Be a container's process 1. Stdout, stderr, a pack's tar for host tools.
    Init(run::RunRequest),
    /// Become the command. Stdout, stderr.
    Exec(init::ExecRequest),
    /// Run a service's container. The user namespace; for each keeper its socket, stdout, stderr.
    Service(service::ServiceRequest),
    /// Be process 1 of a service's container. For each keeper its socket, stdout, stderr.
    ServiceInit(service::ServiceRequest),
    /// Keep a component. Its socket, stdout, stderr.
    Keep,
    /// Run a command in a container that runs. The user namespace, process 1; its stdio unless it gets a
    /// terminal.
    Join(join::JoinRequest),
    /// Become that command. Process 1; stdio.
    JoinExec(join::JoinRequest),
    /// Fill a volume from an image. The user namespace.
    Fill(volume::FillRequest),
    /// Look for files in an image. The user namespace.
    Look(saved::LookRequest),
    /// Write what a service has written, and its volumes, as a tar. The user namespace, the tar.
    Save(saved::SavedRequest),
    /// Fill a service's place and its volumes from such a tar. The user namespace, the tar.
    Unsave(saved::SavedRequest),
    /// Keep pasta for a network namespace. The user namespace, the network namespace.
    Pasta(network::PastaRequest),
    /// Be process 1 of pasta's process namespace. The network namespace.
    PastaInit(network::PastaRequest),
    /// Keep a network from what is none of its business. The user namespace, the network namespace.
    Shield(shield::ShieldRequest),
    /// Carry ports into a network. The user namespace, the network namespace, the ports' sockets.
    Carry(carry::CarryRequest),
}

/// Does a stage's work if this process was started as one; `main` calls it before anything else.
pub fn run_if_stage() -> Option<ExitCode> {
    if std::env::args_os().next()? != STAGE_NAME {
        return None;
    }
    Some(match stage() {
        Ok(()) => ExitCode::SUCCESS,
        Err(()) => ExitCode::FAILURE,
    })
}

fn stage() -> Result<(), ()> {
    close_inherited();
    die_with_parent();
    room::lower_limit();
    // A session of its own: no terminal for what runs here, and Ctrl-C is svp's to handle.
    let _ = nix::unistd::setsid();
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let channel = Channel::from_stdin().map_err(drop)?;
    let (request, fds) = channel.recv::<Request>().map_err(drop)?.ok_or(())?;
    still_wanted(&channel).map_err(drop)?;
    dispatch(&channel, request, fds).map_err(|error| {
        let _ = reply_error(&channel, error);
    })
}

fn dispatch(channel: &Channel, request: Request, fds: Vec<OwnedFd>) -> Result<()> {
    let mut fds = fds.into_iter();
    let mut fd =
        || fds.next().ok_or_else(|| Error::sandbox("a stage was started without a descriptor"));
    match request {
        Request::UserNamespace => make_user_namespace(channel),
        Request::Init(request) => init::init(channel, &request, fd()?, fd()?, fds.next()),
        Request::Exec(request) => init::exec(channel, request, fd()?, fd()?),
        Request::Unpack(request) => {
            enter(channel, fd()?)?;
            reply(channel, &trees::unpack(&request, fd()?)?)
        }
        Request::Diff(request) => {
            enter(channel, fd()?)?;
            reply(channel, &trees::diff(&request, fd()?)?)
        }
        Request::Directory(request) => reply(channel, &directory::apply(&request, fd()?)?),
        Request::Clear => reply(channel, &directory::clear_stage()?),
        Request::Remove(paths) => {
            fds.next().map_or(Ok(()), |namespace| enter(channel, namespace))?;
            reply(channel, &trees::remove(&paths)?)
        }
        Request::Measure(paths) => {
            fds.next().map_or(Ok(()), |namespace| enter(channel, namespace))?;
            reply(channel, &unpacked::measure(&paths)?)
        }
        Request::Compare(paths) => {
            enter(channel, fd()?)?;
            reply(channel, &verify::compare(&paths)?)
        }
        Request::Run(request) => {
            enter(channel, fd()?)?;
            run::stage(channel, &request, fd()?, fd()?, fds.next())
        }
        Request::Service(request) => {
            enter(channel, fd()?)?;
            service::stage(channel, &request, fds.collect())
        }
        Request::ServiceInit(request) => service::init(channel, &request, fds.collect()),
        Request::Keep => keeper::keep(channel, &service::keeper_ends(fd)?),
        Request::Join(request) => {
            enter(channel, fd()?)?;
            join::stage(channel, request, fd()?, fds.collect())
        }
        Request::JoinExec(request) => join::exec(channel, request, fd()?, fds.collect()),
        Request::Fill(request) => {
            enter(channel, fd()?)?;
            reply(channel, &volume::fill(&request)?)
        }
        Request::Look(request) => {
            enter(channel, fd()?)?;
            reply(channel, &saved::look(&request)?)
        }
        Request::Save(request) => {
            enter(channel, fd()?)?;
            reply(channel, &saved::pack(&request, fd()?)?)
        }
        Request::Unsave(request) => {
            enter(channel, fd()?)?;
            reply(channel, &saved::unpack(&request, fd()?)?)
        }
        Request::Pasta(request) => {
            enter(channel, fd()?)?;
            network::keep_pasta(channel, &request, &fd()?)
        }
        Request::PastaInit(request) => network::run_pasta(channel, &request, &fd()?),
        Request::Shield(request) => {
            enter(channel, fd()?)?;
            reply(channel, &shield::raise(&request, fd()?)?)
        }
        Request::Carry(request) => {
            enter(channel, fd()?)?;
            carry::carry(channel, &request, fd()?, fds.collect())
        }
    }
}

/// Sends a stage's answer.
pub(super) fn reply<T: Serialize>(channel: &Channel, value: &T) -> Result<()> {
    reply_with(channel, value, &[])
}

/// Sends a stage's answer with descriptors.
pub(super) fn reply_with<T: Serialize>(
    channel: &Channel,
    value: &T,
    fds: &[OwnedFd],
) -> Result<()> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    channel
        .send(&Ok::<_, WireError>(value), &fds)
        .map_err(|error| Error::sandbox("svp is gone").source(error))
}

fn reply_error(channel: &Channel, error: Error) -> std::io::Result<()> {
    channel.send(&Err::<(), _>(WireError::from(error)), &[])
}

/// Closes all but the three standard descriptors: whatever else svp's own caller left open is no business of
/// a process that lives on its own. Call before anything is opened.
pub(crate) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        let _ = nix::unistd::close(number);
    }
}

/// Nothing outlives svp, however it ends. The kernel forgets this when credentials change.
pub(super) fn die_with_parent() {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Fails if the parent died before [`die_with_parent`] was called, which comes to that too late then.
fn still_wanted(channel: &Channel) -> Result<()> {
    if channel.is_hung_up() { Err(Error::sandbox("svp is gone")) } else { Ok(()) }
}

fn make_user_namespace(channel: &Channel) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(no_user_namespace)?;
    let namespace = std::fs::File::open("/proc/self/ns/user")
        .map_err(|error| Error::io("open", "/proc/self/ns/user", error))?;
    reply_with(channel, &(), &[namespace.into()])?;
    // The parent writes the map, and only then lets this process end.
    let _ = channel.recv::<()>();
    Ok(())
}

pub(super) fn no_user_namespace(errno: nix::errno::Errno) -> Error {
    let error = Error::sandbox("this host lets you make no user namespace").source(errno);
    let sysctl = |path: &str, off: &str| {
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == off)
    };
    error.hint(if sysctl("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "ask the administrator for `sysctl kernel.unprivileged_userns_clone=1`"
    } else if sysctl("/proc/sys/user/max_user_namespaces", "0") {
        "ask the administrator for `sysctl user.max_user_namespaces=10000`"
    } else if sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids it: ask the administrator for an AppArmor profile that allows svp `userns`, \
         or for `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "in a container, its runtime must allow it (docker: --security-opt seccomp=unconfined; \
         podman and Kubernetes: see docs/ci.md); on a host, see `svp check`"
    })
}

/// Becomes root of the user namespace.
fn enter(channel: &Channel, namespace: OwnedFd) -> Result<()> {
    let failed = |errno: nix::errno::Errno| {
        Error::sandbox("can't enter the user namespace that svp made").source(errno)
    };
    setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(failed)?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    // A map of a single id has given setgroups up; there the caller's groups stay, and mean nothing.
    let _ = setgroups(&[]);
    setresgid(root.1, root.1, root.1).map_err(failed)?;
    setresuid(root.0, root.0, root.0).map_err(failed)?;
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    die_with_parent();
    still_wanted(channel)
}
