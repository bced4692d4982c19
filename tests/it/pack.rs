//! The fixture packs, checked as by a pack author: their answers, and lint without a finding.

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use svp::error::Result;
use svp::pack::{Answers, Key, PREFIX, Pack, RawAnswer, Severity, lint, query};

fn packs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packs")
}

/// Returns the packs of `make services`.
fn service_packs() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/services");
    let entries = std::fs::read_dir(dir).expect("fixtures/services");
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
}

/// Runs `bin/query` without a sandbox: these packs are trusted.
fn ask(pack: &Path, key: Key) -> Result<RawAnswer> {
    let mut command = Command::new(pack.join("bin/query"));
    let output = command.arg(key.as_str()).env_clear().output().expect("bin/query starts");
    Ok(RawAnswer {
        stdout: output.stdout,
        status: output.status.code().expect("no signal"),
        stderr_tail: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn answers(name: &str) -> Answers {
    let pack = packs().join(name);
    query::query_all(&mut |key| ask(&pack, key)).expect("a pack that answers")
}

#[test]
fn every_fixture_is_tested_here() {
    let mut names: Vec<String> = std::fs::read_dir(packs())
        .expect("fixtures/packs")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["hello", "hipache", "mariadb", "postgresql", "redis", "spec-mysql"]);
}

#[rstest]
#[case("hello")]
#[case("hipache")]
#[case("mariadb")]
#[case("postgresql")]
#[case("redis")]
fn lint_finds_nothing_in_a_complete_pack(#[case] name: &str) {
    let pack = packs().join(name);
    assert_eq!(lint(&pack, &mut |key| ask(&pack, key)), []);
}

/// A service needs neither further commands nor a backup of its own.
#[test]
fn lint_finds_no_fault_in_a_service_pack() {
    let packs = service_packs();
    assert_eq!(packs.len(), 14, "{packs:?}");
    for pack in packs {
        let problems = lint(&pack, &mut |key| ask(&pack, key));
        let faults = problems.iter().filter(|problem| problem.severity != Severity::Note);
        assert_eq!(faults.count(), 0, "{}: {problems:?}", pack.display());
    }
}

#[test]
fn the_specifications_pack_lacks_only_optional_parts() {
    let pack = packs().join("spec-mysql");
    let problems = lint(&pack, &mut |key| ask(&pack, key));
    assert!(problems.iter().all(|problem| problem.severity == Severity::Note), "{problems:?}");
}

#[rstest]
#[case("hello", "busybox/1.36", &["HELLO_PASSWORD"], &["8080/tcp"], &[])]
#[case("redis", "debian/12", &["REDIS_PASSWORD"], &["6379/tcp"], &[])]
#[case("mariadb", "debian/12", &["MYSQL_PASSWORD"], &["3306/tcp"], &[])]
#[case("postgresql", "debian/12", &["POSTGRES_PASSWORD"], &["5432/tcp"], &[])]
#[case("hipache", "debian/12", &["REDIS_PASSWORD"], &["8080/tcp", "6379/tcp"], &["hipache", "redis"])]
#[case("spec-mysql", "ubuntu/13.04", &["MYSQL_PASSWORD"], &["3306/tcp"], &[])]
fn the_fixtures_answer(
    #[case] name: &str,
    #[case] os: &str,
    #[case] secrets: &[&str],
    #[case] ports: &[&str],
    #[case] components: &[&str],
) {
    let answers = answers(name);
    assert_eq!(answers.os.to_string(), os);
    assert_eq!(answers.secrets, secrets);
    assert_eq!(answers.components, components);
    let exposed: Vec<String> = answers.exposed_ports().iter().map(ToString::to_string).collect();
    assert_eq!(exposed, ports);
    // Each pack's env has an address, unknown before the service runs.
    let host = answers.env.iter().find(|var| var.name.ends_with("_HOST")).expect("a host");
    assert!(host.needs_ip());
    assert_eq!(host.with_ip("10.0.0.2"), "10.0.0.2");
}

#[test]
fn every_script_is_valid_shell() {
    let mut seen = 0;
    let fixtures = std::fs::read_dir(packs()).expect("fixtures/packs");
    let fixtures = fixtures.map(|pack| pack.expect("an entry").path());
    for pack in fixtures.chain(service_packs()) {
        for dir in ["bin", "lib"] {
            let Ok(entries) = std::fs::read_dir(pack.join(dir)) else { continue };
            for script in entries {
                let script = script.expect("an entry").path();
                let is_sh = script.extension().is_none_or(|extension| extension == "sh");
                if is_sh {
                    let status = Command::new("sh").arg("-n").arg(&script).status().expect("sh");
                    assert!(status.success(), "{}", script.display());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

/// Two clones with different umasks and times have the same digest.
#[test]
fn a_clone_has_the_same_digest() {
    let pack = packs().join("redis");
    let clone = tempfile::tempdir().expect("a directory");
    let script = "umask 077; mkdir \"$1/p\"; cp -R --no-preserve=mode \"$0\"/. \"$1/p\"; chmod 700 \"$1\"/p/bin/*";
    let mut copy = Command::new("sh");
    assert!(
        copy.arg("-c").arg(script).arg(&pack).arg(clone.path()).status().expect("sh").success()
    );
    let mut layer = Vec::new();
    let digest = Pack::open(&pack).and_then(|pack| pack.write_layer(&mut layer, PREFIX)).unwrap();
    let theirs = Pack::open(&clone.path().join("p")).unwrap();
    assert_eq!(theirs.write_layer(&mut std::io::sink(), PREFIX).unwrap(), digest);
}

/// A pack is self-contained: a script that several packs need is a copy in each, and a link out of the pack
/// would lead nowhere in the image.
#[test]
fn the_copies_of_a_shared_script_are_the_same() {
    let redis = std::fs::read_to_string(packs().join("redis/lib/debian.sh")).unwrap();
    let others = ["hipache", "mariadb", "postgresql"].map(|name| packs().join(name));
    for pack in others.into_iter().chain(service_packs()) {
        let copy = std::fs::read_to_string(pack.join("lib/debian.sh")).unwrap();
        assert_eq!(copy, redis, "{}", pack.display());
    }
}
