//! The plan of a private network: its resolver, forwarded ports and access to the host.

use super::ports::Forward;
use super::resolver::Resolver;
use crate::sandbox::spec::HostAccess;

/// The connections of a private network.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Plan {
    pub(in crate::sandbox) resolver: Resolver,
    /// The host's ports that are forwarded to the container.
    pub(in crate::sandbox) forwards: Vec<Forward>,
    /// The host addresses that the container may reach.
    pub(in crate::sandbox) host_access: HostAccess,
}
