//! The user namespace.
//!
//! | file | what it does |
//! |---|---|
//! | `idmap` | which of the host's users the container's are; newuidmap, newgidmap |
//! | `namespace` | creates the user namespace, and joins it |

pub(super) mod idmap;
pub(super) mod namespace;
