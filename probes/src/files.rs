//! Files of the kernel that reveal or change the host.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use crate::attempt::{Answer, Probe, closed, open};

/// Files to open for writing. Nothing is written.
const WRITE: &[&str] = &[
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/protected_symlinks",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/user/max_user_namespaces",
    "/proc/irq/default_smp_affinity",
    "/proc/mtrr",
    "/sys/power/state",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/module/kernel/parameters/panic",
    "/sys/class/net/lo/mtu",
    "/sys/devices/system/cpu/cpu1/online",
];

/// Files with contents of the host that a container has no use for.
const READ: &[&str] = &[
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/kmsg",
    "/proc/iomem",
    "/proc/kpagecount",
    "/proc/slabinfo",
    "/proc/1/mem",
    "/sys/kernel/notes",
    "/sys/kernel/debug/tracing/trace",
    "/sys/kernel/tracing/trace",
];

/// Directories with such files.
const LIST: &[&str] = &[
    "/proc/acpi",
    "/proc/scsi",
    "/proc/asound",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/fs/bpf",
    "/sys/devices/virtual/powercap",
];

pub fn probes() -> Vec<Probe> {
    let write = WRITE.iter().map(|path| {
        let path = *path;
        Probe::new("kernel files", format!("opens {path} for writing"), move || {
            match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
                Ok(_) => open("opened"),
                Err(error) => closed(error),
            }
        })
    });
    let read = READ.iter().map(|path| {
        let path = *path;
        Probe::new("kernel files", format!("reads {path}"), move || read_some(path))
    });
    let list = LIST.iter().map(|path| {
        let path = *path;
        Probe::new("kernel files", format!("lists {path}"), move || {
            match std::fs::read_dir(path).map(|entries| entries.count()) {
                Ok(0) => closed("empty"),
                Ok(count) => open(format!("{count} entries")),
                Err(error) => closed(error),
            }
        })
    });
    let mut probes: Vec<Probe> = write.chain(read).chain(list).collect();
    probes.push(Probe::new(
        "kernel files",
        "reads the kernel's addresses in /proc/kallsyms",
        || {
            let text = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
            let address = text.split_whitespace().next().unwrap_or("0");
            match address.bytes().all(|byte| byte == b'0') {
                true => closed("zeroes"),
                false => open(address),
            }
        },
    ));
    probes.push(Probe::new("kernel files", "creates a cgroup", || {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
        for root in roots {
            let path = format!("{root}/svp-probes");
            if std::fs::create_dir(&path).is_ok() {
                let _ = std::fs::remove_dir(&path);
                return open(path);
            }
        }
        closed("none can be created")
    }));
    probes.push(Probe::new("kernel files", "opens a release_agent for writing", || {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies {
            let path = hierarchy.path().join("release_agent");
            if OpenOptions::new().write(true).open(&path).is_ok() {
                return open(path.display());
            }
        }
        closed("none")
    }));
    probes.push(Probe::new("kernel files", "lowers its oom_score_adj", || {
        let path = "/proc/self/oom_score_adj";
        let now =
            std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
        match std::fs::write(path, (now.unwrap_or(0) - 1).to_string()) {
            Ok(()) => open("lowered"),
            Err(error) => closed(error),
        }
    }));
    probes
}

fn read_some(path: &str) -> Answer {
    use std::io::Read as _;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut bytes = [0; 16];
    match file.and_then(|mut file| file.read(&mut bytes)) {
        Ok(0) => closed("empty"),
        Ok(_) => open("read"),
        Err(error) => closed(error),
    }
}
