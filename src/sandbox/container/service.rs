//! The container of a service: its init, a component init for each component, and svp's side of them.
//!
//! svp has a socket to each component init, and reads each component's output from pipes that stay open across
//! restarts of the component.

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
use super::stdio::output_pipe;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::progress::{Reporter, ServiceNote};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::cgroup::resources::Resources;
use crate::sandbox::create::Sandbox;
use crate::sandbox::network::attach::{AttachError, AttachedNetwork, Backoff, attach};
use crate::sandbox::network::availability::{after_failure, available};
use crate::sandbox::network::link_listeners::{self, LinkListener};
use crate::sandbox::network::plan::Plan;
use crate::sandbox::network::ports::Forward;
use crate::sandbox::network::resolver;
use crate::sandbox::network::socket::RelaySocket;
use crate::sandbox::spec::{Bind, End, HostAccess, HostsEntry, Network, Overlay, Rootfs};
use crate::sandbox::stage::fd_limit;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::process::{pid_of, pidfd_of, wait_for_death};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply, reply_with};
use crate::sandbox::userns::namespace;

/// The maximum number of components in a service: each needs descriptors, all of which are sent in one message.
pub(crate) const MAX_COMPONENTS: usize = 32;
/// The time limit of a message to or from a component init, which the service may have stopped (SIGSTOP).
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A service's container.
#[derive(Clone, Debug)]
pub(crate) struct ServiceSpec {
    /// The upper directory for the service's writes, and the layers below.
    pub overlay: Overlay,
    /// Volumes and other bind mounts.
    pub binds: Vec<Bind>,
    /// Further names in its /etc/hosts.
    pub hosts: Vec<HostsEntry>,
    /// The host name.
    pub hostname: String,
    /// The network.
    pub network: Network,
    /// The host's ports that are forwarded into a private network.
    pub forwards: Vec<Forward>,
    /// The host addresses that are reachable from a private network.
    pub host_access: HostAccess,
    /// The listeners for links, next to the container's network.
    pub listen: Vec<LinkListener>,
    /// The number of components.
    pub components: usize,
    /// The resource limits.
    pub resources: Resources,
    /// The name of its cgroup, if it has one.
    pub id: String,
}

impl ServiceSpec {
    /// Returns the limits, raised by svp's own processes in the container: the stage; init, with a thread for each
    /// component init; the component inits.
    fn limits_with_svp(&self) -> Resources {
        let own = 2 + 2 * self.components as u64;
        Resources { pids: self.resources.pids.map(|pids| pids + own), ..self.resources }
    }
}

/// Request: run a service's container. Descriptors: the user namespace; for each component init its socket, stdout,
/// stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ServiceRequest(ServiceInitRequest);

/// Request: be the init of a service's container. Descriptors: for each component init its socket, stdout, stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ServiceInitRequest {
    container: Container,
    components: usize,
}

/// A running container of a service. Dropping it kills the container and waits for its end.
#[derive(Debug)]
pub(crate) struct Service {
    // Fields are dropped in this order: the container's processes before the network.
    stage: Option<Stage<ServiceRequest>>,
    init: OwnedFd,
    network: Option<AttachedNetwork>,
    plan: Plan,
    user_namespace: OwnedFd,
    cgroup: Cgroup,
    /// The sockets of [`ServiceSpec::listen`], in that order; empty in the host's network.
    pub link_listeners: Vec<RelaySocket>,
    /// The network in use.
    pub network_kind: Network,
}

/// svp's connection to one component.
#[derive(Debug)]
pub(crate) struct Component {
    control: Channel,
    /// The read end of its standard output, until the container has ended.
    pub stdout: Option<File>,
    /// The read end of its standard error.
    pub stderr: Option<File>,
}

/// A change in a component's state.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its first process has started.
    Started,
    /// The component could not be started.
    NotStarted(Error),
    /// The component and all its processes have ended.
    Ended(End),
    /// The component init and the container have ended.
    Gone,
}

impl Sandbox {
    /// Creates a service's container. No component is started yet.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if it can't be created,
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted).
    pub(crate) fn start_service(
        &self,
        spec: &ServiceSpec,
        reporter: &dyn Reporter,
    ) -> Result<(Service, Vec<Component>)> {
        let network = available(spec.network, reporter)?;
        match self.service_in(spec, network, reporter) {
            Err(AttachError::NoPasta(error))
                if spec.forwards.is_empty() && spec.listen.is_empty() =>
            {
                let network = after_failure(&error, reporter)?;
                self.service_in(spec, network, reporter).map_err(AttachError::into_error)
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
        resolver::add_hosts(&mut container.hosts, &spec.hosts);
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
        let mut stage = Stage::spawn(self.layer_store(), ServiceRequest::NAME)?;
        // Before the stage starts anything, so that all processes are created in the cgroup.
        let (cgroup, unbounded) = Cgroup::make(&spec.id, &spec.limits_with_svp(), stage.pid());
        if let Some(unbounded) = unbounded {
            reporter.note(ServiceNote::NoLimits { reason: unbounded.to_string() }.into());
        }
        stage.send_request(&ServiceRequest(request), &fds)?;
        drop(theirs);
        let attached = match container.attaches() {
            true => Some(attach(self.namespace_fd(), &mut stage, &plan)?),
            false => None,
        };
        let link_listeners = link_listeners::receive(&mut stage, container.link_listeners())?;
        if !link_listeners.is_empty() {
            // Each connection to a link needs descriptors in this process.
            fd_limit::raise_limit();
        }
        let ((), fds) = stage.recv()?;
        let init = fds.into_iter().next().ok_or_else(|| Error::sandbox("no init"))?;
        // init reports when all component inits are ready.
        let ((), _) = stage.recv()?;
        let user_namespace = self
            .namespace_fd()
            .try_clone()
            .map_err(|error| Error::sandbox("can't duplicate the user namespace").source(error))?;
        let service = Service {
            stage: Some(stage),
            init,
            network: attached,
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
    /// Returns a pidfd of init: readable once the container has ended.
    pub(crate) fn init_pidfd(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Returns the PID of init in this process's PID namespace.
    pub(crate) fn init_pid(&self) -> Option<u32> {
        pid_of(&self.init)
    }

    /// Returns the user namespace.
    pub(crate) fn user_namespace(&self) -> BorrowedFd<'_> {
        self.user_namespace.as_fd()
    }

    /// Returns the number of the container's processes that the OOM killer has killed.
    pub(crate) fn memory_kills(&self) -> u64 {
        self.cgroup.memory_kills()
    }

    /// Reconnects the network if pasta or the port forwarder has died; returns whether it reconnected. Backs off after
    /// a failure.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if reconnecting fails.
    pub(crate) fn reconnect_network(&mut self) -> Result<bool> {
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
        let failed = |error| Error::sandbox("can't create a socket").source(error);
        let (control, their_control) = Channel::pair().map_err(failed)?;
        control.set_timeout(Some(MESSAGE_TIMEOUT)).map_err(failed)?;
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let ours = Component {
            control,
            stdout: Some(File::from(stdout)),
            stderr: Some(File::from(stderr)),
        };
        Ok((ours, [their_control, their_stdout, their_stderr]))
    }

    /// Starts the component; [`Event::Started`] or [`Event::NotStarted`] follows. It must not be running.
    pub(crate) fn start(&self, argv: Vec<String>, env: Vec<(String, String)>, cwd: &str) {
        self.order(&Order::Start { argv, env, cwd: cwd.to_owned() });
    }

    /// Sends a signal to its first process.
    pub(crate) fn signal(&self, signal: i32) {
        self.order(&Order::Signal(signal));
    }

    /// Kills all its processes; [`Event::Ended`] follows.
    pub(crate) fn kill(&self) {
        self.order(&Order::Kill);
    }

    /// Waits for the next event.
    pub(crate) fn event(&self) -> Event {
        match self.control.recv::<Report>() {
            Ok(Some((Report::Started, _))) => Event::Started,
            Ok(Some((Report::NotStarted(error), _))) => Event::NotStarted(error.into()),
            Ok(Some((Report::Ended(end), _))) => Event::Ended(end),
            _ => Event::Gone,
        }
    }

    fn order(&self, order: &Order) {
        // If the component init has ended, the next event reports that. A component init that does not read in time
        // counts as ended, because only part of the order may have been sent.
        if self.control.send(order, &[]).is_err() {
            self.control.shut();
        }
    }
}

impl AsFd for Component {
    /// Returns the control socket: readable when there is an event.
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

/// Starts the component inits, and reaps orphans.
fn init(channel: &Channel, request: &ServiceInitRequest, fds: Vec<OwnedFd>) -> Result<()> {
    let (root, _) = create_root(&request.container, None)?;
    let mut components = Vec::new();
    for ends in fds.chunks(3).take(request.components) {
        let lent: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
        let mut component = Stage::start(Path::new("/"), &ComponentInitRequest, &lent)?;
        // The stage has loaded the host's libraries: from here on it needs no file of the host.
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
            mknod::start_server(listener)?;
        }
    }
    reply(channel, &())?;
    reap(&components)
}

/// Reaps processes until a component init has ended: the container can't continue without it.
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
