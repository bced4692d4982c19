//! Namespaces shared with the host. The host's are in the environment: SVP_PROBES_NS_net and so on.

use crate::attempt::{Probe, closed, none, open};

pub const KINDS: &[&str] = &["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"];

pub fn probes() -> Vec<Probe> {
    let probe = |kind: &&'static str| {
        let kind = *kind;
        Probe::new("namespaces", format!("the {kind} namespace is the host's"), move || {
            match is_host(kind) {
                Some(true) => open("the same"),
                Some(false) => closed("another"),
                None => none("unknown"),
            }
        })
    };
    KINDS.iter().map(probe).collect()
}

/// Whether this process is in the host's namespace; `None` if either is unknown.
pub fn is_host(kind: &str) -> Option<bool> {
    let host = std::env::var(format!("SVP_PROBES_NS_{kind}")).ok()?;
    let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(own.to_string_lossy() == host)
}
