//! Checks whether this host supports private networks.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::resolver::read_bounded;
use crate::progress::{Reporter, ServiceNote};
use crate::sandbox::programs::find_program;
use crate::sandbox::spec::Network;

/// Returns why this host can't create a private network; `None` if it can.
pub(crate) fn why_not_private() -> Option<&'static str> {
    if find_program("pasta").is_none() {
        return Some("pasta is not installed (package passt)");
    }
    let tun = rustix::fs::access(
        "/dev/net/tun",
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    );
    let open_to_all =
        rustix::fs::stat("/dev/net/tun").is_ok_and(|stat| stat.st_mode & 0o006 == 0o006);
    // The container's root is not root on the host, so the device must be accessible to all users.
    if tun.is_err() || (rustix::process::geteuid().is_root() && !open_to_all) {
        return Some(match std::path::Path::new("/dev/net/tun").exists() {
            true => "/dev/net/tun is not accessible to all users (as root: chmod 666 /dev/net/tun)",
            false => {
                "/dev/net/tun is missing (as root: modprobe tun; in a container: its engine's --device)"
            }
        });
    }
    if !has_default_route() && !pasta_needs_no_route() {
        return Some("this host has no default route, and this version of pasta requires one");
    }
    None
}

/// Whether this host has a default route.
fn has_default_route() -> bool {
    let v4 = read_bounded("/proc/net/route");
    let v6 = read_bounded("/proc/net/ipv6_route");
    let mut v4 = v4.lines().filter_map(|line| line.split_whitespace().nth(1));
    let mut v6 = v6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    v4.any(|to| to == "00000000")
        || v6
            .any(|line| line.get(1) == Some(&"00") && line.last().is_some_and(|name| *name != "lo"))
}

/// Whether the host's pasta works without a default route, as versions since 2024 do. Checks for an option that is
/// slightly older than this feature, because Debian's pasta prints no version.
fn pasta_needs_no_route() -> bool {
    static LOCAL: OnceLock<bool> = OnceLock::new();
    *LOCAL.get_or_init(|| {
        let Some(program) = find_program("pasta") else { return false };
        let output = Command::new(program).arg("--help").env_clear().stdin(Stdio::null()).output();
        let lists = |text: &[u8]| String::from_utf8_lossy(text).contains("--map-host-loopback");
        output.is_ok_and(|output| lists(&output.stdout) || lists(&output.stderr))
    })
}

/// Returns the network to use: the host's, with a note, if a private one is not available.
pub(in crate::sandbox) fn available(wanted: Network, reporter: &dyn Reporter) -> Network {
    if wanted == Network::Private
        && let Some(why) = why_not_private()
    {
        reporter.note(ServiceNote::HostNetwork { reason: why.to_string() }.into());
        return Network::Host;
    }
    wanted
}
