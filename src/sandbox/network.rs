//! A container's network: pasta for a private one, and the files that make names resolve in it.
//!
//! pasta (of passt.top) copies the host's addresses into a network namespace and carries its connections
//! without any privilege. It runs in the container's user namespace, so that it is as little on the host
//! as the container's root is, and always without its automatic port maps, by which a container would reach the
//! host's loopback. So would it by the gateway mapping, which is there only where that is allowed.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::carry;
use super::privileges::give_capabilities_up;
use super::shield::{self, HOST, HOST_V6};
use super::spec::{Allowed, Network};
use super::stage::launch::Stage;
use super::stage::process::{pidfd_of, reset_signals, wait_for_death};
use super::stage::protocol::{Descriptors, Request, reply_with};
use super::userns::idmap::helper;
use super::userns::namespace;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::progress::Reporter;

/// Keeps pasta for a network namespace. The user namespace, the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PastaRequest(PastaInitRequest);

impl Request for PastaRequest {
    const NAME: &'static str = "pasta";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        keep_pasta(channel, &self.0, &fds.take()?)
    }
}

/// The init of pasta's process namespace. The network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PastaInitRequest {
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

/// What a private network leads to.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) resolver: Resolver,
    /// The host's ports that lead into it.
    pub(super) forwards: Vec<Forward>,
    /// What of the host leads out of it.
    pub(super) allowed: Allowed,
}

/// A port of the host that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The port in the container.
    pub container: u16,
    /// Over what.
    pub protocol: Transport,
}

/// What carries packets to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Forward {
    /// As pasta's `-t` and `-u` take it.
    fn argument(&self) -> [String; 2] {
        let option = if self.protocol == Transport::Tcp { "-t" } else { "-u" };
        let Forward { host, container, .. } = self;
        [option.to_owned(), format!("{}/{}:{container}", host.ip(), host.port())]
    }
}

/// The name server that a container asks where the host's is one that only the host reaches; pasta
/// forwards it.
const FORWARDED_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// How long pasta may take to be ready.
pub(super) const READY: Duration = Duration::from_secs(20);

/// A network's resolver: the content of /etc/resolv.conf, and the address that pasta must forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    pub(super) file: String,
    forward: Option<IpAddr>,
}

impl Resolver {
    /// The host's own, for a container in the host's network.
    pub(super) fn of_host() -> Resolver {
        Resolver { file: read_bounded("/etc/resolv.conf"), forward: None }
    }

    /// None at all, for a container without a network.
    pub(super) fn none() -> Resolver {
        Resolver { file: String::new(), forward: None }
    }

    /// One that works in a private network.
    pub(super) fn private(allowed: Allowed) -> Resolver {
        let out_of_reach = if allowed.gateway { Vec::new() } else { shield::gateways() };
        Resolver::private_from(&read_bounded("/etc/resolv.conf"), &out_of_reach)
    }

    fn private_from(host: &str, out_of_reach: &[IpAddr]) -> Resolver {
        let servers: Vec<IpAddr> = host.lines().filter_map(name_server).collect();
        let local = |ip: &IpAddr| {
            let special = match ip {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
                IpAddr::V6(v6) => {
                    v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()
                }
            };
            special || out_of_reach.contains(ip)
        };
        if !servers.is_empty() && servers.iter().any(|ip| !local(ip)) {
            let kept = host.lines().filter(|line| name_server(line).is_none_or(|ip| !local(&ip)));
            let file = kept.map(|line| format!("{line}\n")).collect();
            return Resolver { file, forward: None };
        }
        let others = host.lines().filter(|line| !line.trim_start().starts_with("nameserver"));
        let mut file: String = others.map(|line| format!("{line}\n")).collect();
        file.push_str(&format!("nameserver {FORWARDED_DNS}\n"));
        Resolver { file, forward: Some(IpAddr::V4(FORWARDED_DNS)) }
    }
}

fn name_server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    // An address with a zone (fe80::1%eth0) is link-local, and of no use elsewhere.
    let address = words.next()?;
    address.split('%').next()?.parse().ok()
}

/// /etc/hosts for a container: the host's own lines, and the container's name; if it may reach the host, what podman
/// and Docker call that.
pub(super) fn hosts(hostname: &str, share_host: bool, allowed: Allowed) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if share_host {
        let theirs = read_bounded("/etc/hosts");
        let useful = theirs.lines().filter(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            address.is_some_and(|ip| !ip.is_loopback())
        });
        useful.for_each(|line| text.push_str(&format!("{line}\n")));
    }
    if allowed.host {
        text.push_str(&format!("{HOST}\thost.containers.internal host.docker.internal\n"));
    }
    text.push_str(&format!("127.0.0.1\t{hostname}\n"));
    text
}

fn read_bounded(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(65536).read_to_string(&mut text);
    }
    text
}

/// Why this host can't make a private network, or nothing if it can.
pub fn why_not_private() -> Option<&'static str> {
    if helper("pasta").is_none() {
        return Some("pasta is not installed (package passt)");
    }
    let tun = rustix::fs::access(
        "/dev/net/tun",
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    );
    let open_to_all =
        rustix::fs::stat("/dev/net/tun").is_ok_and(|stat| stat.st_mode & 0o006 == 0o006);
    // A container's root is not root on the host: the device must be open to all.
    if tun.is_err() || (rustix::process::geteuid().is_root() && !open_to_all) {
        return Some("/dev/net/tun is not there or not open to all users (chmod 666 /dev/net/tun)");
    }
    if !leads_out() && !pasta_is_local() {
        return Some(
            "this host has no network that leads out, and its pasta makes none without one",
        );
    }
    None
}

/// Whether this host has a default route.
fn leads_out() -> bool {
    let v4 = read_bounded("/proc/net/route");
    let v6 = read_bounded("/proc/net/ipv6_route");
    let mut v4 = v4.lines().filter_map(|line| line.split_whitespace().nth(1));
    let mut v6 = v6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    v4.any(|to| to == "00000000")
        || v6
            .any(|line| line.get(1) == Some(&"00") && line.last().is_some_and(|name| *name != "lo"))
}

/// Whether the host's pasta makes a network without one of the host's. That came in 2024, soon after the option that
/// is looked for; Debian's says no version.
fn pasta_is_local() -> bool {
    static LOCAL: OnceLock<bool> = OnceLock::new();
    *LOCAL.get_or_init(|| {
        let Some(program) = helper("pasta") else { return false };
        let output = Command::new(program).arg("--help").env_clear().stdin(Stdio::null()).output();
        let names = |text: &[u8]| String::from_utf8_lossy(text).contains("--map-host-loopback");
        output.is_ok_and(|output| names(&output.stdout) || names(&output.stderr))
    })
}

/// The network that can be had: the host's where a private one can't be made, with a note.
pub(super) fn available(wanted: Network, reporter: &dyn Reporter) -> Network {
    if wanted == Network::Auto
        && let Some(why) = why_not_private()
    {
        reporter.note(&format!("{why}: using the host's network"));
        return Network::Host;
    }
    wanted
}

/// A running pasta. Dropped means ended, and gone.
#[derive(Debug)]
pub(super) struct Pasta {
    stage: Option<Stage<PastaRequest>>,
    /// Process 1 of its namespace, which ends after it.
    process_1: OwnedFd,
}

impl Pasta {
    /// Whether it has not ended yet.
    pub(super) fn is_alive(&mut self) -> bool {
        self.stage.as_mut().is_some_and(Stage::is_alive)
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        drop(self.stage.take());
        wait_for_death(&self.process_1);
    }
}

/// Starts pasta for a network namespace and waits until it carries packets.
pub(super) fn start_pasta(
    user_namespace: &OwnedFd,
    network_namespace: &OwnedFd,
    plan: &Plan,
    within: Duration,
) -> Result<Pasta> {
    let failed = |why: &str| Error::sandbox(format!("pasta: {why}"));
    let program = helper("pasta").ok_or_else(|| failed("not installed"))?;
    let request = PastaInitRequest {
        program: program.to_string_lossy().into_owned(),
        dns_forward: plan.resolver.forward,
        forwards: carry::split(&plan.forwards).0,
        host: plan.allowed.host,
    };
    let fds = [user_namespace.as_fd(), network_namespace.as_fd()];
    let mut stage = Stage::start(Path::new("/"), &PastaRequest(request), &fds)?;
    let ((), fds) = stage.recv()?;
    let Ok([ready, process_1]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(failed("no pipe"));
    };
    let ready = std::fs::File::from(ready);
    let mut pasta = Pasta { stage: Some(stage), process_1 };
    let timeout = rustix::event::Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
    let mut poll = [rustix::event::PollFd::new(&ready, rustix::event::PollFlags::IN)];
    let polled = rustix::event::poll(&mut poll, Some(&timeout));
    // pasta writes its number when it is ready, and keeps the pipe open.
    let said = match polled {
        Ok(1) => (&ready).read(&mut [0; 16]).unwrap_or(0),
        _ => 0,
    };
    if said > 0 {
        shield::start(user_namespace, network_namespace, plan)?;
        return Ok(pasta);
    }
    match (polled, &mut pasta.stage) {
        // It has ended: its keeper says why.
        (Ok(1), Some(stage)) => stage.recv::<()>().and(Err(failed("it ended"))),
        _ => Err(failed("it did not get ready")),
    }
}

/// The stage: makes a process namespace for pasta, and passes on what its keeper says.
///
/// pasta must not outlive svp, however that ends. The signal that a parent's death sends is lost when pasta
/// gains capabilities, as it does where it starts itself anew for the processor's sake. With its namespace it
/// goes for certain.
fn keep_pasta(channel: &Channel, request: &PastaInitRequest, network: &OwnedFd) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|errno| Error::sandbox("can't make a process namespace").source(errno))?;
    let mut keeper = Stage::start(Path::new("/"), request, &[network.as_fd()])?;
    let ((), mut fds) = keeper.recv()?;
    fds.push(pidfd_of(keeper.pid())?);
    reply_with(channel, &(), &fds)?;
    drop(fds);
    keeper.finish()
}

/// Process 1 of pasta's namespace: starts it and says why it ended. First hands back the pipe that pasta
/// writes to when it is ready, made here because pasta opens it by name, and so it must be the container's
/// root's.
fn run_pasta(channel: &Channel, request: &PastaInitRequest, network: &OwnedFd) -> Result<()> {
    let failed = |error: std::io::Error| Error::sandbox("can't run pasta").source(error);
    let (read_end, ready) = std::io::pipe().map_err(failed)?;
    reply_with(channel, &(), &[read_end.into()])?;
    // pasta opens both by this process' descriptors, for those that it inherits it closes first of all since 2024. That
    // takes no more capabilities than it has by then, so this process has none. /proc is the host's, where this
    // process has another number than 1.
    give_capabilities_up()?;
    let own = std::fs::read_link("/proc/self").map_err(failed)?;
    let by_name = |fd: RawFd| format!("/proc/{}/fd/{fd}", own.display());
    let mut command = Command::new(&request.program);
    command.args(["--foreground", "--quiet", "--config-net", "--no-netns-quit"]);
    // What pasta takes for the gateway is the host's loopback: no real one, then.
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
            command.args(forward.argument());
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
    let said = child.stderr.take().map(last_line).unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    // Not before: pasta opens it by this process' descriptor. Its end closes the pipe.
    drop(ready);
    Err(Error::sandbox(format!("pasta ended ({status}): {said}")))
}

/// The last line of all that comes.
fn last_line(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        let excess = kept.len().saturating_sub(buffer.len());
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("without a word").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_only_the_host_reaches_is_replaced() {
        let through =
            Resolver::private_from("search x\nnameserver 10.0.0.1\nnameserver 127.0.0.53\n", &[]);
        assert_eq!(through.file, "search x\nnameserver 10.0.0.1\n");
        assert_eq!(through.forward, None);
        for host in ["nameserver 127.0.0.53\noptions edns0\n", "nameserver fe80::1%eth0\n", ""] {
            let replaced = Resolver::private_from(host, &[]);
            assert!(replaced.file.ends_with("nameserver 169.254.1.1\n"), "{host:?}");
            assert!(replaced.forward.is_some());
        }
    }

    #[test]
    fn a_name_server_at_a_gateway_out_of_reach_is_replaced() {
        let gateway = "10.0.2.1".parse().unwrap();
        let resolver = Resolver::private_from("nameserver 10.0.2.1\n", &[gateway]);
        assert_eq!(resolver.file, "nameserver 169.254.1.1\n");
        assert!(resolver.forward.is_some());
    }

    #[test]
    fn hosts_has_the_containers_name_and_the_hosts_if_that_is_allowed() {
        let text = hosts("svp", false, Allowed::default());
        assert!(text.ends_with("127.0.0.1\tsvp\n") && !text.contains("internal"));
        let text = hosts("svp", false, Allowed { host: true, ..Allowed::default() });
        assert!(text.contains("169.254.1.2\thost.containers.internal host.docker.internal\n"));
    }
}
