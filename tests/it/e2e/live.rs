//! The systemd and quadlet units of `svp export`, run by a booted systemd and by podman 5.
//!
//! Root boots the machine. The tests run as its root and as its ordinary user.

use std::io::Write;

use serde_json::Value;

use crate::e2e::export::{PAIR, TEXT as PAIR_TEXT};
use crate::support::machine::{Machine, User};
use crate::support::{TestEnv, as_root, pack, run};

const USERS: [User; 2] = [User::Root, User::Ann];

/// Creates the service `name` of the pack in the machine, without starting it.
#[track_caller]
fn service(machine: &Machine, user: User, pack: &str, name: &str) {
    machine.ok(
        user,
        &format!(
            "svp import /srv/busybox.tar -t busybox
             svp build -b /srv/{pack} -t {pack} --base busybox --network none
             svp setup -i {pack} -t {name} --network none
             svp run {name} -d --wait && svp stop {name}"
        ),
    );
}

/// Returns the commands in a unit's comments.
fn commands_in_comments(unit: &str) -> String {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("#   "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Writes the service's units to quadlet's directory, and runs the commands that the first of them names.
#[track_caller]
fn quadlet(machine: &Machine, user: User, service: &str) {
    let directory = match user {
        User::Root => "/etc/containers/systemd",
        User::Ann => "~/.config/containers/systemd",
    };
    let files = machine.ok(user, &format!("svp export {service} --format quadlet -o {directory}"));
    let texts = machine.ok(user, &format!("cat {}", files.replace('\n', " ")));
    assert!(texts.contains(&format!("or newer, in {directory}:\n")), "{texts}");
    machine.ok(user, &format!("set -e\n{}", commands_in_comments(&texts)));
}

fn systemctl(user: User) -> &'static str {
    if user == User::Root { "systemctl" } else { "systemctl --user" }
}

#[track_caller]
fn variable(machine: &Machine, user: User, service: &str, name: &str) -> String {
    let variables = machine.ok(user, &format!("svp env {service} --format json"));
    let variables: Value = serde_json::from_str(&variables).unwrap();
    variables[name].as_str().unwrap().to_owned()
}

/// Checks that nothing of a service is left: no process, no port, no mount.
#[track_caller]
fn assert_nothing_left(machine: &Machine, user: User) {
    let of_services = ["httpd", "svp", "pasta", "conmon", "rootlessport"];
    let mut left = machine.processes();
    left.retain(|line| of_services.iter().any(|name| line.contains(name)));
    assert!(left.is_empty(), "{user:?}: {left:?}");
    let left = machine.ok(
        user,
        "ss -Hltn
         grep -E 'svp/trees|overlay-containers' /proc/self/mountinfo || true",
    );
    assert_eq!(left, "", "{user:?}");
}

#[track_caller]
fn unit_of_svp(machine: &Machine, user: User) {
    service(machine, user, "hello", "greeter");
    let directory = match user {
        User::Root => "/etc/systemd/system",
        User::Ann => "~/.config/systemd/user",
    };
    let control = systemctl(user);
    let unit = machine.ok(user, &format!("svp export greeter --format systemd -o {directory}"));
    let unit = machine.ok(user, &format!("cat {unit}"));
    let command = unit.lines().nth(1).unwrap().strip_prefix("# ").unwrap();
    assert!(command.starts_with(control), "{unit}");
    machine.ok(user, command);
    machine.wait_ok(user, "svp health greeter");
    machine.ok(user, &format!("{control} is-active svp-greeter"));
    assert_eq!(machine.ok(user, "svp client greeter"), "hello from the instance of hello\n");
    // httpd logs its replies.
    let journal = "journalctl --no-pager _SYSTEMD_USER_UNIT=svp-greeter.service + \
                   _SYSTEMD_UNIT=svp-greeter.service";
    machine.wait_ok(user, &format!("{journal} | grep -q 'response:200'"));

    // The monitor is killed: systemd starts another, despite the leftovers of the first.
    let show = format!("{control} show svp-greeter --value -p");
    machine.ok(user, &format!("kill -KILL $({show} MainPID)"));
    machine.wait_ok(user, &format!("test $({show} NRestarts) = 1 && svp health greeter"));
    machine.ok(user, &format!("{control} is-active svp-greeter"));

    machine.ok(user, &format!("{control} restart svp-greeter"));
    machine.wait_ok(user, "svp health greeter");
    machine.ok(user, &format!("{control} stop svp-greeter"));
    assert_eq!(machine.ok(user, &format!("{show} ActiveState,Result")), "success\ninactive\n");
    let info: Value =
        serde_json::from_str(&machine.ok(user, "svp info greeter --format json")).unwrap();
    assert_eq!(info["status"], "exited", "{info}");
    assert_nothing_left(machine, user);
}

/// Returns whether the machine can be booted; prints that the test is skipped if not. Only root can boot it; the
/// machine's ordinary user covers the rootless case.
fn can_boot() -> bool {
    if !as_root() {
        // Written past the test runner, which hides the output of passing tests.
        let _ = writeln!(std::io::stderr(), "live: not run: only root can boot the machine");
    }
    as_root()
}

#[test]
fn systemd_runs_exported_units() {
    if !can_boot() {
        return;
    }
    let env = TestEnv::new();
    let mut machine = Machine::boot(&env);
    run("cp", ["-r".as_ref(), pack("hello").as_os_str(), machine.path("/srv/hello").as_os_str()]);
    for user in USERS {
        unit_of_svp(&machine, user);
    }
    // The units start at boot: root's by the system manager, Ann's through lingering.
    machine.boot_again();
    for user in USERS {
        machine.wait_ok(user, "svp health greeter");
        machine.ok(user, &format!("{} is-active svp-greeter", systemctl(user)));
    }
}

/// A service of one container, at its own address.
#[track_caller]
fn container(machine: &Machine, user: User) {
    service(machine, user, "hello", "page");
    quadlet(machine, user, "page");
    machine.wait_ok(user, "podman healthcheck run page");
    let get = fetch(&format!(
        "hello:{}@{}:8080/",
        variable(machine, user, "page", "HELLO_PASSWORD"),
        variable(machine, user, "page", "HELLO_HOST"),
    ));
    assert_eq!(machine.ok(user, &get), "hello from the instance of hello\n");
    machine.ok(user, "podman exec page sh -c 'echo new >/var/lib/hello/index.html'");

    let started = "podman inspect page --format '{{.State.StartedAt}}'";
    let before = machine.ok(user, started);
    machine.ok(user, "podman kill --signal KILL page");
    machine.wait_ok(user, &format!("test \"$({started})\" != '{}'", before.trim()));
    machine.wait_ok(user, "podman healthcheck run page");
    assert_eq!(machine.ok(user, &get), "new\n");
}

/// podman plays the Kubernetes manifests unchanged, including the Secret.
#[track_caller]
fn kube(machine: &Machine, user: User) {
    machine.ok(user, "svp export page --format kube | podman kube play -");
    machine.wait_ok(user, "podman healthcheck run page-pod-page");
    let client = "podman exec page-pod-page /service/bin/client";
    assert_eq!(machine.ok(user, client), "hello from the instance of hello\n");
    machine.ok(user, "svp export page --format kube | podman kube down -");
    assert_eq!(machine.ok(user, "podman ps -aq --filter name=page-pod"), "");
    machine.ok(user, "podman volume rm page-var-lib-hello");
}

/// A service of two components is a pod. The first component prints its variables.
#[track_caller]
fn pod(machine: &Machine, user: User) {
    service(machine, user, "pair", "two");
    quadlet(machine, user, "two");
    let host = variable(machine, user, "two", "PAIR_HOST");
    let get = fetch(&format!("{host}:8081/env"));
    machine.wait_ok(user, &format!("{get} >/dev/null"));
    // It fetches a page of the other component through the value of %IP.
    machine.wait_ok(user, "podman healthcheck run two-front");
    let variables = machine.ok(user, &get);
    let variables: Vec<_> = variables.split('\0').collect();
    let key = variable(machine, user, "two", "PAIR_KEY");
    for pair in [
        format!("PAIR_KEY={key}"),
        format!("PAIR_HOST={host}"),
        format!("PAIR_TEXT={PAIR_TEXT}"),
        "NO=no".into(),
    ] {
        assert!(variables.contains(&pair.as_str()), "{pair} in {variables:?}");
    }
    assert_eq!(machine.ok(user, &fetch(&format!("{host}:8081/page"))), "from the image\n");

    let started = |name: &str| {
        format!("podman inspect two-{name} --format '{{{{.State.StartedAt}}}}' 2>/dev/null")
    };
    let front = machine.ok(user, &started("front"));
    let back = machine.ok(user, &started("back_end"));
    machine.ok(user, "podman kill --signal KILL two-back_end");
    machine.wait_ok(
        user,
        &format!(
            "now=$({}); test \"$now\" && test \"$now\" != '{}'",
            started("back_end"),
            back.trim()
        ),
    );
    machine.wait_ok(user, "podman healthcheck run two-front");
    assert_eq!(machine.ok(user, &started("front")), front);
}

fn fetch(target: &str) -> String {
    format!("busybox wget -q -O - http://{target}")
}

#[test]
fn podman_runs_exported_quadlet_units() {
    if !can_boot() {
        return;
    }
    let env = TestEnv::new();
    let mut machine = Machine::boot(&env);
    for pack in [pack("hello"), env.write_pack("pair", &PAIR)] {
        run("cp", ["-r".as_ref(), pack.as_os_str(), machine.path("/srv").as_os_str()]);
    }
    for user in USERS {
        container(&machine, user);
        kube(&machine, user);
        pod(&machine, user);
    }
    // After boot they run again, with their data.
    machine.boot_again();
    for user in USERS {
        machine.wait_ok(user, "podman healthcheck run page && podman healthcheck run two-front");
        let page = machine.ok(user, "podman exec page cat /var/lib/hello/index.html");
        assert_eq!(page, "new\n");
        let control = systemctl(user);
        machine.ok(user, &format!("{control} stop page two-pod"));
        assert_eq!(machine.ok(user, "podman ps -aq; podman pod ps -q"), "");
        let volumes = machine.ok(user, "podman volume ls -q | sort");
        assert_eq!(volumes, "page.var-lib-hello\ntwo.srv-pages\n");
    }
    for user in USERS {
        assert_nothing_left(&machine, user);
    }
}
