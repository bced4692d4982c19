//! Requests a systemd scope: where systemd runs, it creates the cgroups, for ordinary users too.
//!
//! Calls systemd's busctl, which is installed wherever systemd is: two method calls don't justify a D-Bus
//! library.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::hierarchy::membership;
use super::resources::Resources;
use crate::error::{Error, Result};
use crate::sandbox::programs::{as_root, find_program};
use crate::sandbox::userns::idmap::login_name;
use crate::shell_words::quote;

/// How long to wait for systemd.
const TIMEOUT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(3);

/// Moves a process into a new scope with these limits. systemd removes the scope after its last process has ended.
pub(super) fn start(name: &str, resources: &Resources, process: u32) -> Result<()> {
    // systemd may not have removed the scope of the previous start yet.
    let unit = format!("{name}-{:04x}.scope", rand::random::<u16>());
    let mut properties: Vec<[String; 3]> = vec![
        property("Description", "s", "a service of svp"),
        property("CollectMode", "s", "inactive-or-failed"),
        // Processes can be moved later only into a delegated scope.
        property("Delegate", "b", true),
    ];
    if let Some(memory) = resources.memory {
        properties.push(property("MemoryMax", "t", memory));
        properties.push(property("MemorySwapMax", "t", memory));
    }
    if let Some(milli) = resources.milli_cpus {
        properties.push(property("CPUQuotaPerSecUSec", "t", milli * 1000));
    }
    if let Some(pids) = resources.pids {
        properties.push(property("TasksMax", "t", pids));
    }
    let count = (properties.len() + 1).to_string();
    let pid = process.to_string();
    let head = ["ssa(sv)a(sa(sv))", &unit, "fail", &count, "PIDs", "au", "1", &pid];
    let arguments = head.into_iter().chain(properties.iter().flatten().map(String::as_str));
    call("StartTransientUnit", arguments.chain(["0"]))?;
    // The reply may arrive before the process has been moved.
    let since = Instant::now();
    while !is_in(process, &unit) {
        if since.elapsed() > TIMEOUT {
            return Err(Error::sandbox(format!("systemd did not start {unit}")).hint(
                "look for the reason in `journalctl --user`, or in `journalctl` if you are root",
            ));
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Moves a process into an existing scope.
pub(super) fn attach(unit: &str, process: u32) -> Result<()> {
    call("AttachProcessesToUnit", ["ssau", unit, "", "1", &process.to_string()])
}

fn property(name: &str, kind: &str, value: impl ToString) -> [String; 3] {
    [name.to_owned(), kind.to_owned(), value.to_string()]
}

fn is_in(process: u32, unit: &str) -> bool {
    let within = |line: &str| line.ends_with(unit) || line.contains(&format!("/{unit}/"));
    membership(&process.to_string()).lines().any(within)
}

/// Calls a method of the caller's systemd: the system instance for root, the user instance for others.
fn call<'a>(method: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Error::sandbox("systemd is not running"));
    }
    let program =
        find_program("busctl").ok_or_else(|| Error::sandbox("busctl is not installed"))?;
    let mut command = Command::new(program);
    let uid = rustix::process::getuid();
    if uid.is_root() {
        command.arg("--system");
    } else {
        command.arg("--user");
        let runtime = format!("/run/user/{}", uid.as_raw());
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() && Path::new(&runtime).is_dir() {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
    }
    command.args(["--quiet", "--timeout=5", "call", "org.freedesktop.systemd1"]);
    command.args(["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", method]);
    command.args(arguments).stdin(Stdio::null());
    let failed = |text: String| Error::sandbox(format!("systemd: {text}"));
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error = failed(stderr.trim().to_owned());
    if uid.is_root() {
        return Err(error);
    }
    let name = login_name(uid.as_raw()).unwrap_or_else(|| uid.as_raw().to_string());
    let linger = as_root(&format!("loginctl enable-linger {}", quote(&name)));
    Err(error.hint(format!("log in directly, not with su or sudo, or, {linger}")))
}
