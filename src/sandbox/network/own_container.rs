//! Recognises a container that svp itself runs in, as in CI: its network is not the host's.

use std::path::Path;

/// Files that container engines create: docker, podman.
const FILES: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
/// Variables that they set: podman and systemd-nspawn, Kubernetes.
const VARIABLES: [&str; 2] = ["container", "KUBERNETES_SERVICE_HOST"];

/// Returns the evidence that this process runs in an engine's container with a network namespace of its own; `None` if
/// there is none. A container with the host's network (`--network host`, hostNetwork) is not recognised.
pub(super) fn own_container() -> Option<String> {
    if !is_separate_network(Path::new("/proc/sys/net/core")) {
        return None;
    }
    let file = FILES.into_iter().find(|file| Path::new(file).exists());
    let variable = || {
        let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        VARIABLES.into_iter().find(set).map(|name| format!("${name}"))
    };
    file.map(str::to_owned).or_else(variable)
}

/// Whether this network namespace is not the one that the kernel has created at boot. Of the settings in `core`, the
/// kernel shows those of the whole machine, such as `netdev_max_backlog`, in that namespace alone.
fn is_separate_network(core: &Path) -> bool {
    core.join("somaxconn").exists() && !core.join("netdev_max_backlog").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_the_hosts_unless_the_kernel_shows_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        // Without /proc nothing is known.
        assert!(!is_separate_network(&dir.path().join("missing")));
        assert!(!is_separate_network(dir.path()));
        std::fs::write(dir.path().join("somaxconn"), "1").unwrap();
        assert!(is_separate_network(dir.path()));
        std::fs::write(dir.path().join("netdev_max_backlog"), "1").unwrap();
        assert!(!is_separate_network(dir.path()));
    }
}
