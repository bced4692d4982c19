//! Hosts without the usual resources of a service: a default route, a free port.

use std::net::{Ipv4Addr, TcpListener};

use crate::e2e::run::instance;
use crate::support::{TestEnv, as_root, output, transcript};

const BUILD: &str = "#!/bin/sh\nset -eu\nmkdir -p /data\necho page >/data/index.html\n";
const RUN: &str = "#!/bin/sh\nexec httpd -f -p $WEB_PORT -h /data\n";

fn query(port: u16) -> String {
    format!(
        "#!/bin/sh\ncase $1 in os) echo busybox/1;; env) echo WEB_HOST=%IP; echo WEB_PORT={port};; esac\n"
    )
}

#[test]
fn without_a_default_route_a_service_is_reached_as_env_prints() {
    let env = TestEnv::new();
    instance(&env, "web", &query(8125), BUILD, RUN);
    // A host without a network: loopback only.
    let script = "ip link set lo up\n\
        $SVP run -d --wait=20 web\n\
        eval \"$($SVP env web --format shell)\"\n\
        busybox wget -q -O - \"http://$WEB_HOST:$WEB_PORT/\"\n\
        $SVP health web\n\
        $SVP restart web; $SVP health web --wait=20\n\
        $SVP rm -f web\n";
    let mut command = env.command("unshare");
    if !as_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.args(["--net", "sh", "-euc", script]).env("SVP", env!("CARGO_BIN_EXE_svp"));
    let result = output(&mut command);
    let text = transcript(&command, &result);
    assert!(result.status.success(), "{text}");
    assert_eq!(result.stdout, b"web\npage\nhealthy\nweb\nhealthy\nweb\n", "{text}");
    env.assert_nothing_left();
}

#[test]
fn a_port_in_use_on_all_addresses_is_replaced() {
    let env = TestEnv::new();
    let other = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    instance(&env, "web", &query(port), BUILD, RUN);
    let mut run = env.svp(["run", "-d", "--wait=20", "web"]);
    let result = output(&mut run);
    let text = transcript(&run, &result);
    assert!(result.status.success(), "{text}");
    let ports = env.ok(["ports", "web"]);
    let (host, inside) = ports.trim().split_once("->").unwrap();
    assert_eq!(inside, format!("{port}/tcp"));
    assert!(host.starts_with("127.83.") && !host.ends_with(&format!(":{port}")), "{ports}");
    assert!(text.contains(host) && text.contains("another program"), "{text}");
    env.ok(["rm", "-f", "web"]);
    // On the host's network, svp can only report the conflict.
    let mut run = env.svp(["run", "-d", "--network", "host", "web"]);
    let result = output(&mut run);
    let text = transcript(&run, &result);
    assert!(text.contains(&format!("another program already uses port {port}")), "{text}");
    env.ok(["rm", "-f", "web"]);
    env.assert_nothing_left();
}
