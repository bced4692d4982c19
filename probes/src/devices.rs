//! Devices of the host, and device nodes that the container creates.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use crate::attempt::{Answer, Probe, closed, errno, none, open};

/// Devices that lead to the host's memory, disks, kernel or users.
const DEVICES: &[&str] = &[
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/kmsg",
    "/dev/vda",
    "/dev/sda",
    "/dev/nvme0n1",
    "/dev/loop-control",
    "/dev/loop0",
    "/dev/mapper/control",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/vsock",
    "/dev/vhost-net",
    "/dev/net/tun",
    "/dev/uinput",
    "/dev/rtc0",
    "/dev/tty0",
    "/dev/hwrng",
    "/dev/userfaultfd",
    "/dev/cpu/0/msr",
];

/// Nodes to create: name, type, major and minor number.
const NODES: &[(&str, libc::mode_t, u32, u32)] = &[
    ("mem", libc::S_IFCHR, 1, 1),
    ("kmsg", libc::S_IFCHR, 1, 11),
    ("tun", libc::S_IFCHR, 10, 200),
    ("fuse", libc::S_IFCHR, 10, 229),
    ("loop-control", libc::S_IFCHR, 10, 237),
    ("vda", libc::S_IFBLK, 254, 0),
    ("loop0", libc::S_IFBLK, 7, 0),
];

pub fn probes() -> Vec<Probe> {
    let device = |path: &&'static str| {
        let path = *path;
        Probe::new("devices", format!("opens {path}"), move || try_open(path))
    };
    let node = |&(name, kind, major, minor): &(&'static str, libc::mode_t, u32, u32)| {
        Probe::new("devices", format!("creates the node {name} and opens it"), move || {
            let path = format!("{}/svp-probes-{name}", scratch());
            let c_path = CString::new(path.clone()).unwrap_or_default();
            let number = libc::makedev(major, minor);
            // SAFETY: `c_path` lives until the call returns.
            if unsafe { libc::mknod(c_path.as_ptr(), kind | 0o600, number) } != 0 {
                return closed(errno());
            }
            // svp makes an empty file that stands for the device in the layer.
            let is_device = std::fs::metadata(&path).is_ok_and(|meta| meta.rdev() == number);
            let answer = if is_device { try_open(&path) } else { closed("not a device") };
            let _ = std::fs::remove_file(&path);
            answer
        })
    };
    DEVICES.iter().map(device).chain(NODES.iter().map(node)).collect()
}

/// A directory that the container may write to.
fn scratch() -> &'static str {
    let writable = |dir: &&str| {
        let dir = CString::new(*dir).unwrap_or_default();
        // SAFETY: `dir` lives until the call returns.
        unsafe { libc::access(dir.as_ptr(), libc::W_OK) == 0 }
    };
    ["/tmp", "/var/tmp", "/dev/shm", "/run", "/"].into_iter().find(writable).unwrap_or("/tmp")
}

fn try_open(path: &str) -> Answer {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(_) => open("opened"),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => closed("does not exist"),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => none(error),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => none(error),
        Err(error) => closed(error),
    }
}
