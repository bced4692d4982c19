//! System calls that reach parts of the kernel without namespaces, or undo a container's walls.

use crate::attempt::{Answer, Probe, closed, errno, judge, judge_error, open};

const GROUP: &str = "system calls";

/// Calls with constant arguments. Where they are permitted, they change nothing: their arguments are invalid, or set what
/// is set.
fn simple() -> Vec<(&'static str, i64, [i64; 6])> {
    let none = c"".as_ptr() as i64;
    let slash = c"/".as_ptr() as i64;
    let missing = c"/svp-probes-missing".as_ptr() as i64;
    let user = c"user".as_ptr() as i64;
    let name = c"svp-probes".as_ptr() as i64;
    let here = i64::from(libc::AT_FDCWD);
    vec![
        // Keyrings are not namespaced.
        ("add_key", libc::SYS_add_key, [user, name, name, 1, -2, 0]),
        ("request_key", libc::SYS_request_key, [user, name, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0, 0]),
        // Loading and tracing kernel code.
        ("init_module", libc::SYS_init_module, [0, 0, none, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [-1, none, 0, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [name, 0o4000, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0x80, 0, 0]),
        ("kexec_file_load", libc::SYS_kexec_file_load, [-1, -1, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
        ("userfaultfd for user mode", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0, 0, 0, 0]),
        ("fanotify_init by file handles", libc::SYS_fanotify_init, [0x200, 0, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("io_uring_enter", libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0, 0]),
        ("io_uring_register", libc::SYS_io_uring_register, [-1, 0, 0, 0, 0, 0]),
        ("lookup_dcookie", 212, [0, 0, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0, 0]),
        ("process_madvise", libc::SYS_process_madvise, [-1, 0, 0, 0, 0, 0]),
        ("kcmp", libc::SYS_kcmp, [1, 1, 2, 0, 0, 0]),
        // The whole machine.
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [missing, 0, 0, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [missing, 0, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [missing, 0, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0x8000_0100, 0, 0, 0, 0, 0]),
        ("quotactl_fd", libc::SYS_quotactl_fd, [-1, 0x8000_0100, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [0, 0, 0, 0, 0, 0]),
        ("syslog: size", libc::SYS_syslog, [10, 0, 0, 0, 0, 0]),
        ("syslog: bytes to read", libc::SYS_syslog, [9, 0, 0, 0, 0, 0]),
        ("vhangup", libc::SYS_vhangup, [0, 0, 0, 0, 0, 0]),
        ("nfsservctl", libc::SYS_nfsservctl, [0, 0, 0, 0, 0, 0]),
        ("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0]),
        ("ioperm", libc::SYS_ioperm, [0x80, 1, 1, 0, 0, 0]),
        // Obsolete calls: no program needs them.
        ("uselib", libc::SYS_uselib, [missing, 0, 0, 0, 0, 0]),
        ("ustat", libc::SYS_ustat, [0, 0, 0, 0, 0, 0]),
        ("sysfs", libc::SYS_sysfs, [3, 0, 0, 0, 0, 0]),
        ("_sysctl", libc::SYS__sysctl, [0, 0, 0, 0, 0, 0]),
        ("create_module", 174, [0, 0, 0, 0, 0, 0]),
        ("query_module", 178, [0, 0, 0, 0, 0, 0]),
        ("get_kernel_syms", 177, [0, 0, 0, 0, 0, 0]),
        ("afs_syscall", libc::SYS_afs_syscall, [0, 0, 0, 0, 0, 0]),
        ("security", libc::SYS_security, [0, 0, 0, 0, 0, 0]),
        ("vserver", libc::SYS_vserver, [0, 0, 0, 0, 0, 0]),
        // Memory of other nodes and of all processes.
        ("mbind", libc::SYS_mbind, [0, 0, 0, 0, 0, 0]),
        ("set_mempolicy", libc::SYS_set_mempolicy, [0, 0, 0, 0, 0, 0]),
        ("get_mempolicy", libc::SYS_get_mempolicy, [0, 0, 0, 0, 0, 0]),
        ("migrate_pages", libc::SYS_migrate_pages, [0, 0, 0, 0, 0, 0]),
        ("move_pages", libc::SYS_move_pages, [0, 0, 0, 0, 0, 0]),
        // Exploits use these to place code.
        ("personality: READ_IMPLIES_EXEC", libc::SYS_personality, [0x040_0000, 0, 0, 0, 0, 0]),
        ("personality: ADDR_NO_RANDOMIZE", libc::SYS_personality, [0x004_0000, 0, 0, 0, 0, 0]),
        ("personality: MMAP_PAGE_ZERO", libc::SYS_personality, [0x010_0000, 0, 0, 0, 0, 0]),
        // Mounts.
        ("fsopen", libc::SYS_fsopen, [c"tmpfs".as_ptr() as i64, 0, 0, 0, 0, 0]),
        ("fsconfig", libc::SYS_fsconfig, [-1, 0, 0, 0, 0, 0]),
        ("fsmount", libc::SYS_fsmount, [-1, 0, 0, 0, 0, 0]),
        ("fspick", libc::SYS_fspick, [here, slash, 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [here, slash, 1, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [here, slash, here, missing, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [here, slash, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [slash, slash, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0, 0]),
        // Priorities over other containers.
        ("setpriority: -20", libc::SYS_setpriority, [0, 0, -20, 0, 0, 0]),
        ("ioprio_set: real time", libc::SYS_ioprio_set, [1, 0, 0x2000, 0, 0, 0]),
    ]
}

/// `unshare` and `clone` of each namespace.
const NAMESPACES: &[(&str, i32)] = &[
    ("user", libc::CLONE_NEWUSER),
    ("mount", libc::CLONE_NEWNS),
    ("network", libc::CLONE_NEWNET),
    ("PID", libc::CLONE_NEWPID),
    ("UTS", libc::CLONE_NEWUTS),
    ("IPC", libc::CLONE_NEWIPC),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", 0x80),
];

/// Socket families and types without a network namespace, or with a history of holes.
const SOCKETS: &[(&str, i32, i32, i32)] = &[
    ("AF_VSOCK", 40, libc::SOCK_STREAM, 0),
    ("AF_PACKET", 17, libc::SOCK_RAW, 0x0300),
    ("a raw IPv4 socket", libc::AF_INET, libc::SOCK_RAW, 1),
    ("a raw IPv6 socket", libc::AF_INET6, libc::SOCK_RAW, 58),
    ("NETLINK_AUDIT", libc::AF_NETLINK, libc::SOCK_RAW, 9),
];

pub fn probes() -> Vec<Probe> {
    let mut probes: Vec<Probe> = simple()
        .into_iter()
        .map(|(name, number, arguments)| {
            Probe::new(GROUP, name, move || judge(call(number, arguments)))
        })
        .collect();
    for &(name, flag) in NAMESPACES {
        probes.push(Probe::new(GROUP, format!("unshare: {name}"), move || {
            judge(call(libc::SYS_unshare, [i64::from(flag), 0, 0, 0, 0, 0]))
        }));
    }
    probes.push(Probe::new(GROUP, "clone: user", || {
        let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        judge(end_child(call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])))
    }));
    probes.push(Probe::new(GROUP, "clone3: user", || {
        let arguments = [libc::CLONE_NEWUSER as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
        let size = std::mem::size_of_val(&arguments) as i64;
        judge(end_child(call(libc::SYS_clone3, [arguments.as_ptr() as i64, size, 0, 0, 0, 0])))
    }));
    for &(name, family, kind, protocol) in SOCKETS {
        probes.push(Probe::new(GROUP, format!("socket: {name}"), move || {
            // SAFETY: a call without pointers.
            let socket = unsafe { libc::socket(family, kind, protocol) };
            // Profiles answer with EINVAL, too, so that programs take the family for one that the kernel lacks.
            if socket < 0 { closed(errno()) } else { open("a socket") }
        }));
    }
    probes.extend(with_structures());
    probes
}

/// Calls whose arguments are structures.
fn with_structures() -> Vec<Probe> {
    vec![
        Probe::new(GROUP, "bpf: create a map", || {
            let map = [2_u32, 4, 4, 1, 0, 0, 0, 0];
            judge(call(libc::SYS_bpf, [0, map.as_ptr() as i64, 32, 0, 0, 0]))
        }),
        Probe::new(GROUP, "bpf: load a program", || {
            let program = [0_u64; 9];
            judge(call(libc::SYS_bpf, [5, program.as_ptr() as i64, 72, 0, 0, 0]))
        }),
        Probe::new(GROUP, "perf_event_open", || {
            // struct perf_event_attr: type PERF_TYPE_SOFTWARE, size, config PERF_COUNT_SW_CPU_CLOCK.
            let mut attributes = [0_u32; 16];
            (attributes[0], attributes[1]) = (1, 64);
            judge(call(libc::SYS_perf_event_open, [attributes.as_ptr() as i64, 0, -1, -1, 0, 0]))
        }),
        Probe::new(GROUP, "clock_settime", || {
            let mut now = [0_i64; 2];
            call(libc::SYS_clock_gettime, [0, now.as_mut_ptr() as i64, 0, 0, 0, 0]);
            judge(call(libc::SYS_clock_settime, [0, now.as_ptr() as i64, 0, 0, 0, 0]))
        }),
        Probe::new(GROUP, "adjtimex", || {
            // struct timex: modes ADJ_TICK with the tick as it is.
            let mut timex = [0_u64; 26];
            call(libc::SYS_adjtimex, [timex.as_mut_ptr() as i64, 0, 0, 0, 0, 0]);
            timex[0] = 0x4000;
            judge(call(libc::SYS_adjtimex, [timex.as_mut_ptr() as i64, 0, 0, 0, 0, 0]))
        }),
        Probe::new(GROUP, "sethostname", || {
            let mut name = [0_u8; 65];
            // SAFETY: the array has room for the length that is given.
            unsafe { libc::gethostname(name.as_mut_ptr().cast(), 64) };
            let length = name.iter().position(|byte| *byte == 0).unwrap_or(64) as i64;
            judge(call(libc::SYS_sethostname, [name.as_ptr() as i64, length, 0, 0, 0, 0]))
        }),
        Probe::new(GROUP, "setdomainname", || {
            judge(call(libc::SYS_setdomainname, [c"(none)".as_ptr() as i64, 6, 0, 0, 0, 0]))
        }),
        Probe::new(GROUP, "sched_setscheduler: real time", || {
            let parameters = [1_i32];
            judge(call(libc::SYS_sched_setscheduler, [0, 1, parameters.as_ptr() as i64, 0, 0, 0]))
        }),
        Probe::new(GROUP, "open_by_handle_at", || {
            // struct file_handle of the root: 128 bytes for the handle.
            let mut handle = [0_u32; 34];
            let (path, mut mount) = (c"/".as_ptr() as i64, 0_i32);
            handle[0] = 128;
            let here = i64::from(libc::AT_FDCWD);
            let at = handle.as_mut_ptr() as i64;
            call(libc::SYS_name_to_handle_at, [here, path, at, (&raw mut mount) as i64, 0, 0]);
            let root = call(libc::SYS_open, [path, 0, 0, 0, 0, 0]);
            judge(call(libc::SYS_open_by_handle_at, [root, at, 0, 0, 0, 0]))
        }),
        // The kernel checks the right to mount before these arguments.
        Probe::new(GROUP, "mount: a new file system", || {
            let (kind, at) = (c"svp-probes".as_ptr() as i64, c"/proc".as_ptr() as i64);
            judge(call(libc::SYS_mount, [kind, at, kind, 0, 0, 0]))
        }),
        Probe::new(GROUP, "mount: bind", || {
            let (flags, at) = (libc::MS_BIND as i64, c"/proc".as_ptr() as i64);
            let from = c"/svp-probes-missing".as_ptr() as i64;
            judge(call(libc::SYS_mount, [from, at, 0, flags, 0, 0]))
        }),
        Probe::new(GROUP, "mount: make a read-only mount writable", || {
            let flags = (libc::MS_BIND | libc::MS_REMOUNT) as i64;
            judge(call(libc::SYS_mount, [0, c"/proc/self".as_ptr() as i64, 0, flags, 0, 0]))
        }),
        Probe::new(GROUP, "umount2", || {
            let path = c"/proc/self".as_ptr() as i64;
            judge(call(libc::SYS_umount2, [path, i64::from(libc::MNT_DETACH), 0, 0, 0, 0]))
        }),
        Probe::new(GROUP, "ptrace: attach to a process outside of its session", ptrace_parent),
        Probe::new(GROUP, "x32: keyctl by its other number", || {
            judge(call(libc::SYS_keyctl | 0x4000_0000, [0, -3, 0, 0, 0, 0]))
        }),
        Probe::new(GROUP, "x32: unshare by its other number", || {
            let flags = i64::from(libc::CLONE_NEWUSER);
            judge(call(libc::SYS_unshare | 0x4000_0000, [flags, 0, 0, 0, 0, 0]))
        }),
    ]
}

/// Attaches to process 1, if that is a process of the container's runtime: one that this program did not start as.
fn ptrace_parent() -> Answer {
    let own = std::fs::read_link("/proc/self/exe").ok();
    let first = std::fs::read_link("/proc/1/exe").ok();
    let shell = |path: &std::path::Path| path.ends_with("sh") || path.ends_with("busybox");
    if first.is_some() && (first == own || first.as_deref().is_some_and(shell)) {
        return crate::attempt::none("process 1 is the container's own");
    }
    // SAFETY: PTRACE_SEIZE takes no pointers here; the kernel detaches when this process exits.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, 1, 0, 0) } == 0 {
        return open("attached to process 1");
    }
    judge_error(&errno())
}

/// Ends the child that a successful clone has created.
fn end_child(result: i64) -> i64 {
    if result == 0 {
        // SAFETY: this is the child.
        unsafe { libc::_exit(0) };
    }
    result
}

fn call(number: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    // SAFETY: each caller passes pointers that live until the call returns, or invalid ones that the kernel refuses.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}
