//! Hosts on which a container can't be created: `svp check` and `svp build` report the same cause, and the command of
//! the hint mends it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::common::pack_with;
use crate::support::ordinary_user::OrdinaryUser;
use crate::support::{TestEnv, as_root, output, run, success, transcript};

/// A host with a fault.
struct Host<'a> {
    env: &'a TestEnv,
    pack: PathBuf,
    /// The program that starts the shell, with its arguments.
    around: Vec<&'a str>,
    /// What the shell does before it starts svp.
    setup: String,
}

/// A mount namespace; for an ordinary user in a user namespace, in which the user is root.
fn mounts(more: &[&'static str]) -> Vec<&'static str> {
    let mut around = vec!["unshare", "--mount"];
    if !as_root() {
        around.extend(["--user", "--map-root-user", "--map-auto"]);
    }
    around.extend(more);
    around
}

/// A user namespace, whose limits are its own.
const USERS: [&str; 3] = ["unshare", "--user", "--map-root-user"];

fn prepared() -> TestEnv {
    let env = TestEnv::new();
    env.import_busybox();
    env
}

impl<'a> Host<'a> {
    fn new(env: &'a TestEnv, around: Vec<&'a str>, setup: impl Into<String>) -> Host<'a> {
        let pack = pack_with(env, "pack", "echo built");
        Host { env, pack, around, setup: setup.into() }
    }

    /// Runs a command of the shell on this host; `$SVP` is svp.
    fn shell(&self, command: &str) -> (Output, String) {
        let script = format!("{}\n{command}", self.setup);
        let mut shell: Command = match self.around.split_first() {
            Some((program, arguments)) => {
                let mut around = self.env.command(program);
                around.args(arguments).arg("sh");
                around
            }
            None => self.env.command("sh"),
        };
        shell.args(["-euc", &script]).env("SVP", env!("CARGO_BIN_EXE_svp"));
        let result = output(&mut shell);
        let text = transcript(&shell, &result);
        (result, text)
    }

    fn build(&self) -> String {
        format!(
            "\"$SVP\" build -b {} -t out --base busybox --network none --progress json",
            self.pack.display()
        )
    }

    /// Checks that `check` and `build` report the same cause, which contains `part`; returns the cause and the hint.
    #[track_caller]
    fn fails(&self, part: &str) -> (String, String) {
        let (result, text) = self.shell("\"$SVP\" check --format json");
        assert_eq!(result.status.code(), Some(77), "{text}");
        let all: Value =
            serde_json::from_slice(&result.stdout).unwrap_or_else(|_| panic!("{text}"));
        let failed = |one: &&Value| one["ok"] == false && one["required"] == true;
        let finding =
            all.as_array().unwrap().iter().find(failed).unwrap_or_else(|| panic!("{text}"));
        let (cause, hint) = (finding["detail"].as_str().unwrap(), finding["hint"].as_str());
        let hint = hint.unwrap_or_else(|| panic!("no hint: {text}"));
        let (result, text) = self.shell(&self.build());
        assert!([Some(74), Some(77)].contains(&result.status.code()), "{text}");
        let stderr = String::from_utf8_lossy(&result.stderr).into_owned();
        let error: Value = stderr
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|event| event["event"] == "error")
            .unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            (error["text"].as_str(), error["hint"].as_str()),
            (Some(cause), Some(hint)),
            "{text}"
        );
        assert!(cause.contains(part), "{cause}\n{hint}");
        (cause.to_owned(), hint.to_owned())
    }

    /// Checks that a build succeeds after a command.
    #[track_caller]
    fn mends(&self, command: &str) {
        let (result, text) = self.shell(&format!("{command}\n{}", self.build()));
        assert!(result.status.success(), "{command}: {text}");
        let (result, text) = self.shell(&format!("{command}\n\"$SVP\" check"));
        assert!(result.status.success(), "{command}: {text}");
    }
}

/// Returns the command between backticks.
#[track_caller]
fn command(hint: &str) -> &str {
    hint.split('`').nth(1).unwrap_or_else(|| panic!("no command: {hint}"))
}

#[test]
fn without_proc() {
    let env = prepared();
    let host = Host::new(&env, mounts(&["--pid", "--fork"]), "mount -t tmpfs none /proc");
    let (_, hint) = host.fails("/proc is not mounted");
    host.mends(command(&hint));
}

#[test]
fn with_the_proc_of_another_pid_namespace() {
    let env = prepared();
    // One of svp's PIDs here is that of another process there.
    for setup in ["", "true & true & true & wait"] {
        let host = Host::new(&env, mounts(&["--pid", "--fork"]), setup);
        let (_, hint) = host.fails("/proc is not mounted, or is of another PID namespace");
        assert_eq!(command(&hint), "unshare --mount-proc");
        host.mends("mount -t proc proc /proc");
    }
}

#[test]
fn without_a_user_namespace() {
    let env = prepared();
    let setup = "echo 0 >/proc/sys/user/max_user_namespaces";
    let host = Host::new(&env, USERS.to_vec(), setup);
    let (_, hint) = host.fails("user.max_user_namespaces is 0");
    host.mends(command(&hint));
    // All are used: each sleeping process has one, and so has svp's first.
    let setup = "echo 2 >/proc/sys/user/max_user_namespaces\n\
        for i in 1 2; do unshare --user sleep 30 >/dev/null 2>&1 & done; sleep 1";
    let host = Host::new(&env, USERS.to_vec(), setup);
    let (_, hint) = host.fails("all 2 that user.max_user_namespaces allows");
    assert_eq!(command(&hint), "lsns -t user");
    host.mends(hint.split('`').nth(3).unwrap());
}

#[test]
fn without_a_namespace_of_another_kind() {
    let env = prepared();
    for kind in ["mnt", "pid", "uts", "ipc", "net", "cgroup"] {
        let setup = format!("echo 0 >/proc/sys/user/max_{kind}_namespaces");
        let host = Host::new(&env, USERS.to_vec(), setup);
        let (_, hint) = host.fails(&format!("user.max_{kind}_namespaces allows 0"));
        host.mends(command(&hint));
    }
}

#[test]
fn without_a_namespace_for_a_stage() {
    let env = prepared();
    // Unpacking needs a mount namespace besides that of the user namespace, pasta a PID namespace of its own.
    let setup = "echo 0 >/proc/sys/user/max_mnt_namespaces";
    let unpack = "\"$SVP\" unpack busybox tree";
    let private = Host::new(&env, vec![], "").build().replace("--network none", "--network auto");
    let one = "echo 1 >/proc/sys/user/max_pid_namespaces";
    let reachable = std::path::Path::new("/dev/net/tun").exists();
    for (kind, setup, command) in [("mnt", setup, unpack), ("pid", one, &private)] {
        if kind == "pid" && !reachable {
            continue;
        }
        let host = Host::new(&env, USERS.to_vec(), setup);
        let (result, text) = host.shell(command);
        assert_eq!(result.status.code(), Some(77), "{text}");
        let most = setup.split(' ').nth(1).unwrap();
        assert!(text.contains(&format!("user.max_{kind}_namespaces allows {most}")), "{text}");
        assert!(text.contains(&format!("sysctl -w user.max_{kind}_namespaces=")), "{text}");
    }
}

#[test]
fn in_namespaces_that_are_nested_too_deep() {
    let env = prepared();
    // Each shell starts the next one in a further user namespace, as deep as the kernel allows.
    let setup = "if unshare --user --map-root-user true 2>/dev/null; then\n\
        exec unshare --user --map-root-user sh -euc \"$0\" \"$0\"; fi";
    let host = Host::new(&env, vec!["sh", "-c"], setup);
    let build = host.build();
    for (command, code) in [("\"$SVP\" check", 77), (&*build, 77)] {
        let script = format!("{setup}\nexec {command}");
        let mut shell = env.command("sh");
        shell.args(["-euc", &script, &script]).env("SVP", env!("CARGO_BIN_EXE_svp"));
        let result = output(&mut shell);
        let text = transcript(&shell, &result);
        assert_eq!(result.status.code(), Some(code), "{text}");
        assert!(text.contains("nested 32 deep"), "{text}");
    }
}

#[test]
fn a_read_only_store() {
    let env = prepared();
    let store = env.store().display().to_string();
    let setup = format!("mount --bind {store} {store}; mount -o remount,bind,ro {store}");
    let host = Host::new(&env, mounts(&[]), setup);
    let (cause, hint) = host.fails("Read-only file system");
    assert!(cause.contains(&store) && hint.contains("SVP_ROOT"), "{cause}: {hint}");
    host.mends(command(&hint));
    // A whole file system, and a store that does not exist yet.
    let setup = "mkdir -p \"$HOME/ro\"; mount -t tmpfs -o ro tmpfs \"$HOME/ro\"; export SVP_ROOT=\"$HOME/ro/store\"";
    let host = Host::new(&env, mounts(&[]), setup);
    let (_, hint) = host.fails("Read-only file system");
    let import = "\"$SVP\" import \"$BASE\" -t busybox >&2";
    let base = crate::support::busybox_base();
    host.mends(&format!("{}; BASE={}; {import}", command(&hint), base.display()));
}

#[test]
fn temporary_files_that_cannot_be_created() {
    let env = prepared();
    for (dir, why) in [
        ("/nonexistent", "does not exist"),
        ("/dev/null", "is no directory"),
        ("/proc", "is not writable"),
    ] {
        let host = Host::new(&env, vec![], format!("export TMPDIR={dir}"));
        let (cause, hint) = host.fails("can't create a temporary file in");
        assert!(
            cause.contains(dir) && hint.contains(&format!("TMPDIR is {dir}, which {why}")),
            "{hint}"
        );
        let mend = command(&hint).replace("DIR\0", "").replace("=DIR", "=/var/tmp");
        host.mends(&mend);
    }
    // Read-only, as in a container with --read-only.
    let setup = "mount -t tmpfs -o ro tmpfs \"$TMPDIR\"";
    let host = Host::new(&env, mounts(&[]), setup);
    let (_, hint) =
        host.fails(&format!("can't create a temporary file in {}", env.tmp().display()));
    assert!(hint.contains("mounted read-only"), "{hint}");
}

#[test]
fn a_full_directory_of_temporary_files() {
    let env = prepared();
    let dir = env.tmp().display().to_string();
    // A file of the pack that is larger than a buffer: its writing fails in the middle of the tar.
    for (size, more) in [("16k", 0), ("300k", 1_000_000)] {
        let free = if more == 0 { 0 } else { 200 };
        let setup = format!(
            "mount -t tmpfs -o size={size} tmpfs \"$TMPDIR\"\n\
             head -c {free}000 /dev/zero >\"$TMPDIR/kept\"; cat /dev/zero >\"$TMPDIR/fill\" 2>/dev/null || :\n\
             rm \"$TMPDIR/kept\""
        );
        let host = Host::new(&env, mounts(&[]), setup);
        std::fs::write(host.pack.join("data"), vec![7; more]).unwrap();
        let full = format!("can't write a temporary file in {dir}: No space left");
        let why = format!("TMPDIR is {dir}, which is full");
        if more == 0 {
            let (cause, hint) = host.fails(&full);
            assert!(hint.starts_with(&why) && !hint.contains("svp rm"), "{cause}: {hint}");
            host.mends("export TMPDIR=/var/tmp");
        } else {
            let (result, text) = host.shell(&host.build());
            assert_eq!(result.status.code(), Some(74), "{text}");
            assert!(text.contains(&full) && text.contains(&why), "{text}");
        }
    }
}

#[test]
fn a_store_on_an_overlay() {
    let env = prepared();
    let setup = "d=\"$HOME/ov\"; mkdir -p $d; mount -t tmpfs tmpfs $d; mkdir $d/l $d/u $d/w $d/m\n\
        mount -t overlay -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w overlay $d/m; OLD=$SVP_ROOT\n\
        export SVP_ROOT=$d/m/store; \"$SVP\" import \"$BASE\" -t busybox >/dev/null 2>&1";
    let setup = format!("BASE={}; {setup}", crate::support::busybox_base().display());
    let host = Host::new(&env, mounts(&[]), setup);
    let (_, hint) = host.fails("it is on overlayfs");
    assert!(hint.contains("set SVP_ROOT to"), "{hint}");
    host.mends("export SVP_ROOT=$OLD");
}

#[test]
fn under_a_seccomp_filter_that_refuses_namespaces() {
    // Only root may install one without no_new_privs.
    if !as_root() {
        return;
    }
    let env = prepared();
    // Returns EPERM for unshare and clone with flags of namespaces, as engines' filters do.
    let filter = "import ctypes, os, platform, struct, sys
number = {'x86_64': 272, 'aarch64': 97}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
program = b''.join(struct.pack('HBBI', *one) for one in code)
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack('HxxxxxxP', len(code), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, ctypes.c_char_p(fprog), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
";
    let file = env.path("filter.py");
    std::fs::write(&file, filter).unwrap();
    let host = Host::new(&env, vec!["/usr/bin/python3", file.to_str().unwrap()], "");
    let (_, hint) = host.fails("a seccomp filter around svp forbids it");
    assert!(hint.contains("seccomp=unconfined") && hint.contains("docs/ci.md"), "{hint}");
}

#[test]
fn under_no_new_privs() {
    let env = prepared();
    let host = Host::new(&env, vec!["setpriv", "--no-new-privs"], "");
    if as_root() {
        // Root needs no setuid program, but pasta is one more program that gets no privilege.
        let (result, text) = host.shell("\"$SVP\" check");
        assert_eq!(result.status.code(), Some(77), "{text}");
        assert!(text.contains("FAILED    network"), "{text}");
        assert!(
            text.contains("no_new_privs is set for svp") && text.contains("--network none"),
            "{text}"
        );
        let (result, text) = host.shell(&host.build());
        assert!(result.status.success(), "{text}");
        return;
    }
    let (_, hint) = host.fails("no_new_privs is set for svp");
    assert!(hint.contains("NoNewPrivileges=no") && !hint.contains("/etc/subuid"), "{hint}");
    Host::new(&env, vec![], "").mends("true");
}

#[test]
fn a_helper_without_its_privilege() {
    if as_root() {
        return;
    }
    let env = prepared();
    let bin = env.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["newuidmap", "newgidmap"] {
        let path = bin.join(name);
        std::fs::copy(Path::new("/usr/bin").join(name), &path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let host = Host::new(&env, vec![], format!("PATH={}:$PATH", bin.display()));
    let (_, hint) = host.fails("newuidmap is neither setuid root nor has file capabilities");
    assert_eq!(command(&hint), format!("chmod u+s {}/newuidmap", bin.display()));
}

#[test]
fn a_user_variable_that_names_another_user() {
    let env = prepared();
    for name in ["nobody", "root", "no-such-user"] {
        Host::new(&env, vec![], format!("export USER={name} LOGNAME={name}")).mends("true");
    }
    if !as_root() {
        return;
    }
    // A uid without a name, and the name of a user who has subordinate ids.
    let other = OrdinaryUser::create();
    let dir = tempfile::Builder::new().prefix("svp-causes").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let svp = dir.path().join("svp");
    std::fs::copy(env!("CARGO_BIN_EXE_svp"), &svp).unwrap();
    let mut check = Command::new("setpriv");
    check.args(["--reuid", "58213", "--regid", "58213", "--clear-groups", "env", "-i", "-C", "/"]);
    check.args(["PATH=/usr/bin:/bin".to_owned(), format!("HOME={}", dir.path().display())]);
    check.arg(format!("USER={}", other.name())).arg(&svp).arg("check");
    let text = success(&mut check);
    let said = format!("$USER is {}, but svp goes by the uid 58213", other.name());
    assert!(text.contains("a single user id") && text.contains(&said), "{text}");
    run("rm", ["-rf".as_ref(), dir.path().join("store").as_os_str()]);
}

#[test]
fn a_store_of_another_user() {
    if as_root() {
        return;
    }
    let env = prepared();
    let host = Host::new(
        &env,
        vec![],
        "export SVP_ROOT=/root-only/store; [ -e /root-only ] || SVP_ROOT=/etc/svp-store",
    );
    let (_, hint) = host.fails("Permission denied");
    assert!(hint.contains("belongs to the user 0") && hint.contains("SVP_ROOT"), "{hint}");
}
