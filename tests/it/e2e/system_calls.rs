//! System calls made for real in each kind of container, and what the filter answers.

use std::process::Command;

use crate::support::{TestEnv, output, transcript, wait_until};

const CALLS: &str = include_str!("calls.pl");

/// The letters that the script prints.
const DONE: char = '.';
const EPERM: char = 'P';
const ENOSYS: char = 'S';
const EBADF: char = 'B';

/// System calls with arguments, and their results. Without the filter most of those that fail with EPERM succeed, or
/// fail with another errno.
const TABLE: &[(libc::c_long, &[i64], char)] = &[
    (libc::SYS_getppid, &[], DONE),
    (libc::SYS_personality, &[0xffff_ffff], DONE),
    (libc::SYS_personality, &[0x40000], EPERM),
    (libc::SYS_socket, &[libc::AF_UNIX as i64, libc::SOCK_STREAM as i64], DONE),
    (libc::SYS_socket, &[libc::AF_VSOCK as i64, libc::SOCK_STREAM as i64], EPERM),
    (libc::SYS_socket, &[libc::AF_ALG as i64, libc::SOCK_SEQPACKET as i64], EPERM),
    (libc::SYS_unshare, &[0], DONE),
    (libc::SYS_unshare, &[libc::CLONE_FS as i64], DONE),
    (libc::SYS_unshare, &[libc::CLONE_NEWUSER as i64], EPERM),
    (libc::SYS_unshare, &[libc::CLONE_NEWNS as i64 | libc::CLONE_NEWUSER as i64], EPERM),
    (libc::SYS_clone, &[libc::CLONE_NEWUSER as i64 | 17], EPERM),
    (libc::SYS_clone3, &[], ENOSYS),
    (libc::SYS_mount, &[], EPERM),
    (libc::SYS_fsopen, &[], EPERM),
    (libc::SYS_open_tree, &[-1], EPERM),
    (libc::SYS_keyctl, &[6, -3], EPERM),
    (libc::SYS_add_key, &[], ENOSYS),
    (libc::SYS_io_uring_setup, &[1], ENOSYS),
    (libc::SYS_bpf, &[], EPERM),
    (libc::SYS_perf_event_open, &[], EPERM),
    (libc::SYS_userfaultfd, &[-1], EPERM),
    (libc::SYS_kcmp, &[-1, -1, 99], EPERM),
    (libc::SYS_process_madvise, &[-1], EPERM),
    (libc::SYS_pidfd_getfd, &[-1], EPERM),
    (libc::SYS_fanotify_init, &[-1], EPERM),
    (libc::SYS_vmsplice, &[-1], EPERM),
    (libc::SYS_set_mempolicy, &[], EPERM),
    (libc::SYS_quotactl, &[-1], EPERM),
    (libc::SYS_close_range, &[1000, 1001], DONE),
    (libc::SYS_pidfd_send_signal, &[-1], EBADF),
    (libc::SYS_epoll_create1, &[], DONE),
    // Calls that no kernel has, respectively that no profile knows.
    (2000, &[], ENOSYS),
    (libc::SYS_mseal, &[-1, -1, -1], ENOSYS),
];

/// Returns the script's arguments.
fn calls() -> String {
    let text = |(number, arguments, _): &(libc::c_long, &[i64], char)| {
        let all = std::iter::once(*number).chain(arguments.iter().copied());
        all.map(|number| number.to_string()).collect::<Vec<_>>().join(":")
    };
    TABLE.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_results(text: &str) {
    let expected: String = TABLE.iter().map(|(.., result)| *result).collect();
    let Some((_, found)) = text.split_once("calls=") else { panic!("no results in {text}") };
    let wrong: Vec<String> = TABLE
        .iter()
        .zip(found.chars())
        .filter(|((.., expected), found)| expected != found)
        .map(|((number, arguments, expected), found)| {
            format!("call {number}{arguments:?}: {found}, not {expected}")
        })
        .collect();
    assert!(found.starts_with(&expected), "{wrong:#?} in {text}");
}

#[test]
fn the_filter_answers_in_build_query_run_and_exec() {
    let env = TestEnv::new();
    env.import_debian();
    let calls = calls();
    let probe = format!("perl /service/calls.pl {calls}");
    // On the host: the failure shows what the script printed.
    let query = format!("#!/bin/sh\n{probe} >&2\nexit 1\n");
    let files = [("bin/query", &query[..]), ("bin/build", "#!/bin/sh\n"), ("calls.pl", CALLS)];
    let pack = env.write_pack("query", &files);
    let arguments = ["--base", "debian:bookworm", "--network", "none"];
    let building = |pack: &std::path::Path, tag: &str| {
        let pack = pack.to_str().expect("UTF-8");
        let first = ["--progress", "plain", "build", "-b", pack, "-t", tag].map(String::from);
        first.into_iter().chain(arguments.map(String::from)).collect::<Vec<_>>()
    };
    let text = env.fails(65, building(&pack, "query"));
    assert_results(&text);

    let query =
        format!("#!/bin/sh\ncase $1 in os) echo debian/12;; env) echo FOUND=$({probe});; esac\n");
    let script = format!("#!/bin/sh\n{probe}\n");
    let run = format!("#!/bin/sh\n{probe}\nexec sleep 1000\n");
    let files =
        [("bin/query", &query[..]), ("bin/build", &script), ("bin/run", &run), ("calls.pl", CALLS)];
    let pack = env.write_pack("pack", &files);
    assert_results(&stderr(env.svp(building(&pack, "base"))));
    env.ok(["setup", "-i", "base", "-t", "s", "--network", "none"]);
    env.ok(["run", "-d", "s", "--network", "none"]);
    assert_results(&env.ok(["env", "s"]));
    wait_until("the component prints", || env.ok(["logs", "s"]).contains("calls="));
    assert_results(&env.ok(["logs", "s"]));
    let arguments = |user| ["exec", "--user", user, "s", "--", "sh", "-c", &probe];
    assert_results(&env.ok(arguments("0")));
    assert_results(&env.ok(arguments("www-data")));
    env.ok(["rm", "-f", "s"]);
    env.assert_nothing_left();
}

fn stderr(mut command: Command) -> String {
    let output = output(&mut command);
    assert!(output.status.success(), "{}", transcript(&command, &output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}
