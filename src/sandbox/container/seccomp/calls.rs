//! The table of system calls: the answer to each, and its number on each architecture.

/// The answer to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    /// Fails with this errno.
    Errno(i32),
    /// Decided by one argument.
    ByArgument(&'static Condition),
}

/// The condition under which a call is allowed; otherwise it fails with EPERM. It reads the lower half of an argument:
/// the kernel ignores the upper half of all arguments here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The first argument has none of these bits.
    NoBits(u32),
    /// The first argument is none of these values.
    NoneOf(&'static [u32]),
    /// The first argument is one of these values.
    OneOf(&'static [u32]),
}

/// The flags of clone for new namespaces.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
/// For unshare alone: to clone it is a part of the signal's number.
const TIME_NAMESPACE: u32 = 0x80;

/// The calls of the section `[arguments]`.
static BY_ARGUMENT: [(&str, Condition); 4] = [
    ("clone", Condition::NoBits(NAMESPACES)),
    ("unshare", Condition::NoBits(NAMESPACES | TIME_NAMESPACE)),
    // PER_LINUX, PER_LINUX32, both with UNAME26, and the query.
    ("personality", Condition::OneOf(&[0, 8, 0x2_0000, 0x2_0008, u32::MAX])),
    // Neither is namespaced: AF_VSOCK reaches the hypervisor, AF_ALG the kernel's ciphers.
    ("socket", Condition::NoneOf(&[libc::AF_ALG as u32, libc::AF_VSOCK as u32])),
];

/// An architecture of the programs in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// The kernel's AUDIT_ARCH_….
    pub(super) audit: u32,
    /// The column of its numbers in the table.
    column: usize,
}

pub(super) const X86_64: Architecture = Architecture { audit: 0xc000_003e, column: 0 };
pub(super) const I386: Architecture = Architecture { audit: 0x4000_0003, column: 1 };
pub(super) const AARCH64: Architecture = Architecture { audit: 0xc000_00b7, column: 2 };
pub(super) const ARM: Architecture = Architecture { audit: 0x4000_0028, column: 3 };

/// The architectures whose programs a kernel of this one executes.
pub(super) const NATIVE: [Architecture; 2] =
    if cfg!(target_arch = "aarch64") { [AARCH64, ARM] } else { [X86_64, I386] };

/// The table. It is a text, not code, so that it can be compared with a new version of the profile line by line.
const TABLE: &str = include_str!("calls.txt");

/// Returns the answers for an architecture with the calls' names and numbers, in the order of the table. Calls that are
/// missing get ENOSYS.
pub(super) fn answers(
    architecture: Architecture,
) -> impl Iterator<Item = (&'static str, u32, Answer)> {
    let mut section = "";
    TABLE.lines().filter_map(move |line| {
        match line.as_bytes().first()? {
            b'#' => return None,
            b'[' => {
                section = line;
                return None;
            }
            _ => {}
        }
        let mut words = line.split(' ');
        let name = words.next()?;
        let number = words.nth(architecture.column)?.parse().ok()?;
        Some((name, number, answer(section, name)))
    })
}

fn answer(section: &str, name: &str) -> Answer {
    match section {
        "[allow]" => Answer::Allow,
        "[arguments]" => {
            let condition = BY_ARGUMENT.iter().find(|(one, _)| *one == name);
            condition.map_or(Answer::Errno(libc::EPERM), |(_, one)| Answer::ByArgument(one))
        }
        "[EPERM]" | "[EPERM beyond the profile]" => Answer::Errno(libc::EPERM),
        _ => Answer::Errno(libc::ENOSYS),
    }
}
