//! The filter, run by an interpreter, against the profiles of the containers project and of docker.

use std::collections::BTreeMap;

use serde_json::Value;

use super::calls::{AARCH64, ARM, Architecture, I386, NATIVE, X86_64, answers, calls};
use super::program::{build, build_for};
use crate::sandbox::container::capabilities::KEPT;
use crate::sys::BpfInstruction;
use rustix::thread::CapabilitySet;

const CONTAINERS: &str = include_str!("profiles/containers.json");
const DOCKER: &str = include_str!("profiles/docker.json");

/// Calls that svp allows although docker refuses them.
const MORE_THAN_DOCKER: [&str; 2] = ["signal", "unshare"];

/// First arguments that make a difference to some rule, with the second and third where one reads them.
const ARGUMENTS: [u64; 24] = [
    0,
    1,
    2,
    8,
    9,
    16,
    17,
    37,
    38,
    39,
    40,
    41,
    0x80,
    0x200,
    0x400,
    0x2_0000,
    0x200_0000,
    0x400_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
    0x2_0008,
    0x2_0009,
    0xffff_ffff,
];

/// What a program returns to the kernel: the errno, or `None` if it allows the call.
fn run(program: &[BpfInstruction], audit: u32, number: u32, argument: u64) -> Option<i32> {
    let (mut at, mut value) = (0, 0);
    loop {
        let BpfInstruction { code, jt, jf, k } = program[at];
        at += 1;
        let code = u32::from(code);
        let jump = |yes| usize::from(if yes { jt } else { jf });
        match code & 7 {
            libc::BPF_LD => {
                value = match k {
                    0 => number,
                    4 => audit,
                    16 => argument as u32,
                    other => panic!("reads the offset {other}"),
                }
            }
            libc::BPF_JMP => {
                at += match code & 0xf0 {
                    libc::BPF_JA => k as usize,
                    libc::BPF_JEQ => jump(value == k),
                    libc::BPF_JGE => jump(value >= k),
                    libc::BPF_JSET => jump(value & k != 0),
                    other => panic!("unknown jump {other}"),
                }
            }
            libc::BPF_RET if k == libc::SECCOMP_RET_ALLOW => return None,
            libc::BPF_RET => {
                assert_eq!(k & 0xffff_0000, libc::SECCOMP_RET_ERRNO);
                return Some((k & 0xffff) as i32);
            }
            other => panic!("unknown instruction {other}"),
        }
    }
}

fn program_of(architecture: Architecture) -> Vec<BpfInstruction> {
    build_for(std::iter::once((architecture.audit, &answers(architecture))))
}

/// A profile's rules for each call, as they apply to a container with svp's capabilities.
fn rules<'a>(profile: &'a Value, architecture: &str) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let kept = |name: &Value| {
        let name = name.as_str().unwrap().trim_start_matches("CAP_");
        // BPF and PERFMON are younger than the constants of some libraries, and not kept.
        CapabilitySet::from_name(name).is_some_and(|one| KEPT.contains(one))
    };
    let list = |rule: &'a Value, side: &str, what: &str| {
        rule[side][what].as_array().cloned().unwrap_or_default()
    };
    let mut rules: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        let arches = list(rule, "includes", "arches");
        let not_arches = list(rule, "excludes", "arches");
        if (!arches.is_empty() && !arches.contains(&architecture.into()))
            || not_arches.contains(&architecture.into())
            || !list(rule, "includes", "caps").iter().all(kept)
            || list(rule, "excludes", "caps").iter().any(kept)
        {
            continue;
        }
        for name in rule["names"].as_array().unwrap() {
            rules.entry(name.as_str().unwrap()).or_default().push(rule);
        }
    }
    rules
}

/// Returns a profile's answer to a call: the errno, or `None` if it allows the call.
fn decide(profile: &Value, rules: &[&Value], argument: u64) -> Option<i32> {
    let holds = |test: &Value| {
        assert_eq!(test["index"], 0, "only first arguments are compared");
        let value = test["value"].as_u64().unwrap();
        match test["op"].as_str().unwrap() {
            "SCMP_CMP_EQ" => argument == value,
            "SCMP_CMP_NE" => argument != value,
            "SCMP_CMP_LT" => argument < value,
            "SCMP_CMP_GT" => argument > value,
            "SCMP_CMP_MASKED_EQ" => argument & value == test["valueTwo"].as_u64().unwrap_or(0),
            other => panic!("unknown comparison {other}"),
        }
    };
    let matches = |rule: &&&Value| rule["args"].as_array().is_none_or(|all| all.iter().all(holds));
    let errno = |of: &Value, key: &str| of[key].as_i64().unwrap_or(1) as i32;
    match rules.iter().find(matches) {
        None => Some(errno(profile, "defaultErrnoRet")),
        Some(rule) if rule["action"] == "SCMP_ACT_ALLOW" => None,
        Some(rule) => Some(errno(rule, "errnoRet")),
    }
}

/// The architectures with the profiles' name of the machine: a rule for it also applies to its 32-bit programs.
const ARCHITECTURES: [(Architecture, &str); 4] =
    [(X86_64, "amd64"), (I386, "amd64"), (AARCH64, "arm64"), (ARM, "arm64")];

#[test]
fn the_filter_is_the_containers_profile_without_what_docker_refuses() {
    let profiles: [Value; 2] = [CONTAINERS, DOCKER].map(|text| serde_json::from_str(text).unwrap());
    let mut compared = 0;
    for (architecture, arch) in ARCHITECTURES {
        let program = program_of(architecture);
        let [theirs, dockers] = [&profiles[0], &profiles[1]].map(|one| rules(one, arch));
        for (name, number) in calls(architecture) {
            for argument in ARGUMENTS {
                let answer = |profile: &Value, rules: &BTreeMap<&str, Vec<&Value>>| {
                    decide(profile, rules.get(name).map_or(&[], Vec::as_slice), argument)
                };
                let profile = answer(&profiles[0], &theirs);
                let docker = answer(&profiles[1], &dockers);
                let expected = match (profile, docker) {
                    (None, Some(_)) if name == "clone3" => Some(libc::ENOSYS),
                    // The kernel has the call, and callers expect it: ENOSYS would mislead them.
                    (Some(libc::ENOSYS), _) if name == "personality" => Some(libc::EPERM),
                    (None, Some(_)) if name == "unshare" && argument & 0x7e02_0080 == 0 => None,
                    (None, Some(_)) if name == "signal" => None,
                    (None, Some(_)) => Some(libc::EPERM),
                    (profile, _) => profile,
                };
                let ours = run(&program, architecture.audit, number, argument);
                assert_eq!(
                    ours, expected,
                    "{name}({argument:#x}) on {arch}: {profile:?} {docker:?}"
                );
                let explained = MORE_THAN_DOCKER.contains(&name);
                assert!(ours.is_some() || docker.is_none() || explained, "{name} on {arch}");
                compared += 1;
            }
        }
    }
    assert!(compared > 30_000, "compared {compared} calls");
}

#[test]
fn every_number_that_is_not_in_the_table_is_unknown() {
    let program = build();
    assert!(program.len() < 1024, "{} instructions", program.len());
    for architecture in NATIVE {
        let known: BTreeMap<u32, &str> =
            calls(architecture).map(|(name, number)| (number, name)).collect();
        assert_eq!(known.len(), calls(architecture).count(), "a number occurs twice");
        // 0x4000_0000 marks a number of x32.
        let marked = (0..700).map(|number| number | 0x4000_0000);
        for number in (0..700).chain(marked).chain([0x7fff_ffff, 0x8000_0000, u32::MAX]) {
            let ours = run(&program, architecture.audit, number, 0);
            assert!(known.contains_key(&number) || ours == Some(libc::ENOSYS), "{number}");
        }
    }
    // m68k: another architecture.
    assert_eq!(run(&program, 4, 0, 0), Some(libc::ENOSYS));
}

#[test]
fn numbers_are_the_kernels() {
    let native: BTreeMap<&str, i64> =
        calls(NATIVE[0]).map(|(name, number)| (name, i64::from(number))).collect();
    for (name, number) in [
        ("read", libc::SYS_read),
        ("mknodat", libc::SYS_mknodat),
        ("clone", libc::SYS_clone),
        ("unshare", libc::SYS_unshare),
        ("personality", libc::SYS_personality),
        ("socket", libc::SYS_socket),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("seccomp", libc::SYS_seccomp),
        ("execveat", libc::SYS_execveat),
        ("openat2", libc::SYS_openat2),
        ("clone3", libc::SYS_clone3),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("faccessat2", libc::SYS_faccessat2),
        ("memfd_secret", libc::SYS_memfd_secret),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
    ] {
        assert_eq!(native.get(name), Some(&number), "{name}");
    }
    let i386: BTreeMap<&str, u32> = calls(I386).collect();
    for (name, number) in [("read", 3), ("mount", 21), ("clone", 120), ("socketcall", 102)] {
        assert_eq!(i386.get(name), Some(&number), "{name}");
    }
}

/// What the deny-list before the allow-list refused.
#[test]
fn nothing_that_was_refused_is_allowed() {
    let names = "add_key request_key keyctl bpf perf_event_open userfaultfd init_module finit_module \
        delete_module kexec_load kexec_file_load lookup_dcookie reboot swapon swapoff acct quotactl \
        settimeofday clock_settime syslog vhangup open_by_handle_at mount umount2 pivot_root setns fsopen \
        fsconfig fsmount fspick move_mount open_tree mount_setattr io_uring_setup io_uring_enter \
        io_uring_register clone3 stime umount vm86 clock_settime64";
    let refused: Vec<&str> = names.split_whitespace().collect();
    for (architecture, _) in ARCHITECTURES {
        let mut found = 0;
        let program = program_of(architecture);
        for (name, number) in calls(architecture).filter(|(name, _)| refused.contains(name)) {
            assert!(run(&program, architecture.audit, number, 0).is_some(), "{name}");
            found += 1;
        }
        assert!(found >= 36, "{found} of {} names", refused.len());
    }
    let program = build();
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let user = libc::CLONE_NEWUSER as u64;
        // The kernel ignores the upper half of the flags.
        for flags in [user, user | 17, user | 1 << 32, user | libc::CLONE_FS as u64] {
            assert_eq!(run(&program, NATIVE[0].audit, call as u32, flags), Some(libc::EPERM));
        }
    }
}
