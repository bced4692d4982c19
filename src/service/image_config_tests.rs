use super::*;
use crate::oci::{Config, Platform};
use serde_json::{Value, json};

fn config(config: &Value) -> Config {
    let document = json!({
        "architecture": Platform::host().architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    Config::parse(document.to_string().as_bytes()).unwrap()
}

#[test]
fn hostile_configs_are_refused_with_field_value_and_image() {
    let long = format!("/{}", "x".repeat(5000));
    let variable = format!("A={}", "x".repeat(128 << 10));
    let many: Vec<String> = (0..20).map(|n| format!("V{n}={}", "x".repeat(100 << 10))).collect();
    let cases = [
        ("Volumes", json!({"/": {}}), "/"),
        ("Volumes", json!({"//": {}}), "//"),
        ("Volumes", json!({"/.": {}}), "/."),
        ("Volumes", json!({"": {}}), ""),
        ("Volumes", json!({"data": {}}), "data"),
        ("Volumes", json!({"./data": {}}), "./data"),
        ("Volumes", json!({"..": {}}), ".."),
        ("Volumes", json!({"/data/../proc": {}}), "/data/../proc"),
        ("Volumes", json!({"/data/..": {}}), "/data/.."),
        ("Volumes", json!({"/sys/fs/cgroup/..": {}}), "/sys/fs/cgroup/.."),
        ("Volumes", json!({"/proc": {}}), "/proc"),
        ("Volumes", json!({"/./proc//self/": {}}), "/./proc//self/"),
        ("Volumes", json!({"/sys": {}}), "/sys"),
        ("Volumes", json!({"/sys/fs": {}}), "/sys/fs"),
        ("Volumes", json!({"/dev": {}}), "/dev"),
        ("Volumes", json!({"/dev/null": {}}), "/dev/null"),
        ("Volumes", json!({"/service": {}}), "/service"),
        ("Volumes", json!({"/service/": {}}), "/service/"),
        ("Volumes", json!({"/service/bin": {}}), "/service/bin"),
        ("Volumes", json!({"/a:b": {}}), "/a:b"),
        ("Volumes", json!({"/a,b": {}}), "/a,b"),
        ("Volumes", json!({"/a\nb": {}}), "/a\\nb"),
        ("Volumes", json!({"/a\u{0}b": {}}), "/a\\0b"),
        ("Volumes", json!({(long.as_str()): {}}), "/xxx"),
        ("WorkingDir", json!("/proc/self/fd/7"), "/proc/self/fd/7"),
        ("WorkingDir", json!("proc/self/fd/8"), "proc/self/fd/8"),
        ("WorkingDir", json!("/../../etc"), "/../../etc"),
        ("WorkingDir", json!(".."), ".."),
        ("WorkingDir", json!("/sys/kernel"), "/sys/kernel"),
        ("WorkingDir", json!("/dev"), "/dev"),
        ("WorkingDir", json!("/a\u{1b}[2J"), "/a\\u{1b}[2J"),
        ("User", json!("root\n"), "root\\n"),
        ("User", json!("a:b:c"), "a:b:c"),
        ("User", json!("-1"), "-1"),
        ("User", json!("4294967295"), "4294967295"),
        ("User", json!("0:99999999999"), "0:99999999999"),
        ("User", json!("a b"), "a b"),
        ("Env", json!(["A=1\u{0}B"]), "A=1\\0B"),
        ("Env", json!(["A\nB=1"]), "A\\nB=1"),
        ("Env", json!([variable]), "A=xxx"),
        ("Env", json!(many), "V10=xxx"),
        ("ExposedPorts", json!({"80/tcp\n22/tcp": {}}), "80/tcp\\n22/tcp"),
        ("ExposedPorts", json!({"0/tcp": {}}), "0/tcp"),
        ("ExposedPorts", json!({"65536": {}}), "65536"),
        ("ExposedPorts", json!({"90-80/tcp": {}}), "90-80/tcp"),
        ("ExposedPorts", json!({"127.0.0.1:80/tcp": {}}), "127.0.0.1:80/tcp"),
        ("ExposedPorts", json!({"80/icmp": {}}), "80/icmp"),
        ("ExposedPorts", json!({"": {}}), ""),
        ("StopSignal", json!("SIGNOTHING"), "SIGNOTHING"),
        ("StopSignal", json!("SIGSTOP"), "SIGSTOP"),
        ("StopSignal", json!("0"), "0"),
    ];
    for (field, value, shown) in cases {
        let error = check(&config(&json!({(field): value})), "docker://r/bad:1").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{field} \"{shown}")), "{field} {value}: {text}");
        assert!(text.contains("docker://r/bad:1"), "{text}");
        assert_eq!(error.kind(), crate::error::Kind::BadInput);
        assert!(error.hint_text().is_some_and(|hint| hint.contains(field)), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

#[test]
fn odd_but_real_configs_work() {
    for value in [
        json!(null),
        json!({"WorkingDir": "", "User": "", "StopSignal": ""}),
        json!({"WorkingDir": "/"}),
        json!({"WorkingDir": "app"}),
        json!({"WorkingDir": "/usr/src/app/"}),
        json!({"WorkingDir": "/app//x/."}),
        json!({"WorkingDir": "/service"}),
        json!({"User": "1000:1000"}),
        json!({"User": "nobody"}),
        json!({"User": "www-data:www-data"}),
        json!({"User": "1000:"}),
        json!({"User": ":0"}),
        json!({"User": "user@DOMAIN"}),
        json!({"Env": ["PATH=/bin", "LD_PRELOAD=/usr/lib/libjemalloc.so.2", "A", "=x", "A.B-c=1",
            "EMPTY=", "npm_config_//r/:_x=1", "BASH_FUNC_f%%=() { :\n}", "LINES=a\nb", "ü=ü"]}),
        json!({"ExposedPorts": {"80": {}, "443/TCP": {}, "53/udp": {}, "8000-8010/tcp": {},
            "38412/sctp": {}, "16384-32768/udp": {}}}),
        json!({"Volumes": {"/data/": {}, "/var//lib/./x": {}, "/sys/fs/cgroup": {}, "/dev/shm": {},
            "/run": {}, "/tmp": {}, "/service/data": {}, "/with space": {}, "/ü": {}}}),
        json!({"StopSignal": "SIGRTMIN+3"}),
        json!({"StopSignal": "9"}),
        json!({"StopSignal": "quit"}),
    ] {
        check(&config(&value), "x").unwrap_or_else(|error| panic!("{value}: {error}"));
    }
}

#[test]
fn volumes_are_normalised_and_those_that_svp_provides_are_ignored() {
    let value = json!({"Volumes": {"/a//b/./": {}, "/sys/fs/cgroup": {}, "/dev/shm/": {}}});
    let found = volumes(&config(&value));
    let at = |path: &str| ImageVolume::At(path.to_owned());
    assert!(found.contains(&at("/a/b")), "{found:?}");
    let ignored = |volume: &&ImageVolume| matches!(volume, ImageVolume::Ignored(..));
    assert_eq!(found.iter().filter(ignored).count(), 2, "{found:?}");
}

#[test]
fn ports_are_expanded_and_counted() {
    let exposed = |ports: &Value| ports_of(&json!({"ExposedPorts": ports}));
    fn ports_of(value: &Value) -> Result<Vec<String>> {
        Ok(ports(&config(value))?.iter().map(Port::to_string).collect())
    }
    let found = exposed(&json!({"080/TCP": {}, "80": {}, "90-92/udp": {}, "7/sctp": {}})).unwrap();
    assert_eq!(found, ["80/tcp", "90/udp", "91/udp", "92/udp"]);
    let error = exposed(&json!({"16384-32768/udp": {}})).unwrap_err();
    assert!(error.hint_text().unwrap().contains("query ports"), "{error}");
}
