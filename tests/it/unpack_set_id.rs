//! setuid programs that `svp unpack` leaves on the host.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use svp::layer::entry::{Entry, EntryKind};
use svp::layer::meta::IdRanges;
use svp::layer::unpack::{Loss, Mode, UnpackOptions, unpack_layer};

use crate::layer_common::{Lab, inside, open, tar};
use crate::support::ordinary_user::OrdinaryUser;
use crate::support::{TestEnv, as_root, output, success};

/// Saves an image with set-id programs, copies of the host's `id`, as a layout in `env`; returns its name for svp.
fn image(env: &TestEnv) -> String {
    env.import_busybox();
    let query = "#!/bin/sh\n[ $1 != os ] || echo busybox/1\n";
    let build = "#!/bin/sh
        set -e
        mkdir -m 2755 /programs
        cd /programs
        for mode in 4755 2755 6755 755; do cp /service/id id-$mode; chmod $mode id-$mode; done
        ln id-4755 linked
        mkdir /replaced; cp id-4755 /replaced; chmod 4755 /replaced/id-4755\n";
    let pack = env.write_pack("pack", &[("bin/query", query), ("bin/build", build)]);
    fs::copy("/usr/bin/id", pack.join("id")).unwrap();
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "x", "--base", "busybox", "--network", "none"]);
    env.ok(["copy", "x", "oci:layout:x"]);
    format!("oci:{}:x", env.path("layout").display())
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// The programs, and the modes that they have in the image.
const PROGRAMS: [(&str, u32); 6] = [
    ("programs/id-4755", 0o4755),
    ("programs/id-2755", 0o2755),
    ("programs/id-6755", 0o6755),
    ("programs/id-755", 0o755),
    ("programs/linked", 0o4755),
    ("replaced/id-4755", 0o4755),
];

#[test]
fn root_keeps_set_id_bits_and_others_lose_them_and_are_told() {
    let env = TestEnv::new();
    let source = image(&env);
    // An existing directory, which everyone may enter.
    fs::create_dir(env.path("tree")).unwrap();
    let mut svp = env.svp(["unpack", &source, "tree"]);
    let done = output(&mut svp);
    let printed = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{printed}");
    for (path, meant) in PROGRAMS {
        let expected = if as_root() { meant } else { meant & 0o777 };
        assert_eq!(mode(&env.path("tree").join(path)), expected, "{path}");
    }
    let lines = |text: &str| printed.lines().filter(|line| line.contains(text)).count();
    if as_root() {
        assert_eq!(lines("tree contains setuid or setgid programs"), 1, "{printed}");
        assert_eq!(lines("without setuid"), 0, "{printed}");
    } else {
        assert_eq!(lines("without setuid and setgid (4755)"), 2, "{printed}");
        assert_eq!(lines("\"programs/id-2755\": without setuid and setgid (2755)"), 1, "{printed}");
        assert_eq!(lines("\"programs/id-6755\": without"), 1, "{printed}");
        // A directory's bit passes on its group, and runs nothing.
        assert_eq!(mode(&env.path("tree/programs")), 0o2755);
    }
}

#[test]
fn a_second_user_runs_no_program_as_the_first() {
    // Only root can create users.
    if !as_root() {
        return;
    }
    let env = TestEnv::new();
    let source = image(&env);
    let shared = tempfile::Builder::new().prefix("svp-set-id").tempdir_in("/tmp").unwrap();
    let dir = shared.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_svp"), dir.join("svp")).unwrap();
    let layout = source.trim_start_matches("oci:").trim_end_matches(":x");
    success(Command::new("cp").args(["-r", layout]).arg(dir.join("layout")));
    success(Command::new("chmod").args(["-R", "a+rX"]).arg(dir.join("layout")));
    let (first, second) = (OrdinaryUser::create(), OrdinaryUser::create());
    let as_user = |user: &OrdinaryUser, words: &[&str]| {
        let mut command = Command::new("runuser");
        command.args(["-u", user.name(), "--", "env", "-i", "-C", "/", "PATH=/usr/bin:/bin"]);
        command.arg(format!("HOME=/home/{}", user.name())).args(words);
        success(&mut command)
    };
    let path = |name: &str| dir.join(name).display().to_string();
    as_user(&first, &[&path("svp"), "unpack", &format!("oci:{}:x", path("layout")), &path("tree")]);
    // As the image has it.
    assert_eq!(mode(&dir.join("tree")), 0o755);
    for (program, _) in PROGRAMS {
        for kind in ["-un", "-gn"] {
            let seen = as_user(&second, &[&path(&format!("tree/{program}")), kind]);
            assert_eq!(seen.trim(), second.name(), "{program} {kind}");
        }
    }
}

#[test]
fn privileges_of_files_with_other_owners_are_listed() {
    if !inside("unpack_set_id::privileges_of_files_with_other_owners_are_listed") {
        return;
    }
    let file = |path: &str, mode, uid, gid| {
        let mut entry = Entry::new(path, EntryKind::File, mode);
        (entry.uid, entry.gid) = (uid, gid);
        entry
    };
    let mut capable = file("capable", 0o755, 0, 0);
    // cap_net_raw=ep
    let mut value = vec![1, 0, 0, 2, 0, 0x20];
    value.resize(20, 0);
    capable.xattrs.insert(b"security.capability".to_vec(), value);
    let mut foreign = capable.clone();
    (foreign.path, foreign.uid) = (b"foreign".to_vec(), 1000);
    let setuid = file("a", 0o4755, 1000, 1000);
    let both = file("b", 0o6755, 0, 5000);
    let plain = file("c", 0o755, 1000, 1000);
    let tar = tar(&[setuid, both, plain, capable, foreign].map(|entry| (entry, &b""[..])));
    let mut lab = Lab::new();
    let tree = lab.make_dir();
    let ids = IdRanges::up_to(0);
    let options = UnpackOptions { mode: Mode::Plain, ids, lower: None, drop_set_id: true };
    let report = unpack_layer(&mut &*tar, open(&tree).as_fd(), &options).unwrap();
    let losses = |path: &str| {
        let of_file = report.unmade.iter().filter(|unmade| unmade.path == path.as_bytes());
        of_file.map(|unmade| unmade.loss.clone()).collect::<Vec<_>>()
    };
    let owner = |uid, gid| Loss::Owner { uid, gid };
    assert_eq!(losses("a"), [Loss::SetId { mode: 0o4755 }, owner(1000, 1000)]);
    assert_eq!(losses("b"), [Loss::SetId { mode: 0o6755 }, owner(0, 5000)]);
    assert_eq!(losses("c"), [owner(1000, 1000)]);
    assert_eq!(losses("capable"), [Loss::Capability]);
    assert_eq!(losses("foreign"), [owner(1000, 0), Loss::Capability]);
    assert!(!report.set_id && mode(&tree.join("a")) == 0o755 && mode(&tree.join("b")) == 0o755);
}
