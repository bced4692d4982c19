//! Peak memory does not grow with a layer's size.

use crate::e2e::common::pack_with;
use crate::support::{TestEnv, success};

/// The limit in KiB, whatever the size.
const LIMIT: u64 = 64 * 1024;

/// Runs svp under python3, which reports the peak memory of svp and its children; in KiB.
#[track_caller]
fn peak(env: &TestEnv, arguments: &[&str]) -> u64 {
    const MEASURE: &str = "
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)";
    let mut command = env.command("/usr/bin/python3");
    command.args(["-c", MEASURE, env!("CARGO_BIN_EXE_svp")]).args(arguments);
    success(&mut command).trim().parse().expect("a number")
}

/// A layer of 2 GiB of poorly compressible data, written, and read again elsewhere.
#[test]
fn two_gib_are_written_and_unpacked_in_64_mib() {
    let env = TestEnv::new();
    env.import_busybox();
    // The same 8 MiB of noise repeated: no holes, and nothing that gzip could compress away.
    let script = "
        dd if=/dev/urandom of=/noise bs=1M count=8 2>/dev/null
        i=0; while [ $i -lt 256 ]; do cat /noise; i=$((i + 1)); done >/big
        [ $(stat -c %s /big) = 2147483648 ]";
    let pack = pack_with(&env, "pack", script);
    let out = env.path("out");
    let pack = pack.to_str().unwrap();
    let mut build = vec!["build", "-b", pack, "-t", "big", "--base", "busybox"];
    build.extend(["--network", "none", "--oci-dir", out.to_str().unwrap()]);
    let wrote = peak(&env, &build);

    let other = TestEnv::new();
    let nothing = pack_with(&other, "pack", "[ $(stat -c %s /big) = 2147483648 ]");
    let source = format!("oci:{}:big", out.display());
    let nothing = nothing.to_str().unwrap();
    let again = ["build", "-b", nothing, "-t", "again", "--base", &source, "--network", "none"];
    let read = peak(&other, &again);
    assert!(wrote < LIMIT && read < LIMIT, "writing took {wrote} KiB, unpacking {read} KiB");
    // The measurement works: no program needs less.
    assert!(wrote > 1024 && read > 1024, "writing took {wrote} KiB, unpacking {read} KiB");
}
