//! The layer contains exactly the changes, and a base's config survives.

use serde_json::{Value, json};

use crate::e2e::common::{blob, build, build_layout, config, last_layer, manifest, pack_with};
use crate::support::{TestEnv, busybox_base, check_schema, conformance, run};

#[test]
fn touched_files_are_not_changes() {
    let env = TestEnv::new();
    let script = "
        : >>/etc/passwd; exec 3<>/etc/group; exec 3>&-
        touch /tmp/gone; rm /tmp/gone
        cp /etc/passwd /home/copy
        chmod 600 /etc/os-release; chmod 644 /etc/os-release
        mkdir /opt; rmdir /opt";
    let out = build_layout(&env, script, "exact");
    // In /tmp, the script created and removed an entry: only the directory's time has changed.
    let mut files = last_layer(&out, "exact:latest");
    files.retain(|name| name != "tmp/");
    assert_eq!(files, ["home/", "home/copy"]);
}

#[test]
fn undone_changes_are_not_in_the_layer() {
    let env = TestEnv::new();
    let script = "
        exec 3>/home/opened; exec 3>&-; rm /home/opened
        cp /etc/passwd /home/copy
        chmod 700 /etc/group; chmod 644 /etc/group";
    let out = build_layout(&env, script, "exact");
    assert_eq!(last_layer(&out, "exact:latest"), ["home/", "home/copy"]);
}

#[test]
fn a_script_that_changes_nothing_gives_an_empty_layer() {
    let env = TestEnv::new();
    let out = build_layout(&env, "true", "nothing");
    assert_eq!(last_layer(&out, "nothing:latest"), [""; 0]);
}

/// Returns the busybox base as a layout made by umoci, with a config edited by hand.
fn edited_base(env: &TestEnv) -> std::path::PathBuf {
    base_with(
        env,
        json!({
            "Cmd": ["bash"], "Env": ["PATH=/bin", "BASE=1", "KEPT=a=b"], "User": "nobody",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3_000_000_000_u64},
            "OnBuild": ["RUN x"], "Shell": ["/bin/sh"], "StopSignal": "SIGUSR1",
            "Labels": {"from.base": "kept", "org.opencontainers.image.title": "the base's"},
            "x-nobody-knows": {"deep": [1, {"z": null, "a": 1.5}]},
        }),
    )
}

/// Returns the busybox base as a layout with the tag `base`, with this `config` in its config.
pub fn base_with(env: &TestEnv, inner: Value) -> std::path::PathBuf {
    let layout = env.path("base");
    let image = format!("{}:base", layout.display());
    run("umoci", ["init", "--layout", layout.to_str().unwrap()]);
    run("umoci", ["new", "--image", &image]);
    run("umoci", ["raw", "add-layer", "--image", &image, busybox_base().to_str().unwrap()]);
    let mut edited = config(&layout, "base");
    edited["config"] = inner;
    edited["x-top"] = json!("kept too");
    let mut image = manifest(&layout, "base");
    replace(&layout, &mut image["config"], &edited);
    let index = layout.join("index.json");
    let mut list = crate::e2e::common::json(&index);
    replace(&layout, &mut list["manifests"][0], &image);
    std::fs::write(index, list.to_string()).unwrap();
    layout
}

/// Stores a new blob and updates the descriptor.
fn replace(layout: &std::path::Path, descriptor: &mut Value, content: &Value) {
    use sha2::{Digest, Sha256};
    let text = content.to_string();
    let hex =
        Sha256::digest(&text).iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
    descriptor["digest"] = json!(format!("sha256:{hex}"));
    descriptor["size"] = json!(text.len());
    std::fs::write(blob(layout, descriptor), text).unwrap();
}

#[test]
fn the_config_of_the_base_is_kept_except_for_cmd() {
    let env = TestEnv::new();
    let layout = edited_base(&env);
    let query = "#!/bin/sh\ncase $1 in os) echo busybox/1;; secrets) echo S;; env) echo A=1; echo H=%IP; echo X_PORT=80;;\n\
                 ports) echo 99/udp;; volumes) echo /data;; esac\n";
    let files =
        [("bin/query", query), ("bin/build", "#!/bin/sh\ntrue\n"), ("bin/run", "#!/bin/sh\n")];
    let pack = env.write_pack("pack", &files);
    let out = env.path("out");
    let base = format!("oci:{}:base", layout.display());
    let mut arguments = build(&pack, "shop/thing:2");
    let at = arguments.iter().position(|argument| *argument == "busybox").unwrap();
    arguments[at] = &base;
    arguments.extend(["--oci-dir", out.to_str().unwrap()]);
    let digest = env.ok(arguments);
    assert!(digest.starts_with("sha256:") && digest.trim_end().len() == 71, "{digest:?}");

    let image = config(&out, "shop/thing:2");
    let inner = &image["config"];
    assert_eq!(inner["Healthcheck"]["Interval"], 3_000_000_000_u64);
    assert_eq!(inner["x-nobody-knows"], json!({"deep": [1, {"z": null, "a": 1.5}]}));
    assert_eq!(image["x-top"], "kept too");
    assert_eq!(inner["OnBuild"], json!(["RUN x"]));
    assert_eq!(inner["StopSignal"], "SIGUSR1");
    assert_eq!(inner["Env"], json!(["PATH=/bin", "BASE=1", "KEPT=a=b", "A=1", "X_PORT=80"]));
    assert_eq!(inner["Entrypoint"], json!(["/service/bin/run"]));
    assert_eq!(inner["WorkingDir"], "/service");
    assert!(inner.get("Cmd").is_none() && inner.get("User").is_none(), "{inner:#}");
    assert_eq!(inner["ExposedPorts"], json!({"99/udp": {}}));
    assert_eq!(inner["Volumes"], json!({"/data": {}}));
    let labels = &inner["Labels"];
    assert_eq!(labels["from.base"], "kept");
    assert_ne!(labels["org.opencontainers.image.title"], "the base's");
    for name in [
        "org.opencontainers.image.created",
        "org.opencontainers.image.base.digest",
        "dev.servicepack.version",
        "dev.servicepack.os",
        "dev.servicepack.phase",
        "dev.servicepack.pack",
    ] {
        assert!(labels[name].is_string(), "{name} is missing: {labels:#}");
    }
    assert_eq!(labels["dev.servicepack.secrets"], "S");
    assert_eq!(labels["dev.servicepack.phase"], "base");

    let manifest = manifest(&out, "shop/thing:2");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    assert_eq!(image["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    check_schema("image-index-schema", &out.join("index.json"));
    check_schema("image-layout-schema", &out.join("oci-layout"));
    let index = crate::e2e::common::json(&out.join("index.json"));
    let manifest_file = blob(&out, &index["manifests"][0]);
    check_schema("image-manifest-schema", &manifest_file);
    check_schema("config-schema", &blob(&out, &manifest["config"]));
    conformance(&out);
}

#[test]
fn other_tags_of_a_layout_are_kept() {
    let env = TestEnv::new();
    let out = build_layout(&env, "echo 1 >/one", "one");
    let pack = pack_with(&env, "two", "echo 2 >/two");
    let mut arguments = build(&pack, "two:x");
    arguments.extend(["--oci-dir", out.to_str().unwrap()]);
    env.ok(arguments.clone());
    env.ok(arguments);
    assert_eq!(last_layer(&out, "one:latest"), ["one"]);
    last_layer(&out, "two:x");
    let index = crate::e2e::common::json(&out.join("index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    conformance(&out);
}
