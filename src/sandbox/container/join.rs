//! Runs a command in a running container, for `svp exec` and similar commands.
//!
//! The command joins the namespaces of the container's init and is confined like the service. Its
//! terminal, if any, belongs to the container's devpts; svp holds the other end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::Sender;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::exec::cannot_run;
use super::stdio::give_to_user;
use super::terminal::open_terminal;
use super::user::User;
use super::{capabilities, mknod, seccomp};
use crate::channel::Channel;
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::cgroup;
use crate::sandbox::spec::End;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::{die_with_parent, pid_of, pidfd_of, reset_signals};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply, reply_with};
use crate::sandbox::userns::namespace;

/// A command to run in a running container.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct JoinSpec {
    /// The command, absolute in the container or searched for in the PATH of `env`, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// Whether the command starts in the root directory if the service has removed the working directory.
    pub cwd_or_root: bool,
    /// The user to run as, with an optional `:GROUP`: names in the container, or numbers. Root if `None`.
    pub user: Option<String>,
    /// Whether the container has resource limits, which then apply to the command too.
    pub bounded: bool,
    /// Whether to kill the rest of its process group when it ends.
    pub kill_group: bool,
}

/// The time limit for the start of a command: the service may stop svp's process in the container (SIGSTOP).
const START: Duration = Duration::from_secs(20);
/// How much later svp gives up if the stage itself is held up, by a child that was stopped before it became a stage.
const GRACE: Duration = Duration::from_secs(5);

/// The standard streams of a command.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// A terminal of the container, with this number of rows and columns.
    Terminal(u16, u16),
    /// The command's standard input, output and error: pipes of [`input_pipe`](super::stdio::input_pipe) and
    /// [`output_pipe`](super::stdio::output_pipe), or /dev/null.
    Pipes([OwnedFd; 3]),
}

/// A running command. Dropping it kills the command.
#[derive(Debug)]
pub(crate) struct Joined {
    stage: Stage<JoinRequest>,
    terminal: Option<File>,
}

/// Request: run a command in a running container. Descriptors: the user namespace, a pidfd of the container's init,
/// and, without a terminal, the command's stdio.
#[derive(Serialize, Deserialize)]
pub(in crate::sandbox) struct JoinRequest(JoinExecRequest);

impl Request for JoinRequest {
    const NAME: &'static str = "join";
    type Answer = End;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<End> {
        namespace::join(channel, fds.take()?)?;
        stage(channel, self.0, fds.take()?, fds.rest())
    }
}

/// Request: execute the command of a [`JoinRequest`]. Descriptors: a pidfd of the container's init, the stdio.
#[derive(Serialize, Deserialize)]
pub(in crate::sandbox) struct JoinExecRequest {
    spec: JoinSpec,
    terminal: Option<(u16, u16)>,
}

impl Request for JoinExecRequest {
    const NAME: &'static str = "join-exec";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        exec(channel, self, fds.take()?, fds.rest())
    }
}

/// Starts a command in the container of the given init and user namespace.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the container can't be joined,
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if the command can't be executed.
pub(crate) fn join(
    user_namespace: BorrowedFd<'_>,
    init: BorrowedFd<'_>,
    spec: &JoinSpec,
    stdio: Stdio,
) -> Result<Joined> {
    let (terminal, pipes) = match stdio {
        Stdio::Terminal(rows, columns) => (Some((rows, columns)), None),
        Stdio::Pipes(pipes) => (None, Some(pipes)),
    };
    let request = JoinRequest(JoinExecRequest { spec: spec.clone(), terminal });
    let mut fds = vec![user_namespace, init];
    fds.extend(pipes.iter().flatten().map(AsFd::as_fd));
    let mut stage = Stage::spawn(Path::new("/"), "join")?;
    if spec.bounded
        && let Some(init) = pid_of(init)
    {
        cgroup::join(init, stage.pid())?;
    }
    stage.send_request(&request, &fds)?;
    drop(pipes);
    let limited = stage.channel().set_timeout(Some(START + GRACE));
    let started = limited.map_err(no_time_limit).and_then(|()| stage.recv::<()>());
    let ((), fds) = started.map_err(|error| {
        // The stage may be waiting for a child that the service has stopped.
        interrupt::kill_with_children(stage.pid());
        let hint = "the service may stop or kill every process in its container: `svp stop` ends it all the same";
        match error.kind() {
            Kind::Sandbox => error.context("can't start a command in the container").also_hint(hint),
            _ => error,
        }
    })?;
    stage.channel().set_timeout(None).map_err(no_time_limit)?;
    let terminal = fds.into_iter().next().map(File::from);
    // On an interrupt, the stage must kill the command's processes, so it must not be killed itself.
    if let Ok(line) = stage.channel().as_fd().try_clone_to_owned() {
        interrupt::watch_socket(stage.pid(), line);
    }
    Ok(Joined { stage, terminal })
}

impl Joined {
    /// Returns svp's end of the terminal.
    pub(crate) fn terminal(&self) -> Option<&File> {
        self.terminal.as_ref()
    }

    /// Returns a handle that sends signals to the command while another thread waits for it.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if no descriptors are left.
    pub(crate) fn signaller(&self) -> Result<Signaller> {
        let channel = self.stage.channel().as_fd().try_clone_to_owned();
        channel
            .map(|fd| Signaller(Channel::from_fd(fd)))
            .map_err(|error| Error::sandbox("can't duplicate a socket").source(error))
    }

    /// Waits for the command's end.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the container ends first.
    pub(crate) fn wait(self) -> Result<End> {
        self.stage.finish()
    }
}

/// Sends signals to a command.
#[derive(Debug)]
pub(crate) struct Signaller(Channel);

impl Signaller {
    /// Sends a signal to the command's process group, as a terminal does; does nothing if the command has ended.
    pub(crate) fn signal(&self, signal: i32) {
        // The peer may be gone.
        let _ = self.0.send(&signal, &[]);
    }
}

/// Joins all namespaces but the mount namespace, and starts the command; runs in the stage.
fn stage(
    channel: &Channel,
    request: JoinExecRequest,
    init: OwnedFd,
    stdio: Vec<OwnedFd>,
) -> Result<End> {
    let stand_ins = mknod::joined_server();
    let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    // A container in the host's network shares this process's network namespace, which this user may not join.
    if !shares_network(&init) {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    setns(&init, flags).map_err(cannot_join)?;
    match setns(&init, CloneFlags::CLONE_NEWCGROUP) {
        // EINVAL: the kernel has no cgroup namespaces.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(cannot_join(errno)),
    }
    if let Some(number) = pid_of(&init).and_then(parent_of) {
        copy_limits_of(number);
    }
    let mut fds = vec![init.as_fd()];
    fds.extend(stdio.iter().map(AsFd::as_fd));
    // The command's stage needs the host's libraries, so it starts before it joins the container's mount namespace.
    let JoinSpec { bounded, kill_group, .. } = request.spec;
    let started = Stage::start(Path::new("/"), &request, &fds);
    let mut command = if bounded {
        started
            .hint("the service may have reached its limit of processes: see --pids in `svp info`")?
    } else {
        started?
    };
    drop(stdio);
    let terminal = wait_for_start(&mut command, init, stand_ins)?;
    reply_with(channel, &(), &terminal)?;
    drop(terminal);
    supervise(channel, command, kill_group)
}

/// Waits until the command has started; returns svp's end of its terminal, if any.
fn wait_for_start(
    command: &mut Stage<JoinExecRequest>,
    init: OwnedFd,
    stand_ins: Option<Sender<mknod::Joined>>,
) -> Result<Vec<OwnedFd>> {
    command.channel().set_timeout(Some(START)).map_err(no_time_limit)?;
    let ((), terminal) = command.recv()?;
    let ((), listener) = command.recv()?;
    if let (Some(listener), Some(stand_ins)) = (listener.into_iter().next(), stand_ins) {
        // Fails only if the thread has panicked.
        let _ = stand_ins.send((listener, init));
    }
    command.wait_for_exec()?;
    Ok(terminal)
}

/// The signals that ask a command to end.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Forwards svp's signals to the command until it has ended; kills it if svp has ended.
///
/// Signals the process group: a script's children must not outlive it. Only this process, as the command's
/// parent, knows that the PID has not been reused.
fn supervise(channel: &Channel, command: Stage<JoinExecRequest>, kill_group: bool) -> Result<End> {
    let handle = pidfd_of(command.pid())?;
    // Clear the parent-death signal, because a killed process could not kill the command: the channel reports svp's
    // end.
    let _ = rustix::process::set_parent_process_death_signal(None);
    let group = Pid::from_raw(command.pid() as i32);
    loop {
        let mut fds = [PollFd::new(&handle, PollFlags::IN), PollFd::new(channel, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Error::sandbox("poll").source(io::Error::from(error))),
            Ok(_) if !fds[0].revents().is_empty() => {
                if kill_group {
                    // Before it is reaped, so that no other group has this number. ESRCH: it had no children.
                    let _ = killpg(group, Signal::SIGKILL);
                }
                return command.end();
            }
            Ok(_) => {}
        }
        let Ok(Some((signal, _))) = channel.recv::<i32>() else {
            // ESRCH: the process is gone already.
            let _ = killpg(group, Signal::SIGKILL);
            return Err(Error::sandbox("svp has ended"));
        };
        if let Ok(signal) = Signal::try_from(signal) {
            // ESRCH: the process is gone already.
            let _ = killpg(group, signal);
            if ENDING.contains(&signal) {
                // Otherwise a command that the service has stopped would not get it, and svp would wait for ever.
                let _ = killpg(group, Signal::SIGCONT);
            }
        }
    }
}

/// Returns the stage that started the container's init. It is outside the container's PID namespace: unlike those of
/// init, the service can't change its limits (prlimit(2)).
fn parent_of(init: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent > 1)
}

/// Replaces this process's resource limits and OOM score with those of the container.
fn copy_limits_of(stage: u32) {
    crate::sys::copy_limits_of(stage);
    if let Ok(score) = std::fs::read(format!("/proc/{stage}/oom_score_adj")) {
        // Raising the score needs no privilege, lowering it does.
        let _ = std::fs::write("/proc/self/oom_score_adj", score);
    }
}

fn shares_network(init: &OwnedFd) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let theirs = pid_of(init).and_then(|number| network(&number.to_string()));
    theirs.is_some() && theirs == network("self")
}

fn no_time_limit(error: io::Error) -> Error {
    Error::sandbox("can't limit the time of a stage").source(error)
}

fn cannot_join(errno: nix::errno::Errno) -> Error {
    Error::sandbox("can't join the container")
        .source(errno)
        .hint("check with `svp ps` that the service is running")
}

/// Joins the container's file system and executes the command.
fn exec(
    channel: &Channel,
    request: JoinExecRequest,
    init: OwnedFd,
    stdio: Vec<OwnedFd>,
) -> Result<()> {
    setns(&init, CloneFlags::CLONE_NEWNS).map_err(cannot_join)?;
    drop(init);
    let [stdin, stdout, stderr] = match request.terminal {
        Some(size) => {
            let (ours, theirs) = open_terminal(size).map_err(|error| {
                Error::sandbox("can't open a terminal in the container").source(error)
            })?;
            reply_with(channel, &(), &[ours])?;
            theirs
        }
        None => {
            reply(channel, &())?;
            stdio.try_into().map_err(|_| Error::sandbox("the command has no stdio"))?
        }
    };
    let JoinSpec { argv, mut env, mut cwd, cwd_or_root, user, .. } = request.spec;
    seccomp::install()?;
    reply_with(channel, &(), &Vec::from_iter(mknod::install()))?;
    capabilities::drop_capabilities()?;
    if let Some(user) = &user {
        // The container's files are untrusted: parse them with the container's rights.
        let user = User::find(user)?;
        if request.terminal.is_some() {
            // Best effort: the command can use the terminal even if its user does not own it.
            let _ = rustix::fs::fchown(&stdin, Some(rustix::fs::Uid::from_raw(user.uid)), None);
        }
        for stream in [&stdin, &stdout, &stderr] {
            give_to_user(stream, user.uid);
        }
        user.set_home(&mut env);
        user.switch_user()?;
    }
    if cwd_or_root && std::env::set_current_dir(&cwd).is_err() {
        "/".clone_into(&mut cwd);
    }
    die_with_parent();
    reset_signals();
    let mut command = Command::new(find(&argv[0], &env));
    command.args(&argv[1..]).env_clear().envs(env).current_dir(&cwd);
    let error = command.stdin(stdin).stdout(stdout).stderr(stderr).exec();
    Err(cannot_run(&argv[0], &cwd, error))
}

/// Searches for a command in the PATH of its environment; returns `name` if it is not found.
fn find(name: &str, env: &[(String, String)]) -> String {
    if name.contains('/') {
        return name.to_owned();
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path);
    let found = path.split(':').map(|dir| format!("{dir}/{name}")).find(|path| {
        rustix::fs::access(path.as_str(), rustix::fs::Access::EXEC_OK).is_ok()
            && Path::new(path).is_file()
    });
    found.unwrap_or_else(|| name.to_owned())
}
