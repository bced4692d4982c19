//! Networks of containers.
//!
//! | file | what it does |
//! |---|---|
//! | `availability` | whether this host can make a private network |
//! | `attach`, `plan` | connects a network namespace; what it is connected to |
//! | `pasta` | runs pasta |
//! | `egress_filter` | refuses what a private network must not reach |
//! | `port_forwarder` | forwards the ports that pasta cannot |
//! | `link_listeners` | listens for the links to other services |
//! | `relay`, `socket` | relays connections and datagrams; the sockets |
//! | `ports` | published ports |
//! | `resolver` | /etc/resolv.conf and /etc/hosts |
//! | `netlink` | the kernel's interface to networks |

pub(super) mod attach;
pub(super) mod availability;
pub(super) mod egress_filter;
pub(super) mod link_listeners;
pub(super) mod netlink;
pub(super) mod pasta;
pub(super) mod plan;
pub(super) mod port_forwarder;
pub(super) mod ports;
pub(super) mod relay;
pub(super) mod resolver;
pub(super) mod socket;
