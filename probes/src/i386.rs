//! System calls by the numbers of 32-bit programs, which a filter for 64-bit numbers does not see.

use std::arch::asm;

use crate::attempt::{Answer, Probe, closed, judge_error, open};

/// Names, numbers (asm/unistd_32.h) and first three arguments.
const CALLS: &[(&str, i32, [u32; 3])] = &[
    ("keyctl", 288, [0, -3_i32 as u32, 0]),
    ("add_key", 286, [0, 0, 0]),
    ("bpf", 357, [0, 0, 0]),
    ("mount", 21, [0, 0, 0]),
    ("unshare: user", 310, [libc::CLONE_NEWUSER as u32, 0, 0]),
    ("userfaultfd", 374, [0, 0, 0]),
    ("perf_event_open", 336, [0, 0, 0]),
    ("io_uring_setup", 425, [1, 0, 0]),
    ("vm86", 166, [0, 0, 0]),
    ("stime", 25, [0, 0, 0]),
    ("socket: AF_VSOCK", 359, [40, 1, 0]),
];

pub fn probes() -> Vec<Probe> {
    let probe = |&(name, number, arguments): &(&str, i32, [u32; 3])| {
        Probe::new("32-bit system calls", name.to_owned(), move || attempt(number, arguments))
    };
    CALLS.iter().map(probe).collect()
}

fn attempt(number: i32, arguments: [u32; 3]) -> Answer {
    let result = call(number, arguments);
    if result >= 0 {
        return open(format!("returned {result}"));
    }
    let error = std::io::Error::from_raw_os_error(-result);
    match -result {
        libc::EAFNOSUPPORT => closed(error),
        _ => judge_error(&error),
    }
}

fn call(number: i32, [a, b, c]: [u32; 3]) -> i32 {
    let result: i32;
    // SAFETY: the kernel reads its arguments from 32-bit registers and follows no pointer but null. rbx is reserved by
    // the compiler, so it is exchanged and restored.
    unsafe {
        asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) u64::from(a) => _,
            inout("eax") number => result,
            in("ecx") b,
            in("edx") c,
            in("esi") 0,
            in("edi") 0,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    result
}
