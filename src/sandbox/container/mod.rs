//! Containers.
//!
//! | file | what it does |
//! |---|---|
//! | `create` | describes a container; creates its namespaces |
//! | `rootfs`, `mounts` | its root file system; its mounts |
//! | `run`, `init`, `exec` | runs a command in a container; its init; the process that becomes the command |
//! | `service`, `component_init` | the container of a service; the init of each of its components |
//! | `join`, `user` | runs a command in a running container, as a user of it |
//! | `capabilities`, `seccomp`, `mknod` | what its processes may do; device nodes that they make |

pub(super) mod capabilities;
pub(super) mod component_init;
pub(super) mod create;
pub(super) mod exec;
pub(super) mod init;
pub(super) mod join;
pub(super) mod mknod;
pub(super) mod mounts;
pub(super) mod rootfs;
pub(super) mod run;
pub(super) mod seccomp;
pub(super) mod service;
pub(super) mod user;
