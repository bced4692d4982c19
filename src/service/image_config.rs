//! Checks what an image's config says of itself, before svp acts on it: the image may be a stranger's.
//!
//! What real images have is accepted and normalised as docker and podman do it. An answer that would break a wall, or
//! that no engine can obey, is refused.

use super::mount::mount_point;
use crate::error::{Error, Result};
use crate::oci::{Config, Transport};
use crate::pack::query::{MAX_LINES, Port, StopSignal};

/// The longest path, as the kernel's PATH_MAX.
const MAX_PATH: usize = 4096;
/// The longest variable: execve(2) takes 128 KiB with the final NUL.
const MAX_VARIABLE: usize = (128 << 10) - 1;
/// The maximum size of all variables together; the kernel's limit for variables and arguments is a little higher.
const MAX_ENVIRONMENT: usize = 1 << 20;
/// The longest user.
const MAX_USER: usize = 256;
/// How many characters of a value an error shows.
const MAX_SHOWN: usize = 60;

/// Checks the config of the image `name`.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) with the field, the value and the reason.
pub(crate) fn check(config: &Config, name: &str) -> Result<()> {
    let bad = |(field, value, why): Fault| {
        let shown: String = value.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
        let more = if value.chars().nth(MAX_SHOWN).is_some() { "…" } else { "" };
        Error::bad_input(format!("{field} \"{shown}\"{more} in the config of {name}: {why}")).hint(
            format!(
                "change {field} with the tool that made the image (`umoci config` and `buildah config` edit a \
                 config), or use another image"
            ),
        )
    };
    let check = || -> Result<(), Fault> {
        let volumes = config.volumes();
        if volumes.len() > MAX_LINES {
            return Err(("Volumes", volumes.len().to_string(), "more than 1000 volumes"));
        }
        for at in volumes {
            check_volume(&at).map_err(|why| ("Volumes", at, why))?;
        }
        if let Some(dir) = config.working_dir() {
            check_working_dir(dir).map_err(|why| ("WorkingDir", dir.to_owned(), why))?;
        }
        if let Some(user) = config.user() {
            check_user(user).map_err(|why| ("User", user.to_owned(), why))?;
        }
        check_env(&config.env())?;
        for port in config.exposed_ports() {
            parse_port(&port).map_err(|why| ("ExposedPorts", port, why))?;
        }
        if let Some(signal) = config.stop_signal() {
            check_stop_signal(signal).map_err(|why| ("StopSignal", signal.to_owned(), why))?;
        }
        Ok(())
    };
    check().map_err(bad)
}

/// A field, its value and what is wrong with it.
type Fault = (&'static str, String, &'static str);

/// A volume of an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ImageVolume {
    /// To be mounted at this path.
    At(String),
    /// Ignored: the path, and the reason.
    Ignored(String, String),
}

/// Returns an image's volumes. Ignores those at paths where svp provides a file system of its own, which images for
/// systemd have, for example.
pub(crate) fn volumes(config: &Config) -> Vec<ImageVolume> {
    let volumes = config.volumes().into_iter();
    let volume = |at: String| {
        if is_provided(&at) {
            return ImageVolume::Ignored(at, "svp provides a file system there".to_owned());
        }
        match mount_point(&at) {
            Ok(at) => ImageVolume::At(at),
            Err(error) => ImageVolume::Ignored(at, error.to_string()),
        }
    };
    volumes.map(volume).collect()
}

/// Returns the ports that an image exposes; without those of protocols that svp can't forward, such as sctp.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if there are too many, or one is invalid.
pub(crate) fn ports(config: &Config) -> Result<Vec<Port>> {
    let mut ports: Vec<Port> = Vec::new();
    for text in config.exposed_ports() {
        let found = parse_port(&text).map_err(|why| {
            Error::bad_input(format!("ExposedPorts {text:?} in the image's config: {why}"))
        })?;
        let Some((numbers, protocol)) = found else { continue };
        for number in numbers {
            let port = Port { number, protocol };
            if !ports.contains(&port) {
                ports.push(port);
            }
            if ports.len() > MAX_LINES {
                return Err(Error::bad_input("the image exposes more than 1000 ports")
                    .hint("let the pack answer `bin/query ports` with those that it listens on"));
            }
        }
    }
    Ok(ports)
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// Whether svp itself mounts a file system at a path.
fn is_provided(path: &str) -> bool {
    let parts: Vec<&str> = parts(path).collect();
    path.starts_with('/')
        && !parts.contains(&"..")
        && matches!(parts[..], ["sys", "fs", "cgroup", ..] | ["dev", "shm" | "mqueue"])
}

fn check_volume(path: &str) -> Result<(), &'static str> {
    check_path(path)?;
    if is_provided(path) {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err("a volume's path must be absolute");
    }
    match parts(path).collect::<Vec<_>>()[..] {
        [] => Err("a volume can't replace the root directory"),
        ["proc" | "sys" | "dev", ..] => Err("a volume can't be where the system's files are"),
        ["service"] | ["service", "bin", ..] => Err("a volume can't hide the pack's scripts"),
        _ if path.contains([':', ',']) => Err("a volume's path can't contain a colon or a comma"),
        _ => Ok(()),
    }
}

/// svp's containers start in /service, but the images that svp builds keep this field for other engines: runc once
/// followed /proc/self/fd/N to a directory of the host. A relative one is relative to the root, as in docker.
fn check_working_dir(path: &str) -> Result<(), &'static str> {
    check_path(path)?;
    match parts(path).collect::<Vec<_>>()[..] {
        ["proc" | "sys", ..] => Err("a working directory can't be where the kernel's files are"),
        ["dev", ref rest @ ..] if !matches!(rest, ["shm", ..]) => {
            Err("a working directory can't be where the devices are")
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() >= MAX_PATH {
        Err("longer than 4095 bytes")
    } else if path.chars().any(char::is_control) {
        Err("has control characters")
    } else if path.split('/').any(|part| part == "..") {
        Err("a path in a config can't contain `..`")
    } else {
        Ok(())
    }
}

/// USER[:GROUP], names or numbers. Whether they exist is seen where they are used.
fn check_user(user: &str) -> Result<(), &'static str> {
    if user.len() > MAX_USER {
        return Err("longer than 256 bytes");
    }
    if user.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("has spaces or control characters");
    }
    if user.matches(':').count() > 1 {
        return Err("not USER or USER:GROUP");
    }
    for name in user.split(':') {
        let digits = name.strip_prefix('-').unwrap_or(name);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        // The highest number means "unchanged" to the kernel.
        if is_number && name.parse::<u32>().map_or(true, |id| id == u32::MAX) {
            return Err("the number is not that of a user or group: 0 to 4294967294");
        }
    }
    Ok(())
}

/// Names may have dots and dashes, as some images have, or be missing; a value may have line ends.
fn check_env(env: &[String]) -> Result<(), Fault> {
    let fault = |variable: &str, why| Err(("Env", variable.to_owned(), why));
    let mut total = 0;
    for variable in env {
        let name = variable.split('=').next().unwrap_or_default();
        total += variable.len() + 1;
        if variable.contains('\0') {
            return fault(variable, "it has a NUL byte: no program can get it");
        }
        if name.chars().any(char::is_control) {
            return fault(variable, "the variable's name has control characters");
        }
        if variable.len() > MAX_VARIABLE {
            return fault(variable, "longer than 128 KiB: no program can get it");
        }
        if total > MAX_ENVIRONMENT {
            return fault(variable, "the variables before it and this one have more than 1 MiB");
        }
    }
    Ok(())
}

/// Parses `NUMBER[-NUMBER][/PROTOCOL]`; `None` for a protocol that svp can't forward.
fn parse_port(
    text: &str,
) -> Result<Option<(std::ops::RangeInclusive<u16>, Transport)>, &'static str> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| digits && *number > 0)
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err("not NUMBER, NUMBER/tcp or NUMBER/udp, 1 to 65535");
    };
    if first > last {
        return Err("the range of ports is empty");
    }
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Some((first..=last, Transport::Tcp))),
        "udp" => Ok(Some((first..=last, Transport::Udp))),
        "sctp" => Ok(None),
        _ => Err("the protocol is not tcp, udp or sctp"),
    }
}

fn check_stop_signal(text: &str) -> Result<(), &'static str> {
    let StopSignal(signal) = text.parse().map_err(|_| "unknown signal")?;
    let suspends = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGCONT];
    if suspends.contains(&signal) {
        return Err("this signal suspends or continues a process, and ends none");
    }
    Ok(())
}

#[cfg(test)]
#[path = "image_config_tests.rs"]
mod tests;
