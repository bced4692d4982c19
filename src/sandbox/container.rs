//! What a container is made of, whatever runs in it: namespaces, a file system, a network.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::carry::PortForwarderRequest;
use super::network::{self, Pasta, Plan, Resolver};
use super::relay::Door;
use super::spec::{Allowed, Bind, Network, Rootfs};
use super::stage::launch::Stage;
use super::stage::protocol::reply_with;
use super::{Sandbox, carry, doors, netlink, overlay};
use crate::channel::Channel;
use crate::error::{Error, Result};

/// A container with all that its stages need to know of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) rootfs: Rootfs,
    /// What is shown in it besides, in this order.
    pub(super) binds: Vec<Bind>,
    pub(super) hostname: String,
    /// Whether group 5, tty, is in the id map.
    pub(super) tty_group: bool,
    /// Whether it has a network namespace of its own.
    own_network: bool,
    /// Whether svp attaches something to that namespace first.
    attach: bool,
    pub(super) resolv_conf: String,
    pub(super) hosts: String,
    /// Where svp listens beside the container's own network.
    pub(super) listen: Vec<doors::Listen>,
}

/// A container's network as svp sets it up.
#[derive(Debug)]
pub(super) struct Attached {
    /// The container's network namespace.
    pub(super) namespace: OwnedFd,
    /// What carries its packets.
    pub(super) pasta: Pasta,
    /// What carries what pasta can't.
    pub(super) carrier: Option<Stage<PortForwarderRequest>>,
    /// When it may be mended.
    pub(super) patience: Patience,
}

/// How long to wait before mending is tried again: whoever mends can't do anything else meanwhile.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pause: Duration,
    next: Option<Instant>,
}

impl Patience {
    /// Whether it may be tried now.
    pub(super) fn may_try(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// How long pasta may take this time: longer each time, for a machine that is slow.
    pub(super) fn ready_within(&self) -> Duration {
        self.pause.clamp(Duration::from_secs(2), Duration::from_secs(8))
    }

    /// It failed: each pause is twice the one before, two minutes at most.
    pub(super) fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(Duration::from_secs(2), Duration::from_secs(120));
        self.next = Some(Instant::now() + self.pause);
    }
}

impl Attached {
    /// Starts again what has died; whether anything had.
    pub(super) fn mend(&mut self, user_namespace: &OwnedFd, plan: &Plan) -> Result<bool> {
        let mut mended = false;
        if !self.pasta.is_alive() {
            let within = self.patience.ready_within();
            self.pasta = network::start_pasta(user_namespace, &self.namespace, plan, within)?;
            mended = true;
        }
        let rest = carry::split(&plan.forwards).1;
        if !rest.is_empty() && !self.carrier.as_mut().is_some_and(Stage::is_alive) {
            // Its sockets went with it. Where there is none now it is wanted all the same.
            self.carrier = None;
            self.carrier = carry::start(user_namespace, &self.namespace, rest)?;
            mended = true;
        }
        Ok(mended)
    }
}

impl Sandbox {
    /// Describes a container in one of the three networks, and how names resolve there.
    pub(super) fn container(
        &self,
        rootfs: Rootfs,
        binds: Vec<Bind>,
        hostname: &str,
        network: Network,
        allowed: Allowed,
    ) -> (Container, Resolver) {
        let resolver = match network {
            Network::Auto => Resolver::private(allowed),
            Network::Host => Resolver::of_host(),
            Network::None => Resolver::none(),
        };
        let container = Container {
            rootfs,
            binds,
            hostname: hostname.to_owned(),
            tty_group: self.map().gids.iter().any(|e| e.inside <= 5 && 5 - e.inside < e.count),
            own_network: network != Network::Host,
            attach: network == Network::Auto,
            resolv_conf: resolver.file.clone(),
            hosts: network::hosts(hostname, network != Network::None, allowed),
            listen: Vec::new(),
        };
        (container, resolver)
    }

    /// The sockets that a container's stage was asked to make, in their order.
    pub(super) fn doors<R>(stage: &mut Stage<R>, container: &Container) -> Result<Vec<Door>> {
        if !container.own_network || container.listen.is_empty() {
            return Ok(Vec::new());
        }
        let ((), fds) = stage.recv()?;
        if fds.len() != container.listen.len() {
            return Err(Error::sandbox("some sockets for the links are missing"));
        }
        let doors = fds.into_iter().zip(&container.listen);
        Ok(doors.map(|(fd, listen)| Door::of(fd, listen.protocol)).collect())
    }

    /// Connects a container's network, if it is to be, when its stage asks for that.
    pub(super) fn attach<R>(
        &self,
        stage: &mut Stage<R>,
        container: &Container,
        plan: &Plan,
    ) -> Result<Option<Attached>, Attempt> {
        if !container.attach {
            return Ok(None);
        }
        let (_, mut fds) = stage.recv::<()>()?;
        let namespace = fds.pop().ok_or_else(|| Error::sandbox("no network namespace"))?;
        let pasta = network::start_pasta(self.namespace_fd(), &namespace, plan, network::READY);
        // An interrupt kills pasta too.
        crate::interrupt::check()?;
        let pasta = pasta.map_err(Attempt::NoPasta)?;
        let rest = carry::split(&plan.forwards).1;
        let carrier = carry::start(self.namespace_fd(), &namespace, rest)?;
        stage.send(&(), &[])?;
        Ok(Some(Attached { namespace, pasta, carrier, patience: Patience::default() }))
    }
}

/// Why a container could not be made: without its network, another may do.
#[derive(Debug)]
pub(super) enum Attempt {
    NoPasta(Error),
    Failed(Error),
}

impl Attempt {
    pub(super) fn into_error(self) -> Error {
        match self {
            Attempt::NoPasta(error) | Attempt::Failed(error) => error,
        }
    }
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Attempt::Failed(error)
    }
}

/// The stage's part: makes the namespaces, the overlay and the network. Process 1 comes next.
pub(super) fn make(channel: &Channel, container: &Container) -> Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if container.own_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags)
        .map_err(|errno| Error::sandbox("can't make the container's namespaces").source(errno))?;
    // Where the kernel has no cgroup namespaces, nothing depends on one.
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    overlay::make_private()?;
    if let Rootfs::Layers(layers) = &container.rootfs {
        overlay::enter(layers)?;
        overlay::make_scaffold()?;
        overlay::mount_merged(layers)?;
    }
    if container.own_network {
        prepare_network(channel, container)?;
        if !container.listen.is_empty() {
            reply_with(channel, &(), &doors::open(&container.listen)?)?;
        }
    }
    Ok(())
}

fn prepare_network(channel: &Channel, container: &Container) -> Result<()> {
    let failed = |what: &str, error| Error::sandbox(what.to_owned()).source(error);
    netlink::bring_up(netlink::LOOPBACK)
        .map_err(|error| failed("can't bring the loopback interface up", error))?;
    if !container.attach {
        return Ok(());
    }
    let namespace = File::open("/proc/self/ns/net")
        .map_err(|error| failed("can't open the network namespace", error))?;
    reply_with(channel, &(), &[namespace.into()])?;
    let go = channel.recv::<()>().map_err(|error| failed("svp", error))?;
    go.map(drop).ok_or_else(|| Error::sandbox("svp is gone"))
}
