//! Links: names that resolve inside a service, and variables that can't be confused.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::run::{info, instance};
use crate::support::registry::free_port;
use crate::support::{TestEnv, wait_until};

const WEB_QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo WEB_PASSWORD;;\n\
    env) echo WEB_HOST=%IP; echo WEB_PORT=3306;; esac\n";
const WEB_RUN: &str = "#!/bin/sh\nmkdir -p /data\nhostname >/data/index.html\n\
    exec httpd -f -p $WEB_PORT -h /data\n";
const USER_QUERY: &str = "#!/bin/sh\n[ $1 = os ] && echo busybox/1\n";
const USER_RUN: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Sets up two running services of one pack, `one` and `two`, and the image `user`, whose pack has no variables.
fn one_and_two() -> TestEnv {
    let env = TestEnv::new();
    instance(&env, "web", WEB_QUERY, "#!/bin/sh\n", WEB_RUN);
    instance(&env, "user", USER_QUERY, "#!/bin/sh\n", USER_RUN);
    for name in ["one", "two"] {
        env.ok(["run", "-d", "--wait", "--name", name, "--hostname", name, "web"]);
    }
    env
}

/// Returns the page of a URL, read in a service.
fn get(env: &TestEnv, service: &str, url: &str) -> String {
    env.ok(["exec", service, "sh", "-c", &format!("wget -q -O - {url}")])
}

/// Returns the addresses that /etc/hosts of a service gives a name.
fn addresses(env: &TestEnv, service: &str, name: &str) -> Vec<String> {
    let hosts = env.ok(["exec", service, "cat", "/etc/hosts"]);
    let words = hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let named = words.filter(|words| words.iter().skip(1).any(|word| *word == name));
    named.map(|words| words[0].to_owned()).collect()
}

#[test]
fn a_linked_service_resolves_by_its_name_and_its_alias() {
    let env = one_and_two();
    let links = ["--link", "one", "--link", "two:Second-db"];
    env.ok(["run", "-d"].iter().chain(&links).chain(&["user"]));
    for _ in 0..2 {
        assert_eq!(get(&env, "user", "http://one:3306/"), "one\n");
        assert_eq!(get(&env, "user", "http://Second-db:3306/"), "two\n");
        assert_eq!(get(&env, "user", "http://two:3306/"), "two\n");
        assert_eq!(get(&env, "user", "http://$WEB_HOST:$WEB_PORT/"), "one\n");
        let url = "http://$SECOND_DB_WEB_HOST:$SECOND_DB_WEB_PORT/";
        assert_eq!(get(&env, "user", url), "two\n");
        let known =
            env.ok(["exec", "user", "sh", "-c", "echo WEB_PASSWORD=$SECOND_DB_WEB_PASSWORD"]);
        assert!(env.ok(["env", "two"]).contains(&known) && known.len() > 30, "{known}");
        env.ok(["restart", "user"]);
    }
    assert_eq!(addresses(&env, "user", "one").len(), 1);
    assert_eq!(addresses(&env, "user", "user"), ["127.0.0.1"]);
    assert_eq!(info(&env, "user")["links"], json!(["one", "two:Second-db"]));
    // A restored copy, and a service in the host's network, have the same links.
    let file = env.path("backup");
    let file = file.to_str().unwrap();
    env.ok(["backup", "user", "-o", file]);
    env.ok(["restore", "user", "-i", file]);
    assert_eq!(get(&env, "user", "http://Second-db:3306/"), "two\n");
    assert_eq!(info(&env, "user")["links"], json!(["one", "two:Second-db"]));
    env.ok(["run", "-d", "--network", "host", "--name", "near"]
        .iter()
        .chain(&links)
        .chain(&["user"]));
    assert_eq!(get(&env, "near", "http://one:3306/"), "one\n");
    assert_eq!(get(&env, "near", "http://$SECOND_DB_WEB_HOST:3306/"), "two\n");
    assert_eq!(
        addresses(&env, "near", "Second-db"),
        [info(&env, "two")["address"].as_str().unwrap()]
    );
    env.ok(["rm", "--force", "near", "user", "one", "two"]);
    env.assert_nothing_left();
}

#[test]
fn variables_that_collide_are_refused_with_the_way_out() {
    let env = one_and_two();
    let refused = |image: &str, options: &[&str], words: &[&str]| {
        let arguments = [&["run", "-d", "--name", "new"], options, &[image]].concat();
        let text = env.fails(125, &arguments);
        assert!(words.iter().all(|word| text.contains(word)), "{options:?}: {text}");
    };
    let all = "WEB_PASSWORD, WEB_HOST, WEB_PORT";
    let way_out = "--link two:ALIAS";
    refused("user", &["--link", "one", "--link", "two"], &["links one and two", all, way_out]);
    refused("web", &["--link", "two"], &["new and its link two", all, way_out]);
    // Aliases that give the same variables or the same name.
    let both = ["--link", "one:a-b", "--link", "two:a_b"];
    refused("user", &both, &["A_B_WEB_HOST", way_out]);
    refused(
        "user",
        &["--link", "one:x", "--link", "two:X"],
        &["two links have that name", way_out],
    );
    refused("user", &["--link", "one:two", "--link", "two"], &["two links have that name"]);
    refused("user", &["--link", "one", "--link", "one"], &["given twice"]);
    refused("user", &["--link", "one:new"], &["the service itself has that name"]);
    // Only those that the user gives values for are settled.
    let two = ["--link", "one", "--link", "two", "-e", "WEB_HOST=mine", "-e", "WEB_PORT=1"];
    refused("user", &two, &["both set WEB_PASSWORD\n"]);
    let text = env.fails(2, ["run", "-d", "--link", "one:ld", "user"]);
    assert!(text.contains("LD_"), "{text}");
    assert_eq!(env.ok(["ps", "-a", "-q"]), "one\ntwo\n");

    env.ok(["run", "-d"].iter().chain(&two).chain(&[
        "-e",
        "WEB_PASSWORD=x",
        "--name",
        "set",
        "user",
    ]));
    assert_eq!(env.ok(["exec", "set", "sh", "-c", "echo $WEB_HOST"]), "mine\n");
    let new = ["--name", "new", "--hostname", "new", "--link", "one:up", "web"];
    env.ok(["run", "-d", "--wait"].iter().chain(&new));
    assert_eq!(get(&env, "new", "http://$UP_WEB_HOST:$UP_WEB_PORT/"), "one\n");
    assert_eq!(get(&env, "new", "http://new:3306/"), "new\n");
    env.ok(["rm", "--force", "new", "set", "one", "two"]);
    env.assert_nothing_left();
}

#[test]
fn a_service_from_before_aliases_starts_with_a_warning() {
    let env = one_and_two();
    env.ok(["run", "-d", "--link", "one", "--link", "two:b", "user"]);
    env.ok(["stop", "user"]);
    let file = env.store().join("services/user/service.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    record["links"] = json!(["one", "two"]);
    std::fs::write(&file, record.to_string()).unwrap();
    let output = env.svp(["start", "user"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("WEB_HOST") && text.contains("user gets those of two"), "{text}");
    assert_eq!(get(&env, "user", "http://$WEB_HOST:3306/"), "two\n");
    assert_eq!(get(&env, "user", "http://one:3306/"), "one\n");
    env.ok(["rm", "--force", "user", "one", "two"]);
    env.assert_nothing_left();
}

#[test]
fn a_mount_that_would_hide_the_pack_is_refused() {
    let env = TestEnv::new();
    let build = "#!/bin/sh\n[ $1 != base ] || ln -s /service /linked\n";
    instance(&env, "user", USER_QUERY, build, USER_RUN);
    for (at, why) in [
        ("/service/.", "hide the pack"),
        ("//service//bin/run", "hide the pack"),
        ("/./proc", "the kernel provides"),
        ("/sys/fs/cgroup", "the kernel provides"),
        ("/dev/pts", "svp provides"),
        ("/.", "not the root"),
    ] {
        let text = env.fails(2, ["run", "-d", "-v", &format!("data:{at}"), "user"]);
        assert!(text.contains(why), "{at}: {text}");
    }
    let text = env.fails(125, ["run", "-d", "-v", "data:/linked", "user"]);
    assert!(text.contains("leads to /service"), "{text}");
    assert_eq!(env.ok(["ps", "-a", "-q"]), "");
    env.ok(["run", "-d", "-v", "data:/service/./data/", "user"]);
    assert_eq!(info(&env, "user")["volumes"][0]["at"], "/service/data");
    env.ok(["rm", "--force", "--volumes", "user"]);
}

#[test]
fn an_upgrade_keeps_links_and_host_ports_and_takes_new_components() {
    let env = one_and_two();
    let publish = format!("127.0.0.1:{}:3306", free_port());
    env.ok(["run", "-d", "--link", "one", "-p", &publish, "user"]);
    let address = info(&env, "one")["address"].clone();
    let upgrade = |name: &str, query: &str, run: &str| {
        let files = [("bin/query", query), ("bin/build", "#!/bin/sh\n"), ("bin/run", run)];
        let pack = env.write_pack(&format!("{name}-new"), &files);
        let (pack, base) = (pack.to_str().unwrap(), format!("{name}-base"));
        let more = ["-t", name, "--network", "none", "--keep-secrets", "--update-pack"];
        env.ok(["setup", "-b", pack, "-i", &base].iter().chain(&more));
    };
    // A service that others are linked to: they find it at the same address.
    let query = WEB_QUERY.replace("echo WEB_PORT", "echo WEB_NEW=1; echo WEB_PORT");
    upgrade("web", &query, &WEB_RUN.replace("hostname >", "echo new >"));
    env.ok(["upgrade", "--wait", "20", "one"]);
    assert_eq!(info(&env, "one")["address"], address);
    assert_eq!(get(&env, "user", "http://one:3306/"), "new\n");
    // A service with links, and other components and ports than before.
    let shown = info(&env, "user");
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; components) echo a; echo b;; ports) echo 3307/tcp;; esac\n";
    upgrade(
        "user",
        query,
        "#!/bin/sh\n[ $1 = a ] || exec httpd -f -p 3307\nmkdir /data; \
        echo $WEB_NEW >/data/index.html; exec httpd -f -p 3306 -h /data\n",
    );
    env.ok(["upgrade", "user"]);
    let after = info(&env, "user");
    assert_eq!((&shown["links"], &shown["address"]), (&after["links"], &after["address"]));
    let own = |info: &Value, port: u16| {
        let mut ports = info["ports"].as_array().unwrap().iter();
        ports.find(|shown| shown["containerPort"] == port).cloned()
    };
    let published = own(&shown, 3306).unwrap();
    assert_eq!(own(&after, 3306), Some(published.clone()), "{after}");
    assert!(own(&after, 3307).is_some(), "{after}");
    let names = after["components"].as_array().unwrap().iter().map(|component| &component["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b"]);
    // The host's port leads to the new component, which has the variables of the link as it is now.
    let at = format!("127.0.0.1:{}", published["port"]);
    let page = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(&at)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    wait_until("the component serves", || page().is_ok_and(|text| text.ends_with("\n\r\n1\n")));
    for name in ["user", "one", "two"] {
        env.ok(["rm", "-f", name]);
    }
    env.assert_nothing_left();
}
