//! System calls that no servicepack has a use for, answered with EPERM.
//!
//! The user namespace and the dropped capabilities are the wall; this is a second one before the parts of
//! the kernel that have been broken most often. The list follows what Docker's default profile refuses.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::error::{Error, Result};
use crate::sys::{BpfInstruction, install_seccomp_filter};

const REFUSED: &[i64] = &[
    // The kernel's keyrings know no namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Code in the kernel, and looking into it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_lookup_dcookie,
    // The machine as a whole.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Around the mount namespace.
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
    // A way around every other rule here, and off in Docker and containerd too.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// The bit that tells x32's numbers from x86-64's own. To a filter both are of one architecture.
const X32: i64 = 0x4000_0000;

/// Installs the filter. Needs CAP_SYS_ADMIN in the user namespace: call before capabilities are dropped.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the kernel refuses it.
pub(super) fn install() -> Result<()> {
    let programs = programs().map_err(|error| Error::sandbox("seccomp filter").source(error))?;
    for program in programs {
        let program: Vec<BpfInstruction> = program
            .iter()
            .map(|i| BpfInstruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
            .collect();
        install_seccomp_filter(&program).map_err(|error| {
            Error::sandbox("the kernel refuses svp's seccomp filter").source(error)
        })?;
    }
    Ok(())
}

/// Two filters, because a filter has one answer for all that it refuses. The kernel asks both.
fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_unshare, vec![new_user_namespace()?]);
    rules.insert(libc::SYS_clone, vec![new_user_namespace()?]);
    // The same calls by the numbers that x86-64's x32 programs have for them.
    if cfg!(target_arch = "x86_64") {
        rules.extend(rules.clone().into_iter().map(|(call, rules)| (call | X32, rules)));
    }
    // clone3 has its flags in memory, where a filter can't look: ENOSYS makes C libraries use clone.
    let clone3 =
        BTreeMap::from([libc::SYS_clone3, libc::SYS_clone3 | X32].map(|call| (call, Vec::new())));
    let compile = |rules, errno: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        let arch = std::env::consts::ARCH.try_into()?;
        let refuse = SeccompAction::Errno(errno as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
    };
    Ok([compile(rules, libc::EPERM)?, compile(clone3, libc::ENOSYS)?])
}

/// Matches calls whose first argument asks for a user namespace.
fn new_user_namespace() -> Result<SeccompRule, seccompiler::BackendError> {
    let flag = libc::CLONE_NEWUSER as u64;
    SeccompRule::new(vec![SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )?])
}
