//! Refuses system calls that no servicepack needs, with EPERM.
//!
//! A second line of defense behind the user namespace and the dropped capabilities, for the parts of the kernel with
//! the most vulnerabilities. The list follows Docker's default profile.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::error::{Error, Result};
use crate::sys::{BpfInstruction, install_seccomp_filter};

const REFUSED: &[i64] = &[
    // The kernel's keyrings are not namespaced.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Loading and tracing kernel code.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_lookup_dcookie,
    // Affecting the whole machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Changing the mount namespace.
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    // Bypasses every other rule here; Docker and containerd disable it too.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// The bit that marks the call numbers of x32. seccomp filters see x32 and x86-64 as one architecture.
const X32: i64 = 0x4000_0000;

/// Installs the filter. Needs CAP_SYS_ADMIN in the user namespace: call it before dropping capabilities.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the kernel rejects it.
pub(in crate::sandbox) fn install() -> Result<()> {
    let programs = programs().map_err(|error| Error::sandbox("seccomp filter").source(error))?;
    let native = programs.iter().map(|program| {
        let native = program.iter();
        native.map(|i| BpfInstruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
    });
    let mut programs: Vec<Vec<BpfInstruction>> = native.collect();
    if cfg!(target_arch = "x86_64") {
        programs.iter_mut().for_each(|program| allow_other_architectures(program));
        programs.push(i386_program());
    }
    for program in programs {
        install_seccomp_filter(&program).map_err(|error| {
            Error::sandbox("the kernel rejects svp's seccomp filter").source(error)
        })?;
    }
    Ok(())
}

/// Returns two filters, because a filter has one errno for all calls that it refuses. The kernel runs both.
fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_unshare, vec![new_user_namespace()?]);
    rules.insert(libc::SYS_clone, vec![new_user_namespace()?]);
    // The same calls by their x32 numbers.
    if cfg!(target_arch = "x86_64") {
        rules.extend(rules.clone().into_iter().map(|(call, rules)| (call | X32, rules)));
    }
    // clone3 passes its flags in memory, which a filter can't read: ENOSYS makes C libraries use clone.
    let clone3 =
        BTreeMap::from([libc::SYS_clone3, libc::SYS_clone3 | X32].map(|call| (call, Vec::new())));
    let compile = |rules, errno: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        let arch = std::env::consts::ARCH.try_into()?;
        let refuse = SeccompAction::Errno(errno as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
    };
    Ok([compile(rules, libc::EPERM)?, compile(clone3, libc::ENOSYS)?])
}

/// The numbers of [`REFUSED`] in 32-bit programs (`asm/unistd_32.h`), and of calls that only these have: stime,
/// umount, vm86, clock_settime64.
const REFUSED_I386: &[u32] = &[
    286, 287, 288, 357, 336, 374, 128, 350, 129, 283, 253, 88, 87, 115, 51, 131, 79, 264, 103, 111,
    342, 21, 52, 217, 346, 430, 431, 432, 433, 429, 428, 442, 425, 426, 427, 25, 22, 113, 166, 404,
];

/// Makes seccompiler's filters allow other architectures instead of killing the process: [`i386_program`] handles
/// 32-bit programs.
fn allow_other_architectures(program: &mut [BpfInstruction]) {
    let kill = program.iter_mut().take(3).find(|i| i.code == RETURN);
    if let Some(kill) = kill {
        kill.k = libc::SECCOMP_RET_ALLOW;
    }
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Returns the rules of [`programs`] for 32-bit programs.
fn i386_program() -> Vec<BpfInstruction> {
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const UNSHARE: u32 = 310;
    const CLONE: u32 = 120;
    const CLONE3: u32 = 435;
    let step = |code: u32, jt, jf, k| BpfInstruction { code: code as u16, jt, jf, k };
    // struct seccomp_data: nr at 0, arch at 4, the first argument at 16.
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |value, yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let answer = |value| step(u32::from(RETURN), 0, 0, value);
    let refuse = |errno: i32| answer(libc::SECCOMP_RET_ERRNO | errno as u32);
    let mut program = vec![load(4), equal(AUDIT_ARCH_I386, 1, 0), answer(libc::SECCOMP_RET_ALLOW)];
    program.push(load(0));
    for &call in REFUSED_I386 {
        program.extend([equal(call, 0, 1), refuse(libc::EPERM)]);
    }
    program.extend([equal(CLONE3, 0, 1), refuse(libc::ENOSYS)]);
    program.extend([equal(UNSHARE, 1, 0), equal(CLONE, 0, 3), load(16)]);
    let has = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    program.extend([step(has, 0, 1, libc::CLONE_NEWUSER as u32), refuse(libc::EPERM)]);
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// Matches calls whose first argument requests a user namespace.
fn new_user_namespace() -> Result<SeccompRule, seccompiler::BackendError> {
    let flag = libc::CLONE_NEWUSER as u64;
    SeccompRule::new(vec![SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )?])
}
