//! Runs pasta, which connects a private network.
//!
//! pasta (part of passt, passt.top) copies the host's addresses into a network namespace and forwards its connections
//! without any privilege. It runs in the container's user namespace, so that it has no more rights on the host than the
//! container's root, and always without its automatic port maps, which would give a container access to the host's
//! loopback. The gateway mapping would give the same access, and is enabled only where that is allowed.

use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use log::debug;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::egress_filter::{HOST, HOST_V6};
use super::plan::Plan;
use super::port_forwarder;
use super::ports::{Forward, Transport};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::sandbox::programs::find_program;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::{drop_capabilities, pidfd_of, reset_signals, wait_for_death};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply_with};
use crate::sandbox::userns::cause::no_namespaces;
use crate::sandbox::userns::namespace;

/// Request: run pasta for a network namespace. Descriptors: the user namespace, the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct PastaRequest(PastaInitRequest);

impl Request for PastaRequest {
    const NAME: &'static str = "pasta";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        supervise_pasta(channel, &self.0, &fds.take()?)
    }
}

/// Request: be the init of pasta's PID namespace. Descriptors: the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct PastaInitRequest {
    program: String,
    dns_forward: Option<IpAddr>,
    forwards: Vec<Forward>,
    host: bool,
}

impl Request for PastaInitRequest {
    const NAME: &'static str = "pasta-init";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        run_pasta(channel, &self, &fds.take()?)
    }
}

/// How long to wait for pasta to be ready.
pub(in crate::sandbox) const READY: Duration = Duration::from_secs(20);

/// A running pasta. Dropping it kills pasta and waits for its end.
#[derive(Debug)]
pub(in crate::sandbox) struct Pasta {
    stage: Option<Stage<PastaRequest>>,
    /// A pidfd of the init of pasta's PID namespace, which ends after pasta.
    init: OwnedFd,
}

impl Pasta {
    /// Whether pasta is still running.
    pub(in crate::sandbox) fn is_alive(&mut self) -> bool {
        self.stage.as_mut().is_some_and(Stage::is_alive)
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        drop(self.stage.take());
        wait_for_death(&self.init);
    }
}

/// Starts pasta for a network namespace and waits until it forwards packets. Nothing may run there before
/// [`egress_filter`](super::egress_filter) has restricted it.
pub(in crate::sandbox) fn start_pasta(
    user_namespace: &OwnedFd,
    network_namespace: &OwnedFd,
    plan: &Plan,
    within: Duration,
) -> Result<Pasta> {
    let failed = |why: &str| Error::sandbox(format!("pasta: {why}"));
    let program = find_program("pasta").ok_or_else(|| failed("not installed"))?;
    let request = PastaInitRequest {
        program: program.to_string_lossy().into_owned(),
        dns_forward: plan.resolver.forward,
        forwards: port_forwarder::split(&plan.forwards).0,
        host: plan.host_access.host,
    };
    let fds = [user_namespace.as_fd(), network_namespace.as_fd()];
    let mut stage = Stage::start(Path::new("/"), &PastaRequest(request), &fds)?;
    let ((), fds) = stage.recv()?;
    let Ok([ready, init]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(failed("no pipe"));
    };
    let ready = std::fs::File::from(ready);
    let mut pasta = Pasta { stage: Some(stage), init };
    let timeout = rustix::event::Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
    let mut poll = [rustix::event::PollFd::new(&ready, rustix::event::PollFlags::IN)];
    let polled = rustix::event::poll(&mut poll, Some(&timeout));
    // When it is ready, pasta writes its PID, and keeps the pipe open.
    let length = match polled {
        Ok(1) => (&ready).read(&mut [0; 16]).unwrap_or(0),
        _ => 0,
    };
    if length > 0 {
        return Ok(pasta);
    }
    match (polled, &mut pasta.stage) {
        // pasta has ended: its init reports why.
        (Ok(1), Some(stage)) => stage.recv::<()>().and(Err(failed("ended unexpectedly"))),
        _ => Err(failed("not ready in time")),
    }
}

/// Runs in the stage: creates a PID namespace for pasta, and forwards the answers of its init.
///
/// pasta must not outlive svp, however svp ends. The kernel clears the parent-death signal when pasta gains
/// capabilities by executing its processor-specific variant. The end of its PID namespace kills pasta reliably.
fn supervise_pasta(channel: &Channel, request: &PastaInitRequest, network: &OwnedFd) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|errno| no_namespaces("a PID namespace for pasta", errno))?;
    let mut init = Stage::start(Path::new("/"), request, &[network.as_fd()])?;
    let ((), mut fds) = init.recv()?;
    fds.push(pidfd_of(init.pid())?);
    reply_with(channel, &(), &fds)?;
    drop(fds);
    init.finish()
}

/// Runs pasta, in the init of its PID namespace, and returns why pasta ended. First sends the read end of the pipe that
/// pasta writes to when it is ready. The pipe is created here because pasta opens it by name, so the container's root
/// must own it.
fn run_pasta(channel: &Channel, request: &PastaInitRequest, network: &OwnedFd) -> Result<()> {
    let failed = |error: std::io::Error| Error::sandbox("can't run pasta").not_started(error);
    let (read_end, ready) = std::io::pipe().map_err(failed)?;
    reply_with(channel, &(), &[read_end.into()])?;
    // pasta opens the pipe and the network namespace through this process's /proc/PID/fd, because since 2024 it first
    // closes all inherited descriptors. The kernel lets pasta open them only if this process has no more capabilities
    // than pasta, so it drops all. /proc is the host's, where the PID of this process is not 1.
    drop_capabilities()?;
    let own = std::fs::read_link("/proc/self").map_err(failed)?;
    let by_name = |fd: RawFd| format!("/proc/{}/fd/{fd}", own.display());
    let mut command = Command::new(&request.program);
    command.args(["--foreground", "--quiet", "--config-net", "--no-netns-quit"]);
    // pasta maps its gateway address to the host's loopback, so give it one that is not a real gateway.
    match request.host {
        true => command.args(["-g", &HOST.to_string(), "-g", &HOST_V6.to_string()]),
        false => command.arg("--no-map-gw"),
    };
    for (option, protocol) in [("-t", Transport::Tcp), ("-u", Transport::Udp)] {
        let mut forwards = request.forwards.iter().filter(|f| f.protocol == protocol).peekable();
        if forwards.peek().is_none() {
            command.args([option, "none"]);
        }
        for forward in forwards {
            command.args(pasta_argument(forward));
        }
    }
    command.args(["-T", "none", "-U", "none"]);
    if let Some(address) = request.dns_forward {
        command.args(["--dns-forward", &address.to_string()]);
    }
    command.arg("--pid").arg(by_name(ready.as_raw_fd()));
    command.arg("--netns-only");
    command.arg("--netns").arg(by_name(network.as_raw_fd()));
    reset_signals();
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    debug!("pasta runs as process {}", child.id());
    let message = child.stderr.take().map(last_line).unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    // Not earlier: pasta opens the pipe through this descriptor. Closing it reports pasta's end to svp.
    drop(ready);
    Err(Error::sandbox(format!("pasta ended ({status}): {message}")))
}

/// Reads to the end; returns the last line that is not blank.
fn last_line(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        let excess = kept.len().saturating_sub(buffer.len());
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}

/// Returns the options that forward a port: pasta's `-t` or `-u`.
fn pasta_argument(forward: &Forward) -> [String; 2] {
    let option = if forward.protocol == Transport::Tcp { "-t" } else { "-u" };
    let Forward { host, container, .. } = forward;
    [option.to_owned(), format!("{}/{}:{container}", host.ip(), host.port())]
}
