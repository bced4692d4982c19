//! Decides which network a command or a service gets: a private one, or where this host can't create one, the one that
//! the user has chosen instead.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::own_container::own_container;
use super::resolver::read_bounded;
use crate::config::{Config, Fallback};
use crate::error::{Error, Result};
use crate::progress::{Reporter, ServiceNote, Warning};
use crate::sandbox::programs::{Package, as_root, find_program, install};
use crate::sandbox::spec::Network;
use crate::sandbox::userns::cause::WITHOUT_NO_NEW_PRIVS;

/// Why this host can't create a private network, and how to mend that.
#[derive(Debug)]
pub(crate) struct NotPrivate {
    /// The cause.
    pub(crate) why: String,
    remedy: Option<String>,
}

const TUN: &str = "/dev/net/tun";

/// Returns why this host can't create a private network; `None` if it can.
pub(crate) fn why_not_private() -> Option<NotPrivate> {
    let not =
        |why: &str, remedy: String| Some(NotPrivate { why: why.into(), remedy: Some(remedy) });
    if find_program("pasta").is_none() {
        return not("pasta is not installed (package passt)", install(Package::Passt));
    }
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return not(
            "no_new_privs is set for svp, so pasta gets no privilege",
            WITHOUT_NO_NEW_PRIVS.into(),
        );
    }
    let usable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    let tun = rustix::fs::access(TUN, usable);
    let open_to_all = rustix::fs::stat(TUN).is_ok_and(|stat| stat.st_mode & 0o006 == 0o006);
    // The container's root is not root on the host, so the device must be accessible to all users.
    if tun.is_err() || (rustix::process::geteuid().is_root() && !open_to_all) {
        return match std::path::Path::new(TUN).exists() {
            true => not(
                "/dev/net/tun is not accessible to all users",
                as_root("chmod 666 /dev/net/tun"),
            ),
            false => not(
                "/dev/net/tun is missing",
                format!(
                    "{}; in a container, pass --device {TUN} to its engine",
                    as_root("modprobe tun")
                ),
            ),
        };
    }
    if !has_default_route() && !pasta_needs_no_route() {
        let why = "this host has no default route, and this version of pasta requires one";
        return not(why, "install passt of 2024 or later".into());
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

/// Returns the network to use: the requested one, or what replaces a private one that this host can't create, and
/// reports the replacement.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) with the ways out, if there is no private network and the user has
/// not chosen another; those of reading the configuration.
pub(crate) fn available(wanted: Network, reporter: &dyn Reporter) -> Result<Network> {
    if wanted == Network::Private
        && let Some(why) = why_not_private()
    {
        return instead(why, reporter);
    }
    Ok(wanted)
}

/// As [`available`], after pasta has failed.
pub(in crate::sandbox) fn after_failure(error: &Error, reporter: &dyn Reporter) -> Result<Network> {
    let remedy = error.hint_text().map(str::to_owned);
    instead(NotPrivate { why: error.to_string(), remedy }, reporter)
}

/// Returns what replaces a private network. The host's is never a silent replacement: a script would reach the services
/// on the host's loopback, its abstract sockets and the cloud's metadata.
fn instead(not: NotPrivate, reporter: &dyn Reporter) -> Result<Network> {
    let NotPrivate { why: reason, remedy } = not;
    let config = Config::load()?;
    match config.network_fallback() {
        Some(Fallback::Host) => {
            reporter.note(ServiceNote::HostNetwork { reason }.into());
            return Ok(Network::Host);
        }
        Some(Fallback::None) => {
            reporter.note(ServiceNote::NoNetwork { reason }.into());
            return Ok(Network::None);
        }
        None => {}
    }
    if let Some(evidence) = own_container() {
        reporter.warning(Warning::ContainerNetwork { reason, evidence });
        return Ok(Network::Host);
    }
    let file = match config.path() {
        path if path.as_os_str().is_empty() => "$XDG_CONFIG_HOME/svp/config.toml".to_owned(),
        path => path.display().to_string(),
    };
    let remedy = remedy.map(|remedy| format!("{remedy}; or ")).unwrap_or_default();
    Err(Error::sandbox(format!("no private network: {reason}")).hint(format!(
        "{remedy}choose another network with `--network host`, which reaches all that this host reaches, or \
         `--network none`; or choose it for all commands: [network] fallback = \"host\" or \"none\" in {file}"
    )))
}
