//! The environment of a script in its container, and the state after an interrupt, through the binary.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{TestEnv, busybox_base, output, run, transcript};

const QUERY: &str = "#!/bin/sh\nif [ \"$1\" = os ]; then echo busybox/1; fi\n";

fn pack(env: &TestEnv, name: &str, script: &str) -> PathBuf {
    let build = format!("#!/bin/sh\n{script}\n");
    env.write_pack(name, &[("bin/query", QUERY), ("bin/build", &build)])
}

fn build<'a>(pack: &'a Path, base: &'a str) -> Vec<&'a str> {
    let pack = pack.to_str().expect("UTF-8");
    vec![
        "--progress",
        "plain",
        "build",
        "-b",
        pack,
        "-t",
        "it",
        "--base",
        base,
        "--network",
        "none",
    ]
}

/// Returns the script's output.
fn lines(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    text.lines().filter_map(|line| line.strip_prefix("  | ")).map(String::from).collect()
}

#[test]
fn a_script_has_default_signals_whatever_the_caller_ignores() {
    let env = TestEnv::new();
    env.import_busybox();
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status\n\
                  sleep 60 & kill -TERM $!; wait $!; echo ended $?";
    let pack = pack(&env, "pack", script);
    let mut shell = env.command("sh");
    shell.args(["-c", "trap '' INT QUIT HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_svp")]);
    shell.args(build(&pack, "busybox"));
    let started = Instant::now();
    let output = output(&mut shell);
    assert!(output.status.success(), "{}", transcript(&shell, &output));
    let lines = lines(&output.stderr);
    let masks: Vec<_> = lines.iter().filter(|line| line.starts_with("Sig")).collect();
    assert_eq!(masks.len(), 2, "{lines:?}");
    for line in masks {
        let mask = line.split_whitespace().last().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        // 32 and 33 are reserved by the C library.
        assert_eq!(mask.expect("a mask") & !(0b11 << 31), 0, "{lines:?}");
    }
    assert!(lines.iter().any(|line| line == "ended 143"), "{lines:?}");
    assert!(started.elapsed() < Duration::from_secs(50));
}

#[test]
fn names_resolve_if_etc_is_a_symlink() {
    let env = TestEnv::new();
    let root = env.path("root");
    fs::create_dir_all(&root).unwrap();
    let (base, root) = (busybox_base(), root.to_str().unwrap().to_owned());
    run("tar", ["-xf", base.to_str().unwrap(), "-C", &root]);
    run("sh", ["-c", "cd $0; mv etc usr/etc; ln -s /bin/../usr/etc etc; chmod 751 usr/etc", &root]);
    let tar = env.path("linked.tar");
    let tar = tar.to_str().unwrap();
    run("tar", ["-cf", tar, "--owner=0", "--group=0", "-C", &root, "."]);
    env.ok(["import", tar, "-t", "linked"]);
    let script = "stat -c %a /etc/ /usr; ls -l /etc; cat /etc/resolv.conf; grep -c svp /etc/hosts\n\
                  echo x >/usr/x";
    let pack = pack(&env, "pack", script);
    let mut arguments = build(&pack, "linked");
    let out = env.path("out");
    arguments.extend(["--oci-dir", out.to_str().unwrap()]);
    let mut svp = env.svp(arguments);
    let output = output(&mut svp);
    assert!(output.status.success(), "{}", transcript(&svp, &output));
    let lines = lines(&output.stderr);
    assert_eq!(lines[..2], ["751", "755"], "{lines:?}");
    assert_eq!(lines.last().unwrap(), "1", "{lines:?}");
    let unpacked = env.path("unpacked");
    env.ok(["unpack", "it", unpacked.to_str().unwrap()]);
    let mut etc: Vec<_> =
        fs::read_dir(unpacked.join("usr/etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
    etc.sort();
    assert_eq!(etc, ["group", "os-release", "passwd"]);
    env.assert_nothing_left();
}

#[test]
fn an_interrupt_cleans_up_although_the_output_is_not_read() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack(&env, "pack", "while :; do echo mkdir -p /x$$; done");
    let mut svp = env.svp(build(&pack, "busybox"));
    // A session of its own, so that only svp gets the signal.
    let mut child =
        svp.stderr(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("  | mkdir") {
        let mut some = [0; 64];
        let length = stderr.read(&mut some).unwrap();
        assert!(length > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&some[..length]));
    }
    // By now the pipe is full.
    std::thread::sleep(Duration::from_millis(500));
    run("kill", ["-INT", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    env.assert_nothing_left();
}

#[test]
fn layers_left_by_one_removal_go_with_the_next() {
    let env = TestEnv::new();
    env.import_busybox();
    let quick = pack(&env, "quick", "echo x >/x");
    env.ok(build(&quick, "busybox"));
    let slow = pack(&env, "slow", "sleep 60");
    // Unpack the built image too.
    let mut on_it = build(&slow, "it");
    on_it[6] = "other";
    let mut child = env.svp(on_it).stderr(Stdio::null()).spawn().unwrap();
    let layers = || {
        let trees = env.store().join("trees");
        let maps = fs::read_dir(trees).unwrap().map(|map| map.unwrap().path().join("layers"));
        maps.map(|dir| fs::read_dir(dir).unwrap().count()).sum::<usize>()
    };
    let started = Instant::now();
    while layers() < 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "{} layers", layers());
        std::thread::sleep(Duration::from_millis(50));
    }
    env.ok(["rmi", "it"]);
    run("kill", ["-TERM", &child.id().to_string()]);
    child.wait().unwrap();
    assert_eq!(layers(), 3);
    env.ok(["rmi", "busybox"]);
    assert_eq!(layers(), 0);
    env.assert_nothing_left();
}

/// A static 32-bit program that makes system calls, given their numbers and first arguments, and exits with -errno of
/// the last one.
#[cfg(target_arch = "x86_64")]
fn i386_program(calls: &[(u32, u32)]) -> Vec<u8> {
    let mut code = Vec::new();
    for (number, argument) in calls {
        code.push(0xb8);
        code.extend(number.to_le_bytes());
        code.push(0xbb);
        code.extend(argument.to_le_bytes());
        // xor ecx, ecx; xor edx, edx; int 0x80
        code.extend([0x31, 0xc9, 0x31, 0xd2, 0xcd, 0x80]);
    }
    // mov ebx, eax; neg ebx; mov eax, 1 (exit); int 0x80
    code.extend([0x89, 0xc3, 0xf7, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let (base, header) = (0x0804_8000u32, 84u32);
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    let short = |n: u16| n.to_le_bytes().to_vec();
    let word = |n: u32| n.to_le_bytes().to_vec();
    let size = header + code.len() as u32;
    let fields = [short(2), short(3), word(1), word(base + header), word(52), word(0), word(0)];
    elf.extend(fields.concat());
    elf.extend([52, 32, 1, 0, 0, 0].map(short).concat());
    elf.extend([1, 0, base, base, size, size, 5, 4096].map(word).concat());
    elf.extend(code);
    elf
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_system_call_filter_applies_to_32_bit_programs() {
    let env = TestEnv::new();
    env.import_busybox();
    // getpid, unshare(0) and personality(0), which are allowed; bpf; unshare(CLONE_NEWUSER); mount; clone3; add_key;
    // personality(ADDR_NO_RANDOMIZE); socket(AF_VSOCK); a number that no kernel has.
    let programs: [(&str, &[(u32, u32)], i32); 9] = [
        ("nothing", &[(20, 0), (310, 0), (136, 0)], 0),
        ("bpf", &[(357, 0)], 1),
        ("namespace", &[(310, 0x1000_0000)], 1),
        ("mount", &[(21, 0)], 1),
        ("clone3", &[(435, 0)], 38),
        ("add_key", &[(286, 0)], 38),
        ("personality", &[(136, 0x4_0000)], 1),
        ("vsock", &[(359, 40)], 1),
        ("unknown", &[(2000, 0)], 38),
    ];
    let names = programs.map(|(name, ..)| name).join(" ");
    let pack = pack(&env, "pack", &format!("for p in {names}; do ./bin/$p; echo $p $?; done"));
    for (name, calls, _) in programs {
        let file = pack.join("bin").join(name);
        fs::write(&file, i386_program(calls)).unwrap();
        run("chmod", ["755", file.to_str().unwrap()]);
    }
    // Prints a note if this machine's kernel runs no 32-bit programs.
    run(pack.join("bin/nothing").to_str().unwrap(), [""; 0]);
    let mut svp = env.svp(build(&pack, "busybox"));
    let output = output(&mut svp);
    assert!(output.status.success(), "{}", transcript(&svp, &output));
    let expected: Vec<_> = programs.map(|(name, _, code)| format!("{name} {code}")).into();
    assert_eq!(lines(&output.stderr), expected);
}
