//! Files, processes and memory of the host, and the program that plays the host.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use crate::attempt::{Answer, Probe, closed, errno, none, open};
use crate::namespaces::KINDS;

const GROUP: &str = "the host";

/// The name of the process that plays the host.
const PROCESS: &str = "svp-probes-host";

pub fn probes() -> Vec<Probe> {
    vec![
        Probe::new(GROUP, "sees a process of the host", || match host_process() {
            Some(pid) => open(pid),
            None => closed("none in /proc"),
        }),
        Probe::new(GROUP, "may signal a process of the host", || {
            let Some(pid) = host_process() else { return closed("none in /proc") };
            // SAFETY: signal 0 is not delivered.
            match unsafe { libc::kill(pid, 0) } {
                0 => open(pid),
                _ => closed(errno()),
            }
        }),
        Probe::new(GROUP, "attaches to shared memory of the host", || {
            let key = std::env::var("SVP_PROBES_SHM").ok().and_then(|key| key.parse().ok());
            let Some(key) = key else { return none("no host") };
            // SAFETY: a call without pointers.
            match unsafe { libc::shmget(key, 1, 0) } {
                -1 => closed(errno()),
                id => open(id),
            }
        }),
        Probe::new(GROUP, "reads a file of the host by its path", || marker(false, "")),
        Probe::new(GROUP, "writes a file of the host by its path", || marker(true, "")),
        Probe::new(GROUP, "reads a file of the host by /proc/1/root", || {
            marker(false, "/proc/1/root")
        }),
        Probe::new(GROUP, "reads a file of the host by /proc/1/cwd/..", || {
            marker(false, "/proc/1/cwd/../../../../../..")
        }),
        Probe::new(GROUP, "reads a file of the host by ..", || marker(false, "/../../../../../..")),
        Probe::new(GROUP, "has inherited a descriptor", || {
            let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let mut found = String::new();
            for entry in entries {
                let number = entry.file_name().to_string_lossy().parse().unwrap_or(0);
                let Ok(target) = std::fs::read_link(entry.path()) else { continue };
                // The listing itself, the pipe to the parent, and a shell's copies of what it redirected.
                let text = target.to_string_lossy();
                let own =
                    text.starts_with("/proc") || text.contains("pipe:") || text == "/dev/null";
                if number > 2 && !own {
                    let _ = write!(found, "{number}: {} ", target.display());
                }
            }
            if found.is_empty() { closed("only standard ones") } else { open(found) }
        }),
        Probe::new(GROUP, "finds a variable of the host's environment", || {
            let found = |path: PathBuf| {
                let bytes = std::fs::read(path.join("environ")).unwrap_or_default();
                bytes.windows(16).any(|part| part == b"SVP_PROBES_SECRE")
            };
            let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            match processes.map(|entry| entry.path()).find(|path| found(path.clone())) {
                Some(path) => open(path.display()),
                None => closed("none"),
            }
        }),
    ]
}

fn host_process() -> Option<i32> {
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.find(|pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end() == PROCESS
    })
}

fn marker(write: bool, prefix: &str) -> Answer {
    let Ok(path) = std::env::var("SVP_PROBES_MARKER") else { return none("no host") };
    let mut options = std::fs::OpenOptions::new();
    match options.read(!write).append(write).open(format!("{prefix}{path}")) {
        Ok(_) => open("opened"),
        Err(error) => closed(error),
    }
}

/// Plays the host: listens, owns shared memory and a file, writes `DIR/env`, and waits.
pub fn play(dir: &str) {
    if let Err(error) = prepare(Path::new(dir)) {
        eprintln!("svp-probes: {error}");
        std::process::exit(1);
    }
    wait_for_the_end();
}

/// Waits for SIGTERM or SIGINT, then removes the shared memory, which would outlive this process.
fn wait_for_the_end() {
    let mut signal = 0;
    // SAFETY: the set is initialised by sigemptyset; the calls have no other pointers.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::sigwait(&raw const set, &raw mut signal);
        libc::shmctl(libc::shmget(shared_memory_key(), 1, 0), libc::IPC_RMID, std::ptr::null_mut());
    }
}

/// The key of this process's shared memory.
fn shared_memory_key() -> i32 {
    0x5370_0000 | (std::process::id() as i32 & 0xffff)
}

fn prepare(dir: &Path) -> std::io::Result<()> {
    std::fs::write("/proc/self/comm", PROCESS)?;
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let port = tcp.local_addr()?.port();
    let v6 = TcpListener::bind(("::1", port));
    let name = format!("svp-probes-{}", std::process::id());
    let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    let key = shared_memory_key();
    // SAFETY: a call without pointers.
    if unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) } < 0 {
        return Err(errno());
    }
    let marker = dir.join("marker");
    std::fs::write(&marker, "a file of the host\n")?;
    std::os::unix::fs::chown(&marker, None, None)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&marker, mode)?;
    let mut text = format!(
        "SVP_PROBES_PORT={port}\nSVP_PROBES_ABSTRACT={name}\nSVP_PROBES_SHM={key}\n\
         SVP_PROBES_MARKER={}\n",
        marker.display()
    );
    for kind in KINDS {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}"))?;
        let _ = writeln!(text, "SVP_PROBES_NS_{kind}={}", own.display());
    }
    std::fs::write(dir.join("env.new"), text)?;
    std::fs::rename(dir.join("env.new"), dir.join("env"))?;
    // They stay open until this process ends.
    std::mem::forget((tcp, v6, unix));
    Ok(())
}
