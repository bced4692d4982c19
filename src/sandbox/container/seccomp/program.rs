//! Compiles the table into a program for the kernel: a binary search over ranges of call numbers.
//!
//! The kernel precomputes the calls that such a program allows whatever their arguments, and doesn't run it for them.

use super::calls::{Answer, Architecture, Condition, NATIVE, answers};
use crate::sys::BpfInstruction;

/// The answer to calls that are missing in the table, to x32's numbers, which begin beyond it, and to other
/// architectures.
const UNKNOWN: Answer = Answer::Errno(libc::ENOSYS);

/// Offsets in struct seccomp_data, and of the lower half of the first argument on a little-endian machine.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Returns the filter.
pub(super) fn build() -> Vec<BpfInstruction> {
    build_for(&NATIVE)
}

/// Returns the filter for programs of these architectures.
pub(super) fn build_for(architectures: &[Architecture]) -> Vec<BpfInstruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for architecture in architectures {
        let mut block = vec![load(NUMBER)];
        block.extend(search(&ranges(*architecture)));
        program.extend([test(libc::BPF_JEQ, architecture.audit, 1, 0), skip(block.len())]);
        program.extend(block);
    }
    program.extend(decide(UNKNOWN));
    program
}

/// Returns the ranges of numbers with the same answer: the first number of each, in ascending order, beginning with 0.
fn ranges(architecture: Architecture) -> Vec<(u32, Answer)> {
    let mut calls: Vec<_> = answers(architecture).collect();
    calls.sort_unstable_by_key(|(_, number, _)| *number);
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    let mut next = 0;
    let mut add = |number, answer| {
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((number, answer));
        }
    };
    for (_, number, answer) in calls {
        if number > next {
            add(next, UNKNOWN);
        }
        add(number, answer);
        next = number + 1;
    }
    add(next, UNKNOWN);
    ranges
}

/// Returns the decision for the number in the accumulator.
fn search(ranges: &[(u32, Answer)]) -> Vec<BpfInstruction> {
    if let [(_, answer)] = ranges {
        return decide(*answer);
    }
    let (below, from) = ranges.split_at(ranges.len() / 2);
    let Some((first, _)) = from.first() else { return decide(UNKNOWN) };
    let lower = search(below);
    // A conditional jump reaches 255 instructions.
    let mut program = match u8::try_from(lower.len()) {
        Ok(length) => vec![test(libc::BPF_JGE, *first, length, 0)],
        Err(_) => vec![test(libc::BPF_JGE, *first, 0, 1), skip(lower.len())],
    };
    program.extend(lower);
    program.extend(search(from));
    program
}

fn decide(answer: Answer) -> Vec<BpfInstruction> {
    let condition = match answer {
        Answer::Allow => return vec![finish(libc::SECCOMP_RET_ALLOW)],
        Answer::Errno(errno) => return vec![refuse(errno)],
        Answer::ByArgument(condition) => condition,
    };
    let allow = finish(libc::SECCOMP_RET_ALLOW);
    let mut program = vec![load(FIRST_ARGUMENT)];
    match condition {
        Condition::NoBits(bits) => {
            program.extend([test(libc::BPF_JSET, *bits, 0, 1), refuse(libc::EPERM), allow]);
        }
        Condition::NoneOf(values) => {
            let refused = |value: &u32| [test(libc::BPF_JEQ, *value, 0, 1), refuse(libc::EPERM)];
            program.extend(values.iter().flat_map(refused));
            program.push(allow);
        }
        Condition::OneOf(values) => {
            program.extend(values.iter().flat_map(|v| [test(libc::BPF_JEQ, *v, 0, 1), allow]));
            program.push(refuse(libc::EPERM));
        }
    }
    program
}

fn load(offset: u32) -> BpfInstruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn test(comparison: u32, value: u32, yes: u8, no: u8) -> BpfInstruction {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, yes, no, value)
}

fn skip(instructions: usize) -> BpfInstruction {
    // A program has 4096 instructions at most.
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, instructions as u32)
}

fn refuse(errno: i32) -> BpfInstruction {
    finish(libc::SECCOMP_RET_ERRNO | errno as u32)
}

fn finish(value: u32) -> BpfInstruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> BpfInstruction {
    BpfInstruction { code: code as u16, jt, jf, k }
}
