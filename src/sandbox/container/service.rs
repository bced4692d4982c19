//! A service's container: init, a component init for each component, and svp's side of them.
//!
//! svp talks to each component init by a socket of its own, and reads what each component prints from pipes that
//! stay open however often the component is started.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::component_init::{ComponentInitRequest, Order, Report};
use super::create::{self, Container};
use super::mknod;
use super::rootfs::{create_root, pivot};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::progress::Reporter;
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::cgroup::resources::Resources;
use crate::sandbox::create::Sandbox;
use crate::sandbox::network::attach::{AttachError, AttachedNetwork, Backoff, attach};
use crate::sandbox::network::availability::available;
use crate::sandbox::network::link_listeners::{self, LinkListener};
use crate::sandbox::network::plan::Plan;
use crate::sandbox::network::ports::Forward;
use crate::sandbox::network::socket::RelaySocket;
use crate::sandbox::spec::{Bind, End, HostAccess, Network, Overlay, Rootfs};
use crate::sandbox::stage::fd_limit;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::{pid_of, pidfd_of, wait_for_death};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply, reply_with};
use crate::sandbox::userns::namespace;

/// The most components a service may have: each takes descriptors, and they go in one message.
pub const MAX_COMPONENTS: usize = 32;
/// How long a component init may take to listen, or to end a sentence: a service may have stopped it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A service's container.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// The place that keeps what the service writes, and the layers below.
    pub overlay: Overlay,
    /// Volumes, and what else is shown in it.
    pub binds: Vec<Bind>,
    /// The host name.
    pub hostname: String,
    /// The network.
    pub network: Network,
    /// The host's ports that lead into a private network.
    pub forwards: Vec<Forward>,
    /// What of the host may be reached from inside a private network.
    pub host_access: HostAccess,
    /// Where svp listens beside the container's own network.
    pub listen: Vec<LinkListener>,
    /// How many components there are to keep.
    pub components: usize,
    /// What it may use.
    pub resources: Resources,
    /// What its cgroup is called, if it has one.
    pub id: String,
}

impl ServiceSpec {
    /// What the container may use with svp's own processes in it: the stage, init and a thread for each
    /// component init, the component inits.
    fn own_and_theirs(&self) -> Resources {
        let own = 2 + 2 * self.components as u64;
        Resources { pids: self.resources.pids.map(|pids| pids + own), ..self.resources }
    }
}

/// Runs a service's container. The user namespace; for each component init its socket, stdout, stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ServiceRequest(ServiceInitRequest);

/// The init of a service's container. For each component init its socket, stdout, stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ServiceInitRequest {
    container: Container,
    components: usize,
}

/// A running container of a service. Dropped means killed, and gone.
#[derive(Debug)]
pub struct Service {
    // The order of dropping: what runs in the network goes before the network.
    stage: Option<Stage<ServiceRequest>>,
    init: OwnedFd,
    network: Option<AttachedNetwork>,
    plan: Plan,
    user_namespace: OwnedFd,
    cgroup: Cgroup,
    /// The sockets for [`ServiceSpec::listen`], in that order; none where the network is the host's.
    pub link_listeners: Vec<RelaySocket>,
    /// The network that it got.
    pub network_kind: Network,
}

/// svp's side of one component.
#[derive(Debug)]
pub struct Component {
    control: Channel,
    /// What it prints on standard output, until the container is gone.
    pub stdout: Option<File>,
    /// What it prints on standard error.
    pub stderr: Option<File>,
}

/// What became of a component.
#[derive(Debug)]
pub enum Event {
    /// Its first process runs.
    Started,
    /// It could not be started.
    NotStarted(Error),
    /// It ended, and nothing of it is left.
    Ended(End),
    /// Its component init is gone, and so is the container.
    Gone,
}

impl Sandbox {
    /// Makes a service's container. Nothing of the service runs in it yet.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if it can't be made,
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted).
    pub fn start_service(
        &self,
        spec: &ServiceSpec,
        reporter: &dyn Reporter,
    ) -> Result<(Service, Vec<Component>)> {
        let network = available(spec.network, reporter);
        match self.service_in(spec, network, reporter) {
            Err(AttachError::NoPasta(error))
                if spec.forwards.is_empty() && spec.listen.is_empty() =>
            {
                reporter.note(&format!("{error}: using the host's network"));
                self.service_in(spec, Network::Host, reporter).map_err(AttachError::into_error)
            }
            other => other.map_err(AttachError::into_error),
        }
    }

    fn service_in(
        &self,
        spec: &ServiceSpec,
        network: Network,
        reporter: &dyn Reporter,
    ) -> Result<(Service, Vec<Component>), AttachError> {
        let rootfs = Rootfs::Layers(spec.overlay.clone());
        let (mut container, resolver) =
            self.container(rootfs, spec.binds.clone(), &spec.hostname, network, spec.host_access);
        container.listen = spec.listen.clone();
        let plan =
            Plan { resolver, forwards: spec.forwards.clone(), host_access: spec.host_access };
        let mut components = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..spec.components {
            let (component, ends) = Component::new()?;
            components.push(component);
            theirs.extend(ends);
        }
        let mut fds = vec![self.namespace()];
        fds.extend(theirs.iter().map(AsFd::as_fd));
        let request =
            ServiceInitRequest { container: container.clone(), components: spec.components };
        let mut stage = Stage::spawn(self.layer_store())?;
        // Before it starts anything: all that comes is born in there.
        let (cgroup, unbounded) = Cgroup::make(&spec.id, &spec.own_and_theirs(), stage.pid());
        if let Some(unbounded) = unbounded {
            reporter.note(&unbounded.to_string());
        }
        stage.send_request(&ServiceRequest(request), &fds)?;
        drop(theirs);
        let network_part = match container.attaches() {
            true => Some(attach(self.namespace_fd(), &mut stage, &plan)?),
            false => None,
        };
        let link_listeners = link_listeners::receive(&mut stage, container.link_listeners())?;
        if !link_listeners.is_empty() {
            // What comes by them takes descriptors of this process.
            fd_limit::raise_limit();
        }
        let ((), fds) = stage.recv()?;
        let init = fds.into_iter().next().ok_or_else(|| Error::sandbox("no init"))?;
        // Init says when all component inits are there.
        let ((), _) = stage.recv()?;
        let user_namespace = self
            .namespace_fd()
            .try_clone()
            .map_err(|error| Error::sandbox("can't keep the user namespace").source(error))?;
        let service = Service {
            stage: Some(stage),
            init,
            network: network_part,
            plan,
            user_namespace,
            cgroup,
            link_listeners,
            network_kind: network,
        };
        Ok((service, components))
    }
}

impl Service {
    /// A descriptor of init: readable once the container is gone.
    pub fn init_pidfd(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// The number of init, as this process sees it.
    pub fn init_pid(&self) -> Option<u32> {
        pid_of(&self.init)
    }

    /// The user namespace.
    pub fn user_namespace(&self) -> BorrowedFd<'_> {
        self.user_namespace.as_fd()
    }

    /// The container's own network namespace, if svp connects it to others.
    pub fn network_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.network.as_ref().map(|network| network.namespace.as_fd())
    }

    /// How many processes the kernel has killed because the container's memory was used up.
    pub fn memory_kills(&self) -> u64 {
        self.cgroup.memory_kills()
    }

    /// Connects the network again if pasta has died, or what carries the rest; whether it had to. Where that fails
    /// it is not tried for a while.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if that fails.
    pub fn reconnect_network(&mut self) -> Result<bool> {
        let Some(network) = &mut self.network else { return Ok(false) };
        if !network.backoff.is_due() {
            return Ok(false);
        }
        let reconnected = network.reconnect(&self.user_namespace, &self.plan);
        match reconnected {
            Ok(true) => network.backoff = Backoff::default(),
            Ok(false) => {}
            Err(_) => network.backoff.failed(),
        }
        reconnected
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stage.take());
        wait_for_death(&self.init);
    }
}

impl Component {
    fn new() -> Result<(Component, [OwnedFd; 3])> {
        let failed = |error| Error::sandbox("can't make a pipe").source(error);
        let (control, their_control) = Channel::pair().map_err(failed)?;
        control.set_timeout(PATIENCE).map_err(failed)?;
        let (stdout, their_stdout) = std::io::pipe().map_err(failed)?;
        let (stderr, their_stderr) = std::io::pipe().map_err(failed)?;
        let ours = Component {
            control,
            stdout: Some(File::from(OwnedFd::from(stdout))),
            stderr: Some(File::from(OwnedFd::from(stderr))),
        };
        Ok((ours, [their_control, their_stdout.into(), their_stderr.into()]))
    }

    /// Starts it; [`Event::Started`] or [`Event::NotStarted`] follows. It must not be running.
    pub fn start(&self, argv: Vec<String>, env: Vec<(String, String)>, cwd: &str) {
        self.order(&Order::Start { argv, env, cwd: cwd.to_owned() });
    }

    /// Sends its first process a signal.
    pub fn signal(&self, signal: i32) {
        self.order(&Order::Signal(signal));
    }

    /// Kills all of it; [`Event::Ended`] follows.
    pub fn kill(&self) {
        self.order(&Order::Kill);
    }

    /// Waits for what happens next.
    pub fn event(&self) -> Event {
        match self.control.recv::<Report>() {
            Ok(Some((Report::Started, _))) => Event::Started,
            Ok(Some((Report::NotStarted(error), _))) => Event::NotStarted(error.into()),
            Ok(Some((Report::Ended(end), _))) => Event::Ended(end),
            _ => Event::Gone,
        }
    }

    fn order(&self, order: &Order) {
        // Where the component init is gone, the next event tells. One that doesn't listen is as good as gone: what
        // was sent of the order is no sentence.
        if self.control.send(order, &[]).is_err() {
            self.control.shut();
        }
    }
}

impl AsFd for Component {
    /// Readable when there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Request for ServiceRequest {
    const NAME: &'static str = "service";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        create::create(channel, &self.0.container)?;
        let fds = fds.rest();
        let lent: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut init = Stage::start(Path::new("."), &self.0, &lent)?;
        reply_with(channel, &(), &[pidfd_of(init.pid())?])?;
        drop(fds);
        let ((), _) = init.recv()?;
        reply(channel, &())?;
        init.finish()
    }
}

impl Request for ServiceInitRequest {
    const NAME: &'static str = "service-init";
    type Answer = ();

    fn serve(self, channel: &Channel, fds: Descriptors) -> Result<()> {
        init(channel, &self, fds.rest())
    }
}

/// Starts the component inits, and reaps every orphan.
fn init(channel: &Channel, request: &ServiceInitRequest, fds: Vec<OwnedFd>) -> Result<()> {
    let root = create_root(&request.container, None)?;
    let mut components = Vec::new();
    for ends in fds.chunks(3).take(request.components) {
        let lent: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
        let mut component = Stage::start(Path::new("/"), &ComponentInitRequest, &lent)?;
        // Its libraries are loaded: from here on it needs no file of the host's.
        component.recv::<()>()?;
        components.push(component);
    }
    drop(fds);
    pivot(&root)?;
    drop(root);
    for component in &mut components {
        component.send(&(), &[])?;
        let ((), listener) = component.recv()?;
        if let Some(listener) = listener.into_iter().next() {
            std::thread::spawn(move || mknod::serve(&listener));
        }
    }
    reply(channel, &())?;
    reap(&components)
}

/// Reaps until a component init is among the ended, without which the container is of no use.
fn reap(components: &[Stage<ComponentInitRequest>]) -> Result<()> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                if components.iter().any(|component| component.pid() as i32 == pid.as_raw()) {
                    return Err(Error::sandbox("a component init was killed"));
                }
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::sandbox("can't wait for the component inits").source(errno));
            }
        }
    }
}
