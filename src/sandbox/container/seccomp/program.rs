//! Compiles the table into a program for the kernel: a binary search over ranges of call numbers.
//!
//! The kernel precomputes the calls that such a program allows whatever their arguments, and doesn't run it for them.
//! Numbers of x32, which begin beyond the table, and other architectures get ENOSYS.

use super::calls::{Answer, Answers, Condition, NATIVE, NATIVE_ANSWERS, UNKNOWN};
use crate::sys::BpfInstruction;

/// Offsets in struct seccomp_data, and of the lower half of the first argument on a little-endian machine.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Returns the filter.
pub(super) fn build() -> Vec<BpfInstruction> {
    let architectures = NATIVE.iter().zip(&NATIVE_ANSWERS);
    build_for(architectures.map(|(one, answers)| (one.audit, answers)))
}

/// Returns a filter that refuses these calls with ENOSYS and allows all others; numbers of the first and the second
/// architecture of [`NATIVE`].
pub(super) fn build_refusing(calls: [&[u32]; 2]) -> Vec<BpfInstruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for (architecture, calls) in NATIVE.iter().zip(calls) {
        program.push(test(libc::BPF_JEQ, architecture.audit, 1, 0));
        program.extend([skip(2 * calls.len() + 2), load(NUMBER)]);
        for call in calls {
            program.extend([test(libc::BPF_JEQ, *call, 0, 1), refuse(libc::ENOSYS)]);
        }
        program.push(finish(libc::SECCOMP_RET_ALLOW));
    }
    program.push(finish(libc::SECCOMP_RET_ALLOW));
    program
}

/// Returns the filter for programs of these architectures.
pub(super) fn build_for<'a>(
    architectures: impl Iterator<Item = (u32, &'a Answers)>,
) -> Vec<BpfInstruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for (audit, answers) in architectures {
        program.push(test(libc::BPF_JEQ, audit, 1, 0));
        let skipping = program.len();
        program.extend([skip(0), load(NUMBER)]);
        search(&ranges(answers), &mut program);
        program[skipping] = skip(program.len() - skipping - 1);
    }
    decide(UNKNOWN, &mut program);
    program
}

/// Returns the ranges of numbers with the same answer: the first number of each, in ascending order, beginning with 0.
fn ranges(answers: &Answers) -> Vec<(u32, Answer)> {
    let mut far: Vec<(u32, Answer)> = answers.far.iter().flatten().copied().collect();
    far.sort_unstable_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    let mut next = 0;
    let mut add = |number, answer| {
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((number, answer));
        }
    };
    for answer in answers.near {
        add(next, answer);
        next += 1;
    }
    for (number, answer) in far {
        if number > next {
            add(next, UNKNOWN);
        }
        add(number, answer);
        next = number + 1;
    }
    add(next, UNKNOWN);
    ranges
}

/// Adds the decision for the number in the accumulator.
fn search(ranges: &[(u32, Answer)], program: &mut Vec<BpfInstruction>) {
    let (below, from) = ranges.split_at(ranges.len() / 2);
    let (Some((first, _)), false) = (from.first(), below.is_empty()) else {
        return decide(ranges.first().map_or(UNKNOWN, |(_, answer)| *answer), program);
    };
    // The length of the lower half, known once it is added. A conditional jump reaches 255 instructions.
    let jump = program.len();
    program.extend([test(libc::BPF_JGE, *first, 0, 1), skip(0)]);
    search(below, program);
    program[jump + 1] = skip(program.len() - jump - 2);
    search(from, program);
}

fn decide(answer: Answer, program: &mut Vec<BpfInstruction>) {
    let condition = match answer {
        Answer::Allow => return program.push(finish(libc::SECCOMP_RET_ALLOW)),
        Answer::Errno(errno) => return program.push(refuse(errno)),
        Answer::ByArgument(condition) => condition,
    };
    let allow = finish(libc::SECCOMP_RET_ALLOW);
    program.push(load(FIRST_ARGUMENT));
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
