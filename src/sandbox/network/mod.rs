//! The networks of containers.
//!
//! | file | job |
//! |---|---|
//! | `availability`, `own_container` | decides which network there is; recognises a container around svp |
//! | `attach`, `plan` | connects a network namespace; describes its connections |
//! | `pasta` | runs pasta |
//! | `egress_filter` | blocks the addresses that a container must not reach |
//! | `port_forwarder` | forwards the ports that pasta cannot |
//! | `link_listeners` | opens the listeners for links to other services |
//! | `relay`, `socket` | relays connections and datagrams; opens sockets |
//! | `ports` | published ports |
//! | `resolver` | creates /etc/resolv.conf and /etc/hosts |
//! | `netlink` | configures a network namespace through netlink |

pub(super) mod attach;
pub(super) mod availability;
pub(super) mod egress_filter;
pub(super) mod link_listeners;
pub(super) mod netlink;
mod own_container;
pub(super) mod pasta;
pub(super) mod plan;
pub(super) mod port_forwarder;
pub(super) mod ports;
pub(super) mod relay;
pub(super) mod resolver;
pub(super) mod socket;
