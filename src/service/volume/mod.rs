//! Volumes: their users, the setup that each was created for, and their content as a tar.
//!
//! | file | job |
//! |---|---|
//! | `list` | lists volumes with the services that use them, and removes unused ones |
//! | `setup` | refuses a volume whose secrets are those of another setup |
//! | `transfer` | exports and imports a volume |

pub(crate) mod list;
pub(crate) mod setup;
pub(crate) mod transfer;
