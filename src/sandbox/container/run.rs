//! Runs a command in a container: the stage that creates its namespaces, and svp's side, which reads its output.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::bounds;
use super::create;
use super::init::InitRequest;
use super::stdio::{output_pipe, set_nonblocking};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::progress::Reporter;
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::create::Sandbox;
use crate::sandbox::network::attach::{AttachError, attach};
use crate::sandbox::network::availability::{after_failure, available};
use crate::sandbox::network::plan::Plan;
use crate::sandbox::spec::{End, HostAccess, Limits, Network, RunEnd, RunSpec, Stream};
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::{pidfd_of, timespec, wait_for_death};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply, reply_with};
use crate::sandbox::userns::namespace;

/// Request: run a command in a container: create the namespaces and the overlay, start init, and return how the command
/// ended. Descriptors: the user namespace, stdout, stderr, and for host tools the pack's tar.
// No Debug: the environment contains secrets.
#[derive(Serialize, Deserialize)]
pub(in crate::sandbox) struct RunRequest(InitRequest);

impl Request for RunRequest {
    const NAME: &'static str = "run";
    type Answer = RunEnd;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<RunEnd> {
        namespace::join(channel, fds.take()?)?;
        create::create(channel, &self.0.container)?;
        let (stdout, stderr, pack) = (fds.take()?, fds.take()?, fds.take_optional());
        let mut lent = vec![stdout.as_fd(), stderr.as_fd()];
        lent.extend(pack.as_ref().map(AsFd::as_fd));
        let init = Stage::start(Path::new("."), &self.0, &lent)?;
        reply_with(channel, &(), &[pidfd_of(init.pid())?])?;
        // Otherwise the pipes would stay open until this stage ends.
        drop((stdout, stderr, pack));
        let end = init.finish()?;
        reply(channel, &end)?;
        // svp reads the counters of the cgroup, which systemd removes with its last process, and then kills this stage.
        let _ = channel.recv::<()>();
        Ok(end)
    }
}

/// How much later than its time limit a command is killed while svp can't read its output.
const GRACE: Duration = Duration::from_secs(1);

/// Receives a command's output, piece by piece as it arrives.
pub(crate) type Output<'a> = dyn FnMut(Stream, &[u8]) + 'a;

impl Sandbox {
    /// Runs a command in a container and waits for its end. On return, all its processes have ended.
    ///
    /// `pack` is the tar of a pack for [`Rootfs::HostTools`]. Passes output to `output` as it arrives.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the container can't be created,
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the command can't be executed,
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted) on Ctrl-C. A command that fails is not an error.
    pub(crate) fn run(
        &self,
        spec: &RunSpec,
        pack: Option<&OwnedFd>,
        limits: Limits,
        reporter: &dyn Reporter,
        output: &mut Output<'_>,
    ) -> Result<RunEnd> {
        let network = available(spec.network, reporter)?;
        match self.run_in(spec, network, pack, limits, output) {
            Err(AttachError::NoPasta(error)) => {
                let network = after_failure(&error, reporter)?;
                self.run_in(spec, network, pack, limits, output).map_err(AttachError::into_error)
            }
            other => other.map_err(AttachError::into_error),
        }
    }

    fn run_in(
        &self,
        spec: &RunSpec,
        network: Network,
        pack: Option<&OwnedFd>,
        limits: Limits,
        output: &mut Output<'_>,
    ) -> Result<RunEnd, AttachError> {
        let host_access = HostAccess::BUILD;
        let (mut container, resolver) =
            self.container(spec.rootfs.clone(), Vec::new(), &spec.hostname, network, host_access);
        let ((stdout, stdout_end), (stderr, stderr_end)) = (output_pipe()?, output_pipe()?);
        set_nonblocking(&stdout);
        set_nonblocking(&stderr);
        let mut fds = vec![self.namespace(), stdout_end.as_fd(), stderr_end.as_fd()];
        fds.extend(pack.map(AsFd::as_fd));
        // Declared before the stage, so that it is removed after it.
        let cgroup;
        let mut stage = Stage::spawn(self.layer_store(), RunRequest::NAME)?;
        // Before the stage starts anything, so that all processes are created in the cgroup.
        cgroup = bounds::set(&limits, stage.pid(), &mut container)?;
        let RunSpec { argv, env, cwd, no_new_privs, .. } = spec.clone();
        let copy = container.clone();
        let request = RunRequest(InitRequest { container: copy, argv, env, cwd, no_new_privs });
        stage.send_request(&request, &fds)?;
        drop((stdout_end, stderr_end));
        let plan = Plan { resolver, forwards: Vec::new(), host_access };
        let _network = match container.attaches() {
            true => Some(attach(self.namespace_fd(), &mut stage, &plan)?),
            false => None,
        };
        Ok(listen(stage, &cgroup, [stdout, stderr], limits, output)?)
    }
}

/// Passes on the command's output until the command has ended and all is read, or a limit is exceeded.
fn listen(
    mut stage: Stage<RunRequest>,
    cgroup: &Cgroup,
    [stdout, stderr]: [OwnedFd; 2],
    limits: Limits,
    output: &mut Output<'_>,
) -> Result<RunEnd> {
    let ((), fds) = stage.recv()?;
    let init = fds.into_iter().next().ok_or_else(|| Error::sandbox("no init"))?;
    let mut pipes: Pipes = [
        (Stream::Stdout, Some(std::fs::File::from(stdout))),
        (Stream::Stderr, Some(stderr.into())),
    ];
    if let Some(time) = limits.time {
        kill_after(pidfd_of(stage.pid())?, time + GRACE)?;
    }
    let end = pump(&mut stage, &mut pipes, limits, output);
    let end = bounds::with_counters(end, cgroup);
    // Killing the stage also kills init and all processes below it, a moment later.
    drop(stage);
    wait_for_death(&init);
    end
}

/// Kills a stage after a time, from a thread of its own: the command must end in time even while the reader of its
/// output blocks svp.
fn kill_after(stage: OwnedFd, time: Duration) -> Result<()> {
    let wait = move || {
        let deadline = Instant::now() + time;
        let mut fds = [PollFd::new(&stage, PollFlags::IN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut fds, Some(&timespec(left))) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => {
                    // ESRCH: it has ended.
                    let _ = pidfd_send_signal(&stage, Signal::KILL);
                    return;
                }
                _ => return,
            }
        }
    };
    let started = std::thread::Builder::new().spawn(wait);
    started.map(drop).map_err(|error| Error::sandbox("can't start a timer").not_started(error))
}

type Pipes = [(Stream, Option<std::fs::File>); 2];

fn pump(
    stage: &mut Stage<RunRequest>,
    pipes: &mut Pipes,
    limits: Limits,
    output: &mut Output<'_>,
) -> Result<RunEnd> {
    let started = Instant::now();
    let mut printed = 0u64;
    let mut end = None;
    while end.is_none() || pipes.iter().any(|(_, pipe)| pipe.is_some()) {
        let left = limits.time.map(|time| time.saturating_sub(started.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(End::TimedOut.into());
        }
        let ready = wait(end.is_none().then_some(&*stage), pipes, left)?;
        read_ready(pipes, &ready, &mut |stream, bytes| {
            printed += bytes.len() as u64;
            if limits.output.is_none_or(|most| printed <= most) {
                output(stream, bytes);
            }
        });
        if limits.output.is_some_and(|most| printed > most) {
            return Ok(End::TooMuchOutput.into());
        }
        // Only after all output is read: a failing stage closes the pipes before it reports its error.
        if ready[0] && end.is_none() {
            end = Some(stage.recv::<RunEnd>()?.0);
        }
    }
    // The stage ends after it has reaped init, and so after all processes in the container.
    end.ok_or_else(|| Error::sandbox("the container ended without a report"))
}

/// Passes on the output on the pipes that are ready; closes those at their end.
fn read_ready(pipes: &mut Pipes, ready: &[bool; 3], output: &mut Output<'_>) {
    let mut buffer = [0; 65536];
    for ((stream, pipe), ready) in pipes.iter_mut().zip(&ready[1..]) {
        let (true, Some(file)) = (ready, pipe.as_mut()) else { continue };
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => output(*stream, &buffer[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => *pipe = None,
        }
    }
}

/// Waits for the channel, stdout or stderr; returns which of them are readable.
fn wait(
    stage: Option<&Stage<RunRequest>>,
    pipes: &Pipes,
    left: Option<Duration>,
) -> Result<[bool; 3]> {
    let mut sources = Vec::new();
    if let Some(stage) = stage {
        sources.push((0, stage.channel().as_fd()));
    }
    for (n, (_, pipe)) in pipes.iter().enumerate() {
        sources.extend(pipe.as_ref().map(|pipe| (n + 1, pipe.as_fd())));
    }
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = left.map(timespec);
    let mut ready = [false; 3];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(ready),
        Err(error) => {
            return Err(Error::sandbox("can't poll the container's output")
                .source(std::io::Error::from(error)));
        }
    }
    for ((n, _), fd) in sources.iter().zip(&fds) {
        ready[*n] = !fd.revents().is_empty();
    }
    Ok(ready)
}
