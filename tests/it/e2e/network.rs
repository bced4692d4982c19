//! The network of a service: ports, links, the host. Traffic goes only to loopback addresses: for other addresses,
//! these tests only check whether there is a route.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::registry::free_port;
use crate::support::{TestEnv, wait_until};

const BUILD: &str = "#!/bin/sh\nset -eu\nmkdir -p /data\necho page >/data/index.html\n";
/// Answers datagrams and connections on PORT with its name and the sender's address.
const ECHO: &str = r#"
import os, socket, threading
name, port = os.environ["ECHO_NAME"].encode(), int(os.environ["ECHO_PORT"])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("0.0.0.0", port))
t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
t.bind(("0.0.0.0", port)); t.listen(50)
def connections():
    while True:
        c, peer = t.accept(); c.sendall(name + b" " + peer[0].encode()); c.close()
threading.Thread(target=connections, daemon=True).start()
while True:
    said, peer = u.recvfrom(65536); u.sendto(name + b" " + said, peer)
"#;
/// Reports whether there is a route, without sending a packet: connecting a datagram socket looks one up.
const ROUTE_PROBE: &str = r#"
import socket, sys
def way(what, to, device=None, family=socket.AF_INET):
    try:
        s = socket.socket(family, socket.SOCK_DGRAM)
        if device: s.setsockopt(socket.SOL_SOCKET, 25, device.encode())
        s.connect((to, 9))
        print(what, "open")
    except OSError as error: print(what, "closed")
routes = [line.split() for line in open("/proc/net/route")][1:]
device = [r[0] for r in routes if r[0] not in ("lo", "links")][0]
for name, to in ("gateway", sys.argv[1]), ("metadata", "169.254.169.254"):
    way(name, to); way(name + "-by-device", to, device)
way("loopback-by-device", "127.0.0.1", device)
way("loopback6-by-device", "::1", device, socket.AF_INET6)
way("link-local", "fe80::2%" + device, None, socket.AF_INET6)
way("host", "169.254.1.2")
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print("raw open")
except OSError: print("raw closed")
"#;

/// Sets up the instance `name` of a pack with these answers, whose service is ECHO: it needs the host's python3.
fn instance(env: &TestEnv, name: &str, answers: &str) {
    if env.ok(["images"]).lines().count() < 2 {
        env.import_busybox();
    }
    let query = format!("#!/bin/sh\ncase $1 in os) echo busybox/1;;\n{answers}\nesac\n");
    let run = "#!/bin/sh\nexec /usr/bin/python3 /service/echo.py\n";
    let files = [
        ("bin/query", &query[..]),
        ("bin/build", BUILD),
        ("bin/run", run),
        ("echo.py", ECHO),
        ("ways.py", ROUTE_PROBE),
    ];
    let pack = env.write_pack(&format!("pack-{name}"), &files);
    let base = format!("{name}-base");
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", &base, "--base", "busybox", "--network", "none"]);
    env.ok(["setup", "-i", &base, "-t", name, "--network", "none"]);
}

/// Runs `svp run -d` on an instance, with the host's programs mounted.
fn run(env: &TestEnv, arguments: &[&str]) -> std::process::Output {
    let mut all: Vec<String> = ["run", "-d"].map(String::from).to_vec();
    for dir in ["/usr", "/lib", "/lib64"] {
        if let Ok(at) = std::fs::canonicalize(dir) {
            all.push(format!("-v={}:{dir}:ro", at.display()));
        }
    }
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    env.svp(all).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn runs(env: &TestEnv, arguments: &[&str]) -> String {
    let output = run(env, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    stderr
}

fn info(env: &TestEnv, name: &str) -> Value {
    serde_json::from_str(&env.ok(["info", name, "--format", "json"])).unwrap()
}

/// Returns the address of a service's port on the host.
fn own(env: &TestEnv, name: &str, number: usize) -> SocketAddr {
    let port = &info(env, name)["ports"][number];
    format!("{}:{}", port["host"].as_str().unwrap(), port["port"]).parse().unwrap()
}

fn tcp(at: impl Into<SocketAddr>) -> String {
    let at = at.into();
    let Ok(mut stream) = TcpStream::connect(at) else { return "nothing".into() };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn udp(at: impl Into<SocketAddr>, message: &str) -> String {
    let at = at.into();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut answer = [0; 100];
    match socket.send(message.as_bytes()).and_then(|_| socket.recv(&mut answer)) {
        Ok(length) => String::from_utf8_lossy(&answer[..length]).into_owned(),
        Err(_) => "nothing".into(),
    }
}

/// Returns the host's gateway, or a stand-in if it has none.
fn gateway() -> String {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap();
    let found = routes.lines().skip(1).find_map(|line| {
        let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
        (gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()).to_string())
    });
    found.expect("this test needs a host with a gateway")
}

/// Returns the output of [`ROUTE_PROBE`] in a service: the open routes.
fn open_routes(env: &TestEnv, name: &str) -> Vec<String> {
    let gateway = gateway();
    let printed = env.ok(["exec", name, "--", "/usr/bin/python3", "/service/ways.py", &gateway]);
    assert!(printed.lines().count() >= 9, "{printed}");
    printed.lines().filter_map(|line| Some(line.strip_suffix(" open")?.to_owned())).collect()
}

#[test]
fn a_private_network_reaches_host_and_gateway_only_if_allowed() {
    let env = TestEnv::new();
    instance(&env, "echo", "env) echo ECHO_NAME=echo; echo ECHO_PORT=4711;;");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"the host"));
        }
    });
    // The client keeps its side open until it has read: pasta may lose an answer on a half-closed connection.
    let script = format!(
        "import socket; to = ('host.containers.internal', {port}); \
         print(socket.create_connection(to, 5).makefile().read(), end='')"
    );
    let reaches_host = || {
        let output = env.svp(["exec", "echo", "/usr/bin/python3", "-c", &script]).output();
        output.unwrap().stdout == b"the host"
    };
    runs(&env, &["--wait", "echo"]);
    assert_eq!(open_routes(&env, "echo"), [""; 0]);
    assert!(!env.ok(["exec", "echo", "cat", "/etc/hosts"]).contains("internal"));
    assert_eq!(info(&env, "echo")["allowed"], serde_json::json!([]));
    env.ok(["rm", "--force", "echo"]);

    runs(&env, &["--wait", "--allow", "gateway", "echo"]);
    let routes = open_routes(&env, "echo");
    assert!(routes.contains(&"gateway".to_owned()), "{routes:?}");
    assert!(
        !routes
            .iter()
            .any(|way| way.starts_with("metadata") || way.contains("loopback") || way == "raw")
    );
    assert!(!reaches_host());
    env.ok(["rm", "--force", "echo"]);

    runs(&env, &["--wait", "--allow", "host", "echo"]);
    assert!(reaches_host());
    assert_eq!(open_routes(&env, "echo"), ["host"]);
    assert_eq!(info(&env, "echo")["allowed"], serde_json::json!(["host"]));
    assert_eq!(tcp(own(&env, "echo", 0)), "echo 127.0.0.1");
    // The routes survive a restart of the service, and of pasta.
    env.ok(["restart", "echo"]);
    wait_until("the service reaches the host again", reaches_host);
    kill_pasta(&env, "echo");
    wait_until("the network is repaired", reaches_host);
    assert_eq!(open_routes(&env, "echo"), ["host"]);
    env.ok(["rm", "--force", "echo"]);
    env.assert_nothing_left();

    let refused = run(&env, &["--network", "host", "--allow", "host", "echo"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("private network"));
}

#[test]
fn a_repaired_network_has_the_same_routes() {
    let env = TestEnv::new();
    instance(&env, "echo", "env) echo ECHO_NAME=echo; echo ECHO_PORT=4711;;");
    runs(&env, &["--wait", "echo"]);
    // Interface, destination, gateway, and for IPv6 the scope of the addresses.
    let routes = || {
        let v4 = env.ok(["exec", "echo", "cat", "/proc/net/route"]);
        let v6 = env.ok(["exec", "echo", "cat", "/proc/net/ipv6_route"]);
        let v4 = v4.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>());
        let v6 = v6.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            vec![words[0], words[1], words[4], words[9]]
        });
        let everywhere = |line: &Vec<&str>| line[0] == "0".repeat(32) || line[1] == "00000000";
        let routes = v4.chain(v6.filter(|line| line[3] != "lo")).filter(everywhere);
        let mut routes: Vec<String> = routes.map(|line| line.join(" ")).collect();
        routes.sort();
        routes
    };
    let before = routes();
    assert!(!before.is_empty(), "this test needs a host with a gateway");
    kill_pasta(&env, "echo");
    wait_until("the routes are restored", || routes() == before);
    assert_eq!(open_routes(&env, "echo"), [""; 0]);
    wait_until("the port is forwarded again", || tcp(own(&env, "echo", 0)) == "echo 127.0.0.1");
    env.ok(["rm", "--force", "echo"]);
    env.assert_nothing_left();
}

#[test]
fn a_port_forwarder_is_restarted_even_after_a_failure() {
    let env = TestEnv::new();
    instance(
        &env,
        "echo",
        "env) echo ECHO_NAME=echo; echo ECHO_PORT=4711;; ports) echo 4711/tcp;;",
    );
    let port = free_port();
    // pasta can't forward a port of all addresses.
    runs(&env, &["--wait", "-p", &format!("0.0.0.0:{port}:4711"), "echo"]);
    assert_eq!(tcp((Ipv4Addr::LOCALHOST, port)), "echo 127.0.0.1");
    // The port forwarder: the stage in the service's network namespace, but not in its mount namespace.
    let info = info(&env, "echo");
    let namespace =
        |pid: u64, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let [monitor, inside] = ["monitor", "pid"].map(|key| info[key].as_u64().unwrap());
    let forwarder = below(monitor).into_iter().find(|pid| {
        namespace(*pid, "net") == namespace(inside, "net")
            && namespace(*pid, "mnt") == namespace(monitor, "mnt")
    });
    kill(forwarder.expect("a port forwarder"));
    // Another process takes the port first.
    let mut held = None;
    wait_until("the port is free", || {
        held = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok();
        held.is_some()
    });
    std::thread::sleep(Duration::from_secs(5));
    drop(held);
    wait_until("the port is forwarded again", || {
        tcp((Ipv4Addr::LOCALHOST, port)) == "echo 127.0.0.1"
    });
    env.ok(["rm", "--force", "echo"]);
    env.assert_nothing_left();
}

#[test]
fn a_service_may_have_more_ports_than_one_message_can_pass() {
    let env = TestEnv::new();
    let ports: String = (5000..5140).map(|port| format!("echo {port}/tcp;")).collect();
    let answers = format!(
        "env) echo ECHO_NAME=many; echo ECHO_PORT=5139; echo MANY_HOST=%IP;; ports) {ports};"
    );
    instance(&env, "many", &answers);
    instance(&env, "user", "env) echo ECHO_NAME=user; echo ECHO_PORT=4711;;");
    // pasta can't forward the second address of a port number.
    let publish =
        (21000..21140).flat_map(|port| [77, 78].map(|n| format!("-p=127.0.0.{n}:{port}:5139")));
    let publish: Vec<String> = publish.collect();
    let mut arguments: Vec<&str> = publish.iter().map(String::as_str).collect();
    arguments.push("many");
    runs(&env, &arguments);
    for port in [21000, 21139] {
        let at = (Ipv4Addr::new(127, 0, 0, 78), port);
        wait_until("the port is forwarded", || tcp(at) == "many 127.0.0.1");
    }
    runs(&env, &["--wait", "--link", "many:far", "user"]);
    let script = "import os, socket\n\
        print(socket.create_connection((os.environ['FAR_MANY_HOST'], 5139), 5).recv(100).decode())\n";
    let printed = env.ok(["exec", "user", "--", "/usr/bin/python3", "-c", script]);
    assert_eq!(printed, "many 127.0.0.1\n");
    env.ok(["rm", "--force", "user", "many"]);
    env.assert_nothing_left();
}

/// Kills the pasta process of a service, a child of its monitor.
fn kill_pasta(env: &TestEnv, name: &str) {
    let monitor = info(env, name)["monitor"].as_u64().unwrap();
    let mut found = false;
    for pid in below(monitor) {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.starts_with(b"/usr/bin/pasta\0") {
            kill(pid);
            found = true;
        }
    }
    assert!(found, "no pasta below {monitor}");
}

/// Kills a process, and waits until it is a zombie or gone.
fn kill(pid: u64) {
    let number = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(number, nix::sys::signal::Signal::SIGKILL).unwrap();
    // Its memory is freed before its descriptors are closed.
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    wait_until("the process is dead", || {
        stat().rsplit(") ").next().is_none_or(|rest| "ZX".contains(&rest[..rest.len().min(1)]))
    });
}

fn below(pid: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.push(child);
            found.extend(below(child));
        }
    }
    found
}

#[test]
fn ports_are_published_under_any_number_over_tcp_and_udp() {
    let env = TestEnv::new();
    let [port, other] = [free_port(), free_port()];
    let answers = format!(
        "env) echo ECHO_NAME=echo; echo ECHO_PORT={port};; ports) echo {port}/tcp; echo {port}/udp;;"
    );
    instance(&env, "echo", &answers);
    let publish = [
        // The service's own port number, on two further addresses.
        format!("-p={port}:{port}"),
        format!("-p=[::1]:{port}:{port}"),
        format!("-p=127.0.0.1:{other}:{port}"),
        // Datagrams to another port number.
        format!("-p={other}:{port}/udp"),
    ];
    let mut arguments: Vec<&str> = publish.iter().map(String::as_str).collect();
    arguments.extend(["--wait", "echo"]);
    runs(&env, &arguments);
    let at = own(&env, "echo", 0);
    assert_eq!(at.port(), port);
    assert_eq!(tcp(at), "echo 127.0.0.1");
    assert_eq!(udp(at, "own"), "echo own");
    assert_eq!(tcp((Ipv4Addr::LOCALHOST, port)), "echo 127.0.0.1");
    assert_eq!(tcp((std::net::Ipv6Addr::LOCALHOST, port)), "echo 127.0.0.1");
    assert_eq!(tcp((Ipv4Addr::LOCALHOST, other)), "echo 127.0.0.1");
    assert_eq!(udp((Ipv4Addr::LOCALHOST, other), "moved"), "echo moved");
    // A port in use, a privileged port, and a port that is published twice.
    let hold = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = hold.local_addr().unwrap().port();
    for (publish, why) in [
        (format!("{taken}:1"), "another program"),
        ("1:1".to_owned(), "privilege"),
        (format!("0.0.0.0:{port}:1"), "name the address"),
        ("203.0.113.1:5:5".to_owned(), ""),
    ] {
        let refused = run(&env, &["--name", "two", "-p", &publish, "echo"]);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(125), "{publish}: {stderr}");
        assert!(stderr.contains(why) && stderr.contains("can't listen on"), "{publish}: {stderr}");
    }
    let twice = format!("{taken}0:1").chars().take(4).collect::<String>();
    let twice = [format!("-p=127.0.0.9:{twice}:1"), format!("-p=127.0.0.9:{twice}:2")];
    let refused = run(&env, &["--name", "two", &twice[0], &twice[1], "echo"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("published twice"));
    assert!(!env.ok(["ps", "--all", "--quiet"]).contains("two"));
    env.ok(["rm", "--force", "echo"]);
    assert_eq!(tcp((Ipv4Addr::LOCALHOST, port)), "nothing");
    env.assert_nothing_left();
}

#[test]
fn connections_over_loopback_keep_their_source_on_all_addresses() {
    let env = TestEnv::new();
    instance(&env, "echo", "env) echo ECHO_NAME=echo; echo ECHO_PORT=4711;;");
    let port = free_port();
    runs(&env, &["--wait", "-p", &format!("0.0.0.0:{port}:4711"), "echo"]);
    assert_eq!(tcp((Ipv4Addr::LOCALHOST, port)), "echo 127.0.0.1");
    assert_eq!(tcp((Ipv4Addr::new(127, 3, 2, 1), port)), "echo 127.0.0.1");
    // Unreachable without --allow.
    assert_eq!(tcp((std::net::Ipv6Addr::LOCALHOST, port)), "nothing");
    env.ok(["rm", "--force", "echo"]);
    env.assert_nothing_left();
}

#[test]
fn connections_over_a_link_leave_descriptors_for_commands() {
    let env = TestEnv::new();
    let answers =
        "env) echo ECHO_NAME=echo; echo ECHO_PORT=4711; echo AT_HOST=%IP;; ports) echo 4711/tcp;;";
    instance(&env, "echo", answers);
    instance(&env, "user", "env) echo ECHO_NAME=user; echo ECHO_PORT=4712;;");
    runs(&env, &["--wait", "echo"]);
    let limited = |limit: &str| {
        let mut command = env.command("sh");
        let script = format!("ulimit {limit} && exec \"$@\"");
        command.args([
            "-c",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_svp"),
            "run",
            "-d",
            "-v=/usr:/usr:ro",
        ]);
        for dir in ["/lib", "/lib64"] {
            if let Ok(at) = std::fs::canonicalize(dir) {
                command.arg(format!("-v={}:{dir}:ro", at.display()));
            }
        }
        let output =
            command.args(["--restart", "always", "--link", "echo:far", "user"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let limit = || env.ok(["exec", "user", "sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    // The containers of a service do not inherit the limit that svp raises for itself.
    limited("-Sn 300");
    let first = limit();
    assert!(first.starts_with("300\n") && first != "300\n300\n", "{first}");
    kill(info(&env, "user")["pid"].as_u64().unwrap());
    wait_until("there is another container", || {
        let probe = env.svp(["exec", "user", "sh", "-c", "ulimit -Sn; ulimit -Hn"]).output();
        probe.unwrap().stdout == first.as_bytes()
    });
    env.ok(["rm", "--force", "user"]);
    // Hold more connections than svp may have descriptors.
    limited("-n 300");
    let hold = "import os, socket, time\nheld = []\nfor n in range(150):\n    s = socket.socket()\n    \
        s.setblocking(False); s.connect_ex((os.environ['FAR_AT_HOST'], 4711)); held.append(s)\ntime.sleep(60)\n";
    let mut holders: Vec<std::process::Child> = (0..2)
        .map(|_| {
            let arguments = ["exec", "user", "--", "/usr/bin/python3", "-c", hold];
            env.svp(arguments).stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let monitor = info(&env, "user")["monitor"].as_u64().unwrap();
    let open = || std::fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().count();
    wait_until("the connections are forwarded", || open() > 150);
    std::thread::sleep(Duration::from_secs(1));
    assert!(open() < 250, "{} descriptors", open());
    assert_eq!(env.ok(["exec", "user", "echo", "still here"]), "still here\n");
    env.ok(["stop", "user"]);
    for holder in &mut holders {
        holder.wait().unwrap();
    }
    env.ok(["rm", "--force", "user", "echo"]);
    env.assert_nothing_left();
}

#[test]
fn a_privileged_port_gets_another_port_that_env_prints() {
    let env = TestEnv::new();
    let answers = "env) echo ECHO_NAME=low; echo ECHO_PORT=53; echo LOW_HOST=%IP; echo LOW_URL=x://%IP:53/;;\n\
        ports) echo 53/tcp; echo 53/udp;;";
    instance(&env, "low", answers);
    instance(&env, "user", "env) echo ECHO_NAME=user; echo ECHO_PORT=53;; ports) echo 53/tcp;;");
    runs(&env, &["--wait", "low"]);
    let at = own(&env, "low", 0);
    assert_eq!(tcp(at), "low 127.0.0.1");
    assert_eq!(udp(own(&env, "low", 1), "a question"), "low a question");
    let variables = env.ok(["env", "low"]);
    assert!(variables.contains(&format!("ECHO_PORT={}\n", at.port())), "{variables}");
    assert!(variables.contains(&format!("LOW_URL=x://{at}/\n")), "{variables}");
    for shown in [env.ok(["ps"]), env.ok(["info", "low"])] {
        assert_eq!(shown.matches("53/udp").count(), 1, "{shown}");
    }
    // Inside the service and in services linked to it, the values are the pack's. Both services listen on the same
    // port.
    runs(&env, &["--wait", "--link", "low:far", "user"]);
    assert_eq!(tcp(own(&env, "user", 0)), "user 127.0.0.1");
    let script = "import os, socket, sys\n\
        at = (os.environ['FAR_LOW_HOST'], 53)\n\
        print(socket.create_connection(at, 5).recv(100).decode())\n\
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(b'hello', at)\n\
        print(u.recv(100).decode())\n";
    let printed = env.ok(["exec", "user", "--", "/usr/bin/python3", "-c", script]);
    assert_eq!(printed, "low 127.0.0.1\nlow hello\n");
    // The service's own port works whether the linked service runs or not.
    env.ok(["stop", "low"]);
    let failed =
        env.svp(["exec", "user", "--", "/usr/bin/python3", "-c", script]).output().unwrap();
    assert!(!failed.status.success());
    assert_eq!(tcp(own(&env, "user", 0)), "user 127.0.0.1");
    env.ok(["start", "low", "--wait"]);
    assert_eq!(env.ok(["exec", "user", "--", "/usr/bin/python3", "-c", script]), printed);
    // Also after the linked service has moved to another address.
    env.ok(["stop", "low"]);
    let _held = TcpListener::bind(at).unwrap();
    env.ok(["start", "low", "--wait"]);
    assert_ne!(own(&env, "low", 0), at);
    assert_eq!(env.ok(["exec", "user", "--", "/usr/bin/python3", "-c", script]), printed);
    env.ok(["rm", "--force", "user", "low"]);
    env.assert_nothing_left();
}
