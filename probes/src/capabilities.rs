//! Capabilities that a container could use against its host.

use crate::attempt::{Probe, closed, none, open};

/// Names and numbers (linux/capability.h).
const DANGEROUS: &[(&str, u32)] = &[
    ("DAC_READ_SEARCH", 2),
    ("LINUX_IMMUTABLE", 9),
    ("NET_BROADCAST", 11),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("IPC_LOCK", 14),
    ("IPC_OWNER", 15),
    ("SYS_MODULE", 16),
    ("SYS_RAWIO", 17),
    ("SYS_PTRACE", 19),
    ("SYS_PACCT", 20),
    ("SYS_ADMIN", 21),
    ("SYS_BOOT", 22),
    ("SYS_NICE", 23),
    ("SYS_RESOURCE", 24),
    ("SYS_TIME", 25),
    ("SYS_TTY_CONFIG", 26),
    ("LEASE", 28),
    ("AUDIT_CONTROL", 30),
    ("MAC_OVERRIDE", 32),
    ("MAC_ADMIN", 33),
    ("SYSLOG", 34),
    ("WAKE_ALARM", 35),
    ("BLOCK_SUSPEND", 36),
    ("AUDIT_READ", 37),
    ("PERFMON", 38),
    ("BPF", 39),
    ("CHECKPOINT_RESTORE", 40),
];

pub fn probes() -> Vec<Probe> {
    let capability = |&(name, number): &(&str, u32)| {
        Probe::new("capabilities", name.to_owned(), move || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let set = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            };
            match (set("CapPrm:"), set("CapBnd:")) {
                (Some(permitted), Some(bounding)) => {
                    let has = |set: u64| set >> number & 1 == 1;
                    // A set-user-ID program obtains what the bounding set has, where such programs work.
                    match (has(permitted), has(bounding)) {
                        (true, _) => open("permitted"),
                        (false, true) if !no_new_privileges(&status) => open("in the bounding set"),
                        _ => closed("dropped"),
                    }
                }
                _ => none("no /proc/self/status"),
            }
        })
    };
    let mut probes: Vec<Probe> = DANGEROUS.iter().map(capability).collect();
    probes.push(Probe::new("capabilities", "a set-user-ID program gains privileges", || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        match no_new_privileges(&status) {
            true => closed("no_new_privs"),
            false => open("NoNewPrivs is 0"),
        }
    }));
    probes.push(Probe::new("capabilities", "no seccomp filter", || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        match status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])) {
            true => closed("filtered"),
            false => open("Seccomp is 0"),
        }
    }));
    probes
}

fn no_new_privileges(status: &str) -> bool {
    status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
}
