//! Invalid packs, and queries with wrong answers or none.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::e2e::common::{QUERY, build};
use crate::support::TestEnv;

const BUILD: &str = "#!/bin/sh\nexit 0\n";

/// Builds a pack that must be refused with exit code 65; returns svp's message.
#[track_caller]
fn refused(files: &[(&str, &str)]) -> String {
    let env = TestEnv::new();
    env.import_busybox();
    let before = env.ok(["images"]);
    let pack = env.write_pack("pack", files);
    let printed = env.fails(65, build(&pack, "x"));
    assert_eq!(env.ok(["images"]), before);
    env.assert_nothing_left();
    printed
}

/// Builds a pack with this query, which must be refused.
#[track_caller]
fn refused_query(query: &str) -> String {
    refused(&[("bin/query", query), ("bin/build", BUILD)])
}

#[test]
fn a_pack_has_a_query_and_a_build() {
    assert!(refused(&[("bin/build", BUILD)]).contains("bin/query"));
    assert!(refused(&[("bin/query", QUERY)]).contains("bin/build"));
}

#[test]
fn the_scripts_are_executable() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = env.write_pack("pack", &[("bin/query", QUERY), ("bin/build", BUILD)]);
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(pack.join("bin/build"), mode).unwrap();
    let printed = env.fails(65, build(&pack, "x"));
    assert!(printed.contains("bin/build") && printed.contains("chmod +x"), "{printed}");
}

#[test]
fn a_pack_is_a_directory() {
    let env = TestEnv::new();
    env.import_busybox();
    let printed = env.fails(65, build(&env.path("none"), "x"));
    assert!(printed.contains("none"), "{printed}");
}

#[test]
fn garbage_is_refused_and_shown() {
    let printed = refused_query("#!/bin/sh\nprintf '\\001\\377 not an os\\n'\n");
    assert!(printed.contains("os") && printed.contains("bin/query"), "{printed}");
    let printed = refused_query("#!/bin/sh\ncase $1 in os) echo a/b;; env) echo '1X=2';; esac\n");
    assert!(printed.contains("1X=2") && printed.contains("env"), "{printed}");
    let printed =
        refused_query("#!/bin/sh\ncase $1 in os) echo a/b;; env) echo LD_PRELOAD=/x;; esac\n");
    assert!(printed.contains("LD_PRELOAD"), "{printed}");
}

#[test]
fn a_hanging_query_is_killed() {
    let started = Instant::now();
    let printed = refused_query("#!/bin/sh\nsleep 4100\n");
    assert!(printed.contains("bin/query"), "{printed}");
    assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
}

#[test]
fn a_query_that_never_stops_printing_is_killed() {
    let printed = refused_query("#!/bin/sh\nwhile :; do echo os/1; done\n");
    assert!(printed.contains("bin/query"), "{printed}");
}

#[test]
fn the_output_of_a_failing_query_is_ignored() {
    let printed = refused_query("#!/bin/sh\n[ \"$1\" = os ] && echo busybox/1\nexit 1\n");
    assert!(printed.contains("bin/query") && printed.contains("os"), "{printed}");
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_block() {
    let env = TestEnv::new();
    env.import_busybox();
    let query = "#!/bin/sh\n(sleep 4101) &\n[ \"$1\" = os ] && echo busybox/1\nexit 0\n";
    let pack = env.write_pack("pack", &[("bin/query", query), ("bin/build", BUILD)]);
    let started = Instant::now();
    // svp may accept or refuse the answer, but must not wait, and no process may stay.
    let output = crate::support::output(&mut env.svp(build(&pack, "x")));
    assert!(started.elapsed() < Duration::from_secs(90), "took {:?}", started.elapsed());
    assert!([Some(0), Some(65)].contains(&output.status.code()), "{output:?}");
    assert!(crate::support::processes_with("sleep\x004101\0").is_empty());
    env.assert_nothing_left();
}

#[test]
fn a_query_reaches_no_socket_of_the_host() {
    let env = TestEnv::new();
    let socket = env.path("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(env.dir(), everyone).unwrap();
    listener.set_nonblocking(true).unwrap();
    // python3 is on the host, where the query runs before there is an image.
    let query = format!(
        "#!/usr/bin/python3\nimport socket\ntry:\n    s = socket.socket(socket.AF_UNIX)\n    \
         s.connect('{}')\n    print('reached/1')\nexcept OSError:\n    print('refused/1')\n",
        socket.display()
    );
    let pack = env.write_pack("pack", &[("bin/query", &query), ("bin/build", BUILD)]);
    let printed = env.ok(["query", "-b", pack.to_str().unwrap(), "os"]);
    assert_eq!(printed, "refused/1\n");
    let accepted = listener.accept();
    assert!(accepted.is_err(), "the query connected: {accepted:?}");
}

#[test]
fn a_query_sees_no_home_and_no_network() {
    let env = TestEnv::new();
    std::fs::write(env.dir().join("home/key"), "private").unwrap();
    let query = format!(
        "#!/bin/sh\nif [ -e {home}/key ] || [ -e /root/.cargo ] || [ -e /var/lib ] || [ -e /run/lock ]; then echo open/1\n\
         elif [ \"$(wc -l </proc/net/route)\" -gt 1 ]; then echo net/1\nelse echo closed/1; fi\n",
        home = env.dir().join("home").display()
    );
    let pack = env.write_pack("pack", &[("bin/query", &query), ("bin/build", BUILD)]);
    assert_eq!(env.ok(["query", "-b", pack.to_str().unwrap(), "os"]), "closed/1\n");
}

#[test]
fn an_unknown_version_is_refused() {
    let printed = refused_query("#!/bin/sh\ncase $1 in version) echo 7;; os) echo a/b;; esac\n");
    assert!(printed.contains("version") && printed.contains('7'), "{printed}");
}

#[test]
fn an_os_without_an_image_names_the_missing_image() {
    let env = TestEnv::new();
    let query = "#!/bin/sh\n[ \"$1\" = os ] && echo no-such-os/99; exit 0\n";
    let pack = env.write_pack("pack", &[("bin/query", query), ("bin/build", BUILD)]);
    let printed = env.fails(69, ["build", "-b", pack.to_str().unwrap(), "-t", "x"]);
    assert!(printed.contains("docker.io/library/no-such-os:99"), "{printed}");
    env.assert_nothing_left();
}

#[test]
fn a_bad_reference_is_refused_before_any_work() {
    let env = TestEnv::new();
    let pack = env.write_pack("pack", &[("bin/query", QUERY), ("bin/build", BUILD)]);
    for reference in ["UPPER", "a b", "x:", ":y", "x@sha256:12", "../x", ""] {
        let printed = env.fails(2, build(&pack, reference));
        assert!(!printed.is_empty());
    }
    assert!(!env.store().join("tags").read_dir().is_ok_and(|mut dir| dir.next().is_some()));
}

#[test]
fn a_base_that_is_not_in_the_store_is_not_fetched() {
    let env = TestEnv::new();
    let pack = env.write_pack("pack", &[("bin/query", QUERY), ("bin/build", BUILD)]);
    let mut arguments = build(&pack, "x");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = "debian:12";
    let printed = env.fails(65, arguments);
    assert!(printed.contains("debian:12") && printed.contains("docker://"), "{printed}");
}
