//! What a private network connects.

use super::ports::Forward;
use super::resolver::Resolver;
use crate::sandbox::spec::HostAccess;

/// What a private network leads to.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Plan {
    pub(in crate::sandbox) resolver: Resolver,
    /// The host's ports that lead into it.
    pub(in crate::sandbox) forwards: Vec<Forward>,
    /// What of the host leads out of it.
    pub(in crate::sandbox) host_access: HostAccess,
}
