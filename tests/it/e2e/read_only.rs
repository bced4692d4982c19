//! Read-only mounts stay so below other mounts: real mounts, made in a mount namespace of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{TestEnv, as_root, success};

const BUILD: &str = "#!/bin/sh\nmkdir -p /data /inner\n";
const RUN: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 1000 & wait\n";

/// Makes the kernel, or an engine's filter, refuse mount_setattr(2) with an errno, and executes the rest of its
/// arguments. Needs CAP_SYS_ADMIN.
const REFUSE: &str = r#"
import ctypes, os, struct, sys
number = {"x86_64": 442, "aarch64": 442}[os.uname().machine]
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | int(sys.argv[1])), (0x06, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
buffer = ctypes.create_string_buffer(code)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:
    sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[2], sys.argv[2:])
"#;

/// Returns a shell that runs `script` in a mount namespace, in which it may mount; for an ordinary user in a user
/// namespace. `svp ` in it is the tested program.
fn shell(env: &TestEnv, script: &str) -> Command {
    let mut command = env.command("unshare");
    if !as_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    let svp = concat!(env!("CARGO_BIN_EXE_svp"), " ");
    let script = format!("set -eu\n{}", script.replace("svp ", svp));
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    command
}

/// Everyone may write, so that only the mount refuses.
fn open_dir(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Mounts on a directory of the host's programs, at two levels and a file.
const OUTER: &str = "
    at=/usr/share
    mount -t tmpfs -o mode=777 outer $at
    mkdir -m 777 $at/one
    mount -t tmpfs -o mode=777 inner $at/one
    mkdir -m 777 $at/one/two
    mount -t tmpfs -o mode=777 innermost $at/one/two
    : >$at/file; chmod 666 $at/file
    mount --bind $at/file $at/file
";

fn query_pack(env: &TestEnv) -> String {
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; env)
        for at in /usr /usr/share /usr/share/one /usr/share/one/two; do
            if (: >$at/probe) 2>/dev/null; then echo \"W$(echo $at | tr / _)=written\"; fi
        done
        if (echo x >/usr/share/file) 2>/dev/null; then echo W_file=written; fi
        echo SEEN=$(ls -d /usr/share/one/two);; esac\n";
    let pack = env.write_pack("probe", &[("bin/query", query), ("bin/build", BUILD)]);
    pack.display().to_string()
}

#[test]
fn a_query_writes_to_no_mount_below_the_hosts_programs() {
    let env = TestEnv::new();
    let pack = query_pack(&env);
    let script = format!("{OUTER} svp query -b {pack} env; ls /usr/share");
    let printed = success(&mut shell(&env, &script));
    assert_eq!(printed, "SEEN=/usr/share/one/two\nfile\none\n");
}

#[test]
fn without_mount_setattr_each_mount_is_remounted() {
    for errno in [libc_errno::ENOSYS, libc_errno::EPERM] {
        let env = TestEnv::new();
        let pack = query_pack(&env);
        fs::write(env.path("refuse.py"), REFUSE).unwrap();
        let script =
            format!("{OUTER} python3 refuse.py {errno} svp query -b {pack} env; ls /usr/share");
        // Python's own files are below /usr/share on no distribution.
        let printed = success(&mut shell(&env, &script));
        assert_eq!(printed, "SEEN=/usr/share/one/two\nfile\none\n");
    }
}

mod libc_errno {
    pub const EPERM: i32 = 1;
    pub const ENOSYS: i32 = 38;
}

#[test]
fn a_read_only_volume_is_read_only_below_its_mounts() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; esac\n";
    let probe = "#!/bin/sh
        for at in /data /data/one /data/one/two /later; do
            if (: >$at/probe) 2>/dev/null; then echo written $at; fi
        done
        if (echo x >/file) 2>/dev/null; then echo written /file; fi
        if (echo x >/data/file) 2>/dev/null; then echo written /data/file; fi
        grep -c ' /data' /proc/self/mountinfo\n";
    let run = RUN.replacen("#!/bin/sh\n", "#!/bin/sh\n/service/bin/probe\n", 1);
    let files =
        [("bin/query", query), ("bin/build", BUILD), ("bin/run", &run), ("bin/probe", probe)];
    let pack = env.write_pack("pack", &files).display().to_string();
    open_dir(&env.path("dir"));
    let dir = env.path("dir").display().to_string();
    let base = crate::support::busybox_base().display().to_string();
    let script = format!(
        "svp import {base} -t busybox >/dev/null
        svp build -b {pack} -t s-base --base busybox --network none >/dev/null
        svp setup -i s-base -t s --network none >/dev/null
        {} mount --make-shared {dir}
        svp run -d --wait --network none -v {dir}:/data:ro -v {dir}/file:/file:ro s >/dev/null
        mkdir -m 777 {dir}/late
        mount -t tmpfs -o mode=777 late {dir}/late
        echo exec; svp exec s -- /service/bin/probe
        echo late; svp exec s -- sh -c '(: >/data/late/probe) 2>/dev/null && echo written || true'
        echo log; svp logs s
        svp rm --force s >/dev/null
        find {dir} -name probe",
        OUTER.replace("/usr/share", &dir)
    );
    let printed = success(&mut shell(&env, &script));
    // dir, one, two and the file.
    assert_eq!(printed, "exec\n4\nlate\nlog\n4\n");
}
