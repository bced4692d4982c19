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

/// The answer to calls that are missing in the table.
pub(super) const UNKNOWN: Answer = Answer::Errno(libc::ENOSYS);

/// The numbers of all calls but arm's own are below this.
const NEAR: usize = 512;

/// The answers for an architecture.
pub(super) struct Answers {
    /// By number.
    pub(super) near: [Answer; NEAR],
    /// Those of greater numbers.
    pub(super) far: [Option<(u32, Answer)>; 8],
}

/// The answers for [`NATIVE`], computed by the compiler: each start of a container needs them.
pub(super) static NATIVE_ANSWERS: [Answers; 2] = [answers(NATIVE[0]), answers(NATIVE[1])];

/// Reads the table.
pub(super) const fn answers(architecture: Architecture) -> Answers {
    let mut answers = Answers { near: [UNKNOWN; NEAR], far: [None; 8] };
    let mut far = 0;
    let mut section: &[u8] = b"";
    let mut rest = TABLE.as_bytes();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(find(rest, b'\n'));
        rest = after.split_at(1).1;
        match line.first() {
            None | Some(b'#') => {}
            Some(b'[') => section = line,
            Some(_) => {
                let (name, columns) = line.split_at(find(line, b' '));
                if let Some(number) = number(columns, architecture.column) {
                    let answer = answer(section, name);
                    if (number as usize) < NEAR {
                        answers.near[number as usize] = answer;
                    } else {
                        answers.far[far] = Some((number, answer));
                        far += 1;
                    }
                }
            }
        }
    }
    answers
}

const fn answer(section: &[u8], name: &[u8]) -> Answer {
    match section {
        b"[allow]" => Answer::Allow,
        b"[EPERM]" | b"[EPERM beyond the profile]" => Answer::Errno(libc::EPERM),
        b"[arguments]" => {
            let mut n = 0;
            while !equal(BY_ARGUMENT[n].0.as_bytes(), name) {
                n += 1;
            }
            Answer::ByArgument(&BY_ARGUMENT[n].1)
        }
        _ => UNKNOWN,
    }
}

/// Returns the number in a column; `None` if the architecture does not have the call. Each column begins with a space.
pub(super) const fn number(mut columns: &[u8], column: usize) -> Option<u32> {
    let mut n = 0;
    while n < column {
        columns = columns.split_at(1).1;
        columns = columns.split_at(find(columns, b' ')).1;
        n += 1;
    }
    let (mut number, mut digits) = (0, columns.split_at(1).1);
    while let [digit @ b'0'..=b'9', after @ ..] = digits {
        number = number * 10 + (*digit - b'0') as u32;
        digits = after;
    }
    if columns[1] == b'-' { None } else { Some(number) }
}

/// Returns the position of a byte, or the length.
const fn find(text: &[u8], byte: u8) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != byte {
        at += 1;
    }
    at
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut n = 0;
    while n < a.len() && n < b.len() && a[n] == b[n] {
        n += 1;
    }
    n == a.len() && n == b.len()
}

/// Returns all calls of an architecture: their names and numbers.
#[cfg(test)]
pub(super) fn calls(architecture: Architecture) -> impl Iterator<Item = (&'static str, u32)> {
    let calls = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    calls.filter_map(move |line| {
        let (name, _) = line.split_once(' ')?;
        Some((name, number(&line.as_bytes()[name.len()..], architecture.column)?))
    })
}
