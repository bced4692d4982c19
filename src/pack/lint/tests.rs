use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rstest::rstest;

use super::answers::unknown_keys;
use super::*;
use crate::error::{Error, Result};
use crate::pack::query::RawAnswer;
use crate::pack::testing::{dir, pack, write};

/// Runs the script without a sandbox: these tests wrote it.
fn run(dir: &Path, key: Key) -> Result<RawAnswer> {
    let output = Command::new(dir.join("bin/query")).arg(key.as_str()).output().unwrap();
    Ok(RawAnswer {
        stdout: output.stdout,
        status: output.status.code().unwrap_or(255),
        stderr_tail: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn found(dir: &Path) -> Vec<String> {
    lint(dir, &mut |key| run(dir, key)).iter().map(Problem::to_string).collect()
}

/// Creates a complete pack with these additional files.
fn whole(files: &[(&str, &str)]) -> tempfile::TempDir {
    let query = "#!/bin/sh\n[ $1 != os ] || echo debian/12\n[ $1 != ports ] || echo 80\n";
    let dir = pack(&[("bin/query", query)]);
    for script in ["run", "client", "extra", "backup", "restore"] {
        write(dir.path(), &format!("bin/{script}"), "#!/bin/sh\n");
    }
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    dir
}

#[test]
fn a_good_pack_has_no_problems() {
    assert_eq!(found(whole(&[]).path()), [""; 0]);
}

#[test]
fn every_problem_is_found_at_once() {
    let query = "#!/bin/sh\ncase $1 in version) echo 7 ;; os) echo Debian ;;\n\
        secrets) echo A ;; env) printf 'A=1\\nH=%%HOST\\nP=%%IP\\n' ;;\n\
        components) echo x; exit 3 ;; health) echo '' ;; esac\n";
    let dir = dir(&[("bin/query", query), ("bin/run", "echo\n"), ("bin/extra", "#!/bin/sh\r\n")]);
    fs::set_permissions(dir.path().join("bin/extra"), Permissions::from_mode(0o755)).unwrap();
    write(dir.path(), "bin/backup", "#!/no/such\n");
    assert_eq!(
        found(dir.path()),
        [
            "error: bin/build: is missing: every pack needs it",
            "error: bin/run:1: has no #! line that names its interpreter",
            "error: bin/extra:1: ends in CRLF",
            "error: bin/extra:1: has a #! line that ends in CRLF: the kernel makes the CR part of the name",
            "error: bin/query: `bin/query version`, line 1: \"7\": unsupported version of the servicepack API",
            "error: bin/query: `bin/query os`, line 1: \"Debian\": not NAME/VERSION",
            "error: bin/query: `bin/query components` prints \"x\" but exits with 3",
            "error: bin/query: `bin/query env` repeats the secret A",
            "warning: bin/backup:1: its interpreter /no/such is not on this host",
            "warning: bin/backup: there is no bin/restore to read the backup",
            "warning: bin/query: `bin/query env`: H contains %HOST, which svp does not replace",
            "note: bin/client: is missing: `svp client` has nothing to run",
            "note: bin/restore: is missing: `svp restore` accepts only such copies",
            "note: bin/query: `query ports` prints nothing, and no env variable is named PORT or *_PORT",
        ]
    );
}

#[rstest]
#[case(&[("bin/build", "#!/bin/sh\n:\r\n:\r\n")], "error: bin/build:2: ends in CRLF (and 1 more)")]
#[case(&[("lib/x.sh", ":\r\n")], "error: lib/x.sh:1: ends in CRLF")]
#[case(&[("bin/query", "#!/no/sh\n")], "error: bin/query:1: its interpreter /no/sh is not on this host")]
#[case(&[("bin/run", "#!/usr/bin/env no-such-thing\n")], "warning: bin/run:1: its interpreter no-such-thing is not on this host")]
#[case(&[(".svpignore", "/bin/run\n")], "error: .svpignore: excludes bin/run")]
#[case(&[("bin/client", "\x7fELF\x02")], "note: bin/client: is a compiled program, not a script: it runs on one architecture only")]
fn one_problem_is_found(#[case] files: &[(&str, &str)], #[case] expected: &str) {
    assert_eq!(found(whole(files).path()), [expected]);
}

#[test]
fn scripts_that_cannot_start_are_named() {
    let pack = whole(&[]);
    fs::set_permissions(pack.path().join("bin/query"), Permissions::from_mode(0o644)).unwrap();
    let problems = lint(pack.path(), &mut |_| panic!("it can't be started"));
    assert_eq!(problems[0].to_string(), "error: bin/query: is not executable");
    let hint = problems[0].hint.as_deref().unwrap();
    assert_eq!(hint, format!("chmod +x {}", pack.path().join("bin/query").display()));
    assert_eq!(problems.len(), 1);
}

#[test]
fn data_and_links_are_not_checked() {
    let pack = whole(&[("lib/table.csv", "a\r\nb\r\n")]);
    symlink("run", pack.path().join("bin/start")).unwrap();
    symlink("/dev/zero", pack.path().join("bin/zero")).unwrap();
    assert_eq!(found(pack.path()), [""; 0]);
}

#[test]
fn a_missing_pack_is_one_problem() {
    let dir = dir(&[]);
    let problems = lint(&dir.path().join("x"), &mut |_| panic!("there is no script to run"));
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].severity, problems[0].path.as_str()), (Severity::Error, "."));
}

#[test]
fn a_sandbox_that_cannot_be_created_is_reported_once() {
    let pack = whole(&[]);
    let mut queries = 0;
    let problems = lint(pack.path(), &mut |_| {
        queries += 1;
        Err(Error::sandbox("no user namespaces"))
    });
    assert_eq!((queries, problems.len()), (1, 1));
}

#[test]
fn a_fifo_is_reported_without_blocking() {
    let pack = whole(&[]);
    let path = pack.path().join("bin/pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let problems = found(pack.path());
    assert_eq!(problems, [format!("error: .: {} is a fifo", path.display())]);
}

#[rstest]
#[case("%IP", &[])]
#[case("%IPX", &["%IPX"])]
#[case("%HOST:%PORT", &["%HOST", "%PORT"])]
#[case("100%", &[])]
#[case("%d %s %Y %H:%M", &[])]
#[case("a%2Fb%C3%A4%AFX", &[])]
#[case("%Foo", &[])]
fn unknown_placeholders_are_found(#[case] value: &str, #[case] expected: &[&str]) {
    assert_eq!(unknown_keys(value), expected);
}
