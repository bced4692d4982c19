//! Finds why an overlay can't be mounted in the layer store.

use rustix::io::Errno;

use crate::error::Error;
use crate::sandbox::programs::as_root;

/// File systems on which overlayfs has no upper directory, by the number in statfs(2).
const UNFIT: [(u64, &str); 7] = [
    (0x794c_7630, "overlayfs"),
    (0x6969, "NFS"),
    (0x6573_5546, "FUSE"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x4d44, "FAT"),
    (0x0102_1997, "9p"),
];

/// Returns the error for a refused overlay whose upper directory is `upper`.
pub(super) fn no_overlay(errno: Errno, upper: &str) -> Error {
    let refused =
        |why: String| Error::sandbox(format!("can't mount an overlay in the store: {why}"));
    let elsewhere =
        "set SVP_ROOT to a directory on ext4, xfs, btrfs or tmpfs; in a container, on a volume";
    if errno == Errno::NODEV {
        return refused("this kernel has no overlayfs, or has not loaded it".into())
            .hint(as_root("modprobe overlay"));
    }
    let kind = rustix::fs::statfs(upper).map(|found| found.f_type as u64).unwrap_or_default();
    if let Some((_, name)) = UNFIT.iter().find(|(number, _)| *number == kind) {
        return refused(format!("it is on {name}, which can't hold an overlay's files"))
            .hint(elsewhere);
    }
    let release = rustix::system::uname();
    Error::sandbox("can't mount an overlay in the store").source(std::io::Error::from(errno)).hint(
        format!(
            "use Linux 5.11 or later (this is {}), and {elsewhere}",
            release.release().to_string_lossy()
        ),
    )
}
