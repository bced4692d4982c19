use proptest::prelude::*;

use super::*;

const BASE: &str = r#"{
  "architecture": "arm64", "os": "linux", "variant": "v8", "docker_version": "20.10", "made.up": {"b": [1], "a": null},
  "config": {"Cmd": ["bash"], "Env": ["PATH=/bin", "A=1", "EMPTY"], "User": "nobody",
             "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30000000000}, "OnBuild": ["RUN x"],
             "Shell": ["/bin/ash"], "Labels": {"a": "1", "b": "2"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": null},
  "history": [{"created_by": "ADD rootfs", "author": "someone"}, {"created_by": "CMD", "empty_layer": true}],
  "rootfs": {"type": "layers", "diff_ids": ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]}
}"#;

fn base() -> Config {
    Config::parse(BASE.as_bytes()).unwrap()
}

#[test]
fn unknown_fields_survive_an_edit() {
    let mut config = base();
    config.set_entrypoint(&["/service/bin/run"]);
    config.set_working_dir("/service");
    config.clear_user();
    let mut expected: Value = serde_json::from_str(BASE).unwrap();
    let inner = expected["config"].as_object_mut().unwrap();
    inner.remove("Cmd");
    inner.remove("User");
    inner.insert("Entrypoint".into(), json!(["/service/bin/run"]));
    inner.insert("WorkingDir".into(), json!("/service"));
    assert_eq!(serde_json::from_slice::<Value>(&config.encode()).unwrap(), expected);
    assert_eq!(config.platform().to_string(), "linux/arm64/v8");
}

#[test]
fn names_that_others_read_as_a_field_are_refused() {
    for (name, in_config) in [
        ("volumes", true),
        ("VOLUMES", true),
        ("Volume\u{17f}", true),
        ("workingdir", true),
        ("cmd", true),
        ("Config", false),
        ("Rootfs", false),
        ("ROOTF\u{17f}", false),
        ("Architecture", false),
    ] {
        let mut config: Value = serde_json::from_str(BASE).unwrap();
        let at = if in_config { &mut config["config"] } else { &mut config };
        at[name] = json!({"/proc": {}});
        let error = Config::parse(config.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("which other programs read as"), "{name}: {error}");
    }
    // Names that no field has are kept.
    let mut config: Value = serde_json::from_str(BASE).unwrap();
    config["config"]["com.example"] = json!(1);
    config["volumes"] = json!({});
    assert!(Config::parse(config.to_string().as_bytes()).is_ok());
}

#[test]
fn env_keeps_its_order() {
    let mut config = base();
    config.set_env("A", "2=3");
    config.set_env("NEW", "");
    config.set_env("EMPTY", "x");
    assert_eq!(config.env(), ["PATH=/bin", "A=2=3", "EMPTY=x", "NEW="]);
}

#[test]
fn maps_are_merged() {
    let mut config = base();
    config.set_label("b", "3");
    config.set_label("c", "4");
    config.remove_label("a");
    config.add_exposed_port("3306/tcp");
    config.add_volume("/var/lib/mysql");
    assert_eq!(json!(config.labels()), json!({"b": "3", "c": "4"}));
    assert_eq!(config.exposed_ports(), ["3306/tcp", "80/tcp"]);
    assert_eq!(config.volumes(), ["/var/lib/mysql"]);
}

#[test]
fn history_has_one_entry_for_each_layer() {
    let entry = History { created_by: "svp build".into(), ..Default::default() };
    let mut config = base();
    config.append_layer(Digest::of("1"), &entry).unwrap();
    let by: Vec<_> = config.history().into_iter().map(|h| h.created_by).collect();
    assert_eq!(by, ["ADD rootfs", "CMD", "svp build"]);
    assert_eq!(config.as_json()["history"][0]["author"], "someone");
    assert_eq!(config.diff_ids().unwrap(), [Digest::of("abc"), Digest::of("1")]);

    let mut silent: Value = serde_json::from_str(BASE).unwrap();
    silent.as_object_mut().unwrap().remove("history");
    let mut config = Config::parse(&canonical(&silent)).unwrap();
    config.append_layer(Digest::of("1"), &entry).unwrap();
    assert_eq!(config.history().len(), 2);
    assert_eq!(config.history()[1].created_by, "svp build");
}

#[test]
fn incomplete_and_malformed_configs_are_refused() {
    let edit = |path: &str, to: Value| {
        let mut value: Value = serde_json::from_str(BASE).unwrap();
        *value.pointer_mut(path).unwrap() = to;
        canonical(&value)
    };
    let cases = [
        (b"[]".to_vec(), "not an object"),
        (edit("/os", json!("")), "no os"),
        (edit("/architecture", Value::Null), "no architecture"),
        (edit("/rootfs", Value::Null), "no rootfs"),
        (edit("/rootfs/type", json!("windows")), "another rootfs type"),
        (edit("/rootfs/diff_ids", json!(["md5:00"])), "another algorithm"),
        (edit("/config", json!([])), "config is a list"),
        (edit("/config/Env", json!([1])), "Env of numbers"),
        (edit("/config/Cmd", json!("sh")), "Cmd is a string"),
        (edit("/config/Labels", json!([])), "Labels is a list"),
        (edit("/config/User", json!(0)), "User is a number"),
        (vec![b' '; MAX_CONFIG as usize + 1], "too large"),
    ];
    for (bytes, name) in cases {
        let error = Config::parse(&bytes).expect_err(name);
        assert_eq!(error.kind().exit_code(), 65, "{name}");
    }
}

#[test]
fn times() {
    assert_eq!(timestamp(0).unwrap(), "1970-01-01T00:00:00Z");
    assert_eq!(timestamp(1_700_000_000).unwrap(), "2023-11-14T22:13:20Z");
    assert!(timestamp(-1).is_err());
    assert!(timestamp(i64::MAX).is_err());
}

/// Generates any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z.]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Generates known keys, so that odd values get to fields that svp reads.
fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Env",
        "Entrypoint",
        "Cmd",
        "Labels",
        "Volumes",
        "User",
        "WorkingDir",
        "ExposedPorts",
        "X",
    ])
}

proptest! {
    #[test]
    fn edits_never_panic_or_lose_other_fields(
        odd in any_json(), key in key(), other in any_json(), top in any_json(),
    ) {
        let mut value: Value = serde_json::from_str(BASE).unwrap();
        value["config"][key] = odd;
        value["config"]["Unknown"] = other.clone();
        value["history"] = top.clone();
        value["top"] = top.clone();
        let Ok(mut config) = Config::parse(&canonical(&value)) else { return Ok(()) };
        config.set_env("NAME", "value");
        config.set_entrypoint(&["/x"]);
        config.set_label("a", "b");
        config.add_volume("/v");
        config.add_exposed_port("1/tcp");
        config.clear_user();
        config.append_layer(Digest::of("x"), &History::default()).unwrap();
        let again = Config::parse(&config.encode()).unwrap();
        prop_assert_eq!(&again, &config);
        prop_assert_eq!(&again.as_json()["config"]["Unknown"], &other);
        prop_assert_eq!(&again.as_json()["top"], &top);
        prop_assert_eq!(again.label("a"), Some("b"));
        prop_assert!(again.env().contains(&"NAME=value".to_owned()));
        prop_assert!(again.cmd().is_empty());
    }
}
