//! User namespaces and their id maps.
//!
//! | file | job |
//! |---|---|
//! | `idmap` | the id map; newuidmap, newgidmap |
//! | `cause` | finds why this host refuses a namespace or an id map |
//! | `subordinate` | advises how a user gets subordinate ids |
//! | `namespace` | creates the user namespace and joins it |

pub(super) mod cause;
pub(super) mod idmap;
pub(super) mod namespace;
pub(super) mod subordinate;
