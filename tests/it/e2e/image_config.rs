//! What a stranger's image says of itself: hostile configs are refused before anything is made of them, odd ones that
//! real images have work.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use svp::oci::Digest;

use super::common::{blob, build, json as read_json, pack_with};
use crate::support::{TestEnv, output};

const QUERY: &str = "#!/bin/sh\ncase $1 in os) echo busybox/1;; esac\n";
const RUN: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 1000 & wait\n";

/// Writes a document into a layout; returns its descriptor, with the media type of `old`.
fn put(layout: &Path, document: &Value, old: &Value) -> Value {
    let bytes = document.to_string().into_bytes();
    let digest = Digest::of(&bytes).to_string();
    let file = layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let mut descriptor = old.clone();
    descriptor["digest"] = json!(digest);
    descriptor["size"] = json!(bytes.len());
    fs::write(file, bytes).unwrap();
    descriptor
}

/// Changes fields of the only image in a layout.
fn edit(layout: &Path, fields: &Value) {
    let mut index = read_json(&layout.join("index.json"));
    let mut manifest = read_json(&blob(layout, &index["manifests"][0]));
    let mut config = read_json(&blob(layout, &manifest["config"]));
    for (field, value) in fields.as_object().unwrap() {
        config["config"][field] = value.clone();
    }
    manifest["config"] = put(layout, &config, &manifest["config"]);
    index["manifests"][0] = put(layout, &manifest, &index["manifests"][0]);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// Saves an image of the store as a layout with other fields; returns the layout.
fn edited(env: &TestEnv, image: &str, name: &str, fields: &Value) -> PathBuf {
    env.ok(["copy", image, &format!("oci:{name}:x"), "--allow-secrets"]);
    edit(&env.path(name), fields);
    env.path(name)
}

fn hostile() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("Volumes", json!({"/": {}}), "\"/\""),
        ("Volumes", json!({"/proc": {}}), "\"/proc\""),
        ("Volumes", json!({"/sys": {}}), "\"/sys\""),
        ("Volumes", json!({"/dev": {}}), "\"/dev\""),
        ("Volumes", json!({"/service": {}}), "\"/service\""),
        ("Volumes", json!({"/data/../service": {}}), "\"/data/../service\""),
        ("Volumes", json!({"data": {}}), "\"data\""),
        ("WorkingDir", json!("/proc/self/fd/7"), "\"/proc/self/fd/7\""),
        ("WorkingDir", json!("/a/../../etc"), "\"/a/../../etc\""),
        ("User", json!("-1"), "\"-1\""),
        ("User", json!("root\n"), "\"root\\n\""),
        ("Env", json!(["A\n=1"]), "\"A\\n=1\""),
        ("ExposedPorts", json!({"80\n22": {}}), "\"80\\n22\""),
        ("StopSignal", json!("SIGSTOP"), "\"SIGSTOP\""),
    ]
}

#[test]
fn a_hostile_base_is_refused_with_field_value_and_image() {
    let env = TestEnv::new();
    env.import_busybox();
    let pack = pack_with(&env, "pack", "true");
    for (n, (field, value, shown)) in hostile().into_iter().enumerate() {
        let name = format!("base-{n}");
        edited(&env, "busybox", &name, &json!({(field): value}));
        let source = format!("oci:{name}:x");
        let mut arguments = build(&pack, "x");
        let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
        arguments[at] = &source;
        let printed = env.fails(65, arguments);
        let expected = format!("{field} {shown} in the config of {source}");
        assert!(printed.contains(&expected), "{expected}: {printed}");
        assert!(printed.contains("use another image"), "{printed}");
    }
    assert_eq!(env.ok(["images"]).lines().count(), 2);
    env.assert_nothing_left();
}

#[test]
fn a_hostile_image_is_neither_set_up_nor_run_and_makes_no_volume() {
    let env = TestEnv::new();
    env.import_busybox();
    let files = [("bin/query", QUERY), ("bin/build", "#!/bin/sh\n"), ("bin/run", RUN)];
    let pack = env.write_pack("pack", &files);
    env.ok(build(&pack, "base"));
    env.ok(["setup", "-i", "base", "-t", "good", "--network", "none"]);
    for (n, (field, value, shown)) in hostile().into_iter().enumerate() {
        // A good volume beside the bad one is not made either.
        let mut fields = json!({"Volumes": {"/good": {}}});
        match value.as_object() {
            Some(more) if field == "Volumes" => {
                fields["Volumes"].as_object_mut().unwrap().extend(more.clone());
            }
            _ => fields[field] = value,
        }
        for (image, code, arguments) in [
            ("base", 65, &["setup", "-i", "bad", "-t", "x", "--network", "none"][..]),
            ("good", 125, &["run", "-d", "--network", "none", "bad"]),
        ] {
            let name = format!("{image}-{n}");
            edited(&env, image, &name, &fields);
            env.ok(["pull", &format!("oci:{name}:x"), "-t", "bad", "--force"]);
            let printed = env.fails(code, arguments);
            assert!(printed.contains(&format!("{field} {shown} in the config of")), "{printed}");
            assert!(printed.contains("bad:latest"), "{printed}");
        }
    }
    assert_eq!(env.ok(["volume", "ls", "--format", "json"]).trim(), "[]");
    assert_eq!(env.ok(["ps", "-a", "--format", "json"]).trim(), "[]");
    env.assert_nothing_left();
}

#[test]
fn odd_configs_of_real_images_work_and_exec_sees_the_services_tree() {
    let env = TestEnv::new();
    env.import_busybox();
    let fields = json!({
        "Volumes": {"/data/": {}, "/var//lib/./x": {}, "/sys/fs/cgroup": {}, "/dev/shm": {}},
        "WorkingDir": "app/", "User": "1000:1000", "StopSignal": "SIGRTMIN+3",
        "ExposedPorts": {"8080": {}, "9000-9002/TCP": {}, "38412/sctp": {}},
        "Env": ["PATH=/bin:/usr/bin", "A.b-c=1", "NOVALUE", "=odd", "LD_LIBRARY_PATH=/lib", "TWO=a\nb"],
        "Healthcheck": {"Test": ["CMD", "true"]}, "Entrypoint": ["x"], "Cmd": null,
    });
    edited(&env, "busybox", "odd", &fields);
    let build_script = "#!/bin/sh\nmkdir -p /data /var/lib/x; echo of-image >/data/file\n";
    let run = "#!/bin/sh\ntrap 'exit 0' RTMIN+3 TERM\n\
        echo data $(stat -c %i /data) x $(stat -c %i /var/lib/x) $(cat /data/file)\n\
        sleep 1000 & wait\n";
    let files = [("bin/query", QUERY), ("bin/build", build_script), ("bin/run", run)];
    let pack = env.write_pack("pack", &files);
    let pack = pack.to_str().unwrap();
    env.ok(["build", "-b", pack, "-t", "base", "--base", "oci:odd:x", "--network", "none"]);
    env.ok(["setup", "-i", "base", "-t", "s", "--network", "none"]);
    let mut svp = env.svp(["run", "-d", "--network", "none", "s"]);
    let started = output(&mut svp);
    let printed = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(started.status.success(), "{printed}");
    for ignored in ["/sys/fs/cgroup", "/dev/shm"] {
        assert!(printed.contains(&format!("volume at {ignored} is left out")), "{printed}");
    }
    let volumes: Value =
        serde_json::from_str(&env.ok(["volume", "ls", "--format", "json"])).unwrap();
    let names: Vec<&str> =
        volumes.as_array().unwrap().iter().map(|v| v["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["s.data", "s.var-lib-x"]);
    let look = "echo data $(stat -c %i /data) x $(stat -c %i /var/lib/x) $(cat /data/file)";
    let seen = env.ok(["exec", "s", "--", "sh", "-c", look]);
    assert!(seen.ends_with("of-image\n"), "{seen}");
    crate::support::wait_until("the service prints", || env.ok(["logs", "s"]) == seen);
    let env_seen = env.ok(["exec", "s", "--", "env"]);
    assert!(env_seen.contains("A.b-c=1\n") && env_seen.contains("TWO=a\nb\n"), "{env_seen}");
    env.ok(["stop", "s"]);
}

#[test]
fn a_volume_that_a_link_leads_to_the_systems_files_is_refused_and_not_made() {
    let env = TestEnv::new();
    env.import_busybox();
    for (n, (target, leads_to)) in [
        ("/proc/self", "/proc"),
        ("/proc/sys", "/proc"),
        ("/sys/fs", "/sys"),
        ("/dev/pts", "/dev"),
        ("/service/bin", "/service/bin"),
        ("/", "/"),
    ]
    .into_iter()
    .enumerate()
    {
        let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; volumes) echo /data;; esac\n";
        let script = format!("#!/bin/sh\nrm -rf /data; ln -s {target} /data\n");
        let files = [("bin/query", query), ("bin/build", &script), ("bin/run", RUN)];
        let pack = env.write_pack(&format!("pack-{n}"), &files);
        env.ok(build(&pack, &format!("base-{n}")));
        let (base, name) = (format!("base-{n}"), format!("i{n}"));
        env.ok(["setup", "-i", &base, "-t", &name, "--network", "none"]);
        let printed = env.fails(125, ["run", "-d", "--network", "none", &name]);
        let expected = format!("can't mount at /data: in the image it leads to {leads_to}\n");
        assert!(printed.contains(&expected), "{target}: {printed}");
        assert_eq!(env.ok(["volume", "ls", "-q"]), "", "{target}");
        assert_eq!(env.ok(["ps", "-aq"]), "");
    }
    env.assert_nothing_left();
}
