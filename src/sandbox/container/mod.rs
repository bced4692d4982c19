//! Containers and their processes.
//!
//! | file | job |
//! |---|---|
//! | `create` | describes a container; creates its namespaces |
//! | `rootfs`, `mounts`, `read_only`, `sysfs` | assembles its root file system; applies its mounts; its /sys |
//! | `provided` | the files that svp provides, and changes to them |
//! | `run`, `init`, `exec` | runs a command in a container; its init; the stage that executes the command |
//! | `service`, `component_init` | the container of a service; the init of each component |
//! | `bounds`, `watch` | limits memory, processes and threads: by a cgroup, or from the container's init |
//! | `stdio` | the pipes that are a container's standard streams |
//! | `join`, `terminal`, `user` | runs a command in a running container, on a terminal, as one of its users |
//! | `capabilities`, `seccomp`, `mknod` | restricts its processes; emulates device nodes |

pub(super) mod bounds;
pub(super) mod capabilities;
pub(super) mod component_init;
pub(super) mod create;
pub(super) mod exec;
pub(super) mod init;
pub(super) mod join;
pub(super) mod mknod;
pub(super) mod mounts;
pub(super) mod provided;
pub(super) mod read_only;
pub(super) mod rootfs;
pub(super) mod run;
pub(super) mod seccomp;
pub(super) mod service;
pub(super) mod stdio;
pub(super) mod sysfs;
pub(super) mod terminal;
pub(super) mod user;
pub(super) mod watch;
