//! Connects a container's network namespace, and reconnects it if a helper process has died.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::egress_filter;
use super::pasta::{self, Pasta};
use super::plan::Plan;
use super::port_forwarder::{self, PortForwarderRequest};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::sandbox::stage::launch::Stage;

/// The network of a container, and the processes that connect it.
#[derive(Debug)]
pub(in crate::sandbox) struct AttachedNetwork {
    /// The container's network namespace.
    pub(in crate::sandbox) namespace: OwnedFd,
    /// Connects the namespace to the host's network.
    pub(in crate::sandbox) pasta: Pasta,
    /// Forwards the ports that pasta cannot.
    pub(in crate::sandbox) port_forwarder: Option<Stage<PortForwarderRequest>>,
    /// Limits the attempts to reconnect.
    pub(in crate::sandbox) backoff: Backoff,
}

/// Exponential back-off between attempts to reconnect, which block the caller.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Backoff {
    pause: Duration,
    next: Option<Instant>,
}

impl Backoff {
    /// Whether an attempt is due.
    pub(in crate::sandbox) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// Returns how long to wait for pasta to be ready: longer after each failure, for slow machines.
    pub(in crate::sandbox) fn ready_within(&self) -> Duration {
        self.pause.clamp(Duration::from_secs(2), Duration::from_secs(8))
    }

    /// Records a failure: doubles the pause, up to two minutes.
    pub(in crate::sandbox) fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(Duration::from_secs(2), Duration::from_secs(120));
        self.next = Some(Instant::now() + self.pause);
    }
}

impl AttachedNetwork {
    /// Restarts the processes that have died; returns whether there were any.
    pub(in crate::sandbox) fn reconnect(
        &mut self,
        user_namespace: &OwnedFd,
        plan: &Plan,
    ) -> Result<bool> {
        let mut reconnected = false;
        if !self.pasta.is_alive() {
            let within = self.backoff.ready_within();
            self.pasta = pasta::start_pasta(user_namespace, &self.namespace, plan, within)?;
            egress_filter::start(user_namespace, &self.namespace, plan.host_access)?;
            reconnected = true;
        }
        let rest = port_forwarder::split(&plan.forwards).1;
        if !rest.is_empty() && !self.port_forwarder.as_mut().is_some_and(Stage::is_alive) {
            // Drop a dead forwarder first, which closes its sockets. It is `None` if an earlier restart failed.
            self.port_forwarder = None;
            self.port_forwarder = port_forwarder::start(user_namespace, &self.namespace, rest)?;
            reconnected = true;
        }
        Ok(reconnected)
    }
}

/// Receives a container's network namespace from its stage, and connects it.
pub(in crate::sandbox) fn attach<R>(
    user_namespace: &OwnedFd,
    stage: &mut Stage<R>,
    plan: &Plan,
) -> Result<AttachedNetwork, AttachError> {
    let (_, mut fds) = stage.recv::<()>()?;
    let namespace = fds.pop().ok_or_else(|| Error::sandbox("no network namespace"))?;
    let pasta = pasta::start_pasta(user_namespace, &namespace, plan, pasta::READY);
    // An interrupt also kills pasta: report the interrupt, not pasta's end.
    interrupt::check()?;
    let pasta = pasta.map_err(AttachError::NoPasta)?;
    // A failure is no reason for the host's network, which has no filter at all.
    egress_filter::start(user_namespace, &namespace, plan.host_access)?;
    let rest = port_forwarder::split(&plan.forwards).1;
    let port_forwarder = port_forwarder::start(user_namespace, &namespace, rest)?;
    stage.send(&(), &[])?;
    Ok(AttachedNetwork { namespace, pasta, port_forwarder, backoff: Backoff::default() })
}

/// Why a container could not be connected. After [`AttachError::NoPasta`] the caller may use the host's network.
#[derive(Debug)]
pub(in crate::sandbox) enum AttachError {
    NoPasta(Error),
    Failed(Error),
}

impl AttachError {
    pub(in crate::sandbox) fn into_error(self) -> Error {
        match self {
            AttachError::NoPasta(error) | AttachError::Failed(error) => error,
        }
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        AttachError::Failed(error)
    }
}
