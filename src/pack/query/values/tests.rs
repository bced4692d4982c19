use rstest::rstest;

use super::*;
use crate::error::Kind;
use crate::pack::query::parse_health;

const SCRIPT: &str = "bin/query";

/// Asserts that the error names the script and the key, is [`Kind::BadInput`], and contains `says`.
fn refused<T: std::fmt::Debug>(result: Result<T>, key: &str, says: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    let text = error.to_string();
    assert!(text.contains(&format!("`bin/query {key}`")), "{text}");
    assert!(text.contains(says), "{text} lacks {says}");
}

#[rstest]
#[case("")]
#[case("\n")]
#[case("0")]
#[case("0\n")]
fn version_0_is_accepted(#[case] output: &str) {
    assert_eq!(parse_version(output.as_bytes(), SCRIPT).unwrap(), 0);
}

#[rstest]
#[case("1\n", "line 1: \"1\": unsupported version")]
#[case("00", "unsupported version")]
#[case("0 ", "unsupported version")]
#[case("0.0", "unsupported version")]
#[case("v0", "unsupported version")]
#[case("0\n0\n", "line 2: \"0\": only one line")]
#[case("usage: query KEY\n", "unsupported version")]
fn other_versions_are_refused(#[case] output: &str, #[case] says: &str) {
    refused(parse_version(output.as_bytes(), SCRIPT), "version", says);
}

#[rstest]
#[case("ubuntu/13.04\n", "ubuntu", "13.04")]
#[case("debian/12", "debian", "12")]
#[case("busybox/1.36-musl\n\n", "busybox", "1.36-musl")]
#[case("rocky-linux/9_1", "rocky-linux", "9_1")]
fn an_os_is_a_name_and_a_version(#[case] output: &str, #[case] name: &str, #[case] version: &str) {
    let os = parse_os(output.as_bytes(), SCRIPT).unwrap();
    assert_eq!((os.name.as_str(), os.version.as_str()), (name, version));
    assert_eq!(os.to_string(), output.trim_end());
}

#[rstest]
#[case("", "prints nothing")]
#[case("\n", "prints nothing")]
#[case("debian", "not NAME/VERSION")]
#[case("debian/", "the version")]
#[case("/12", "the name")]
#[case("Debian/12", "the name")]
#[case("debian-/12", "the name")]
#[case("debian/12/x", "the version")]
#[case("debian/-12", "the version")]
#[case("debian/12 ", "the version")]
#[case(" debian/12", "the name")]
#[case("../12", "the name")]
#[case("evil.example:5000/x", "the name")]
#[case("debian/12@sha256:00", "the version")]
#[case("debian/12\nubuntu/24.04\n", "line 2")]
#[case("debian/12\r\n", "carriage return")]
fn an_invalid_os_is_refused(#[case] output: &str, #[case] says: &str) {
    refused(parse_os(output.as_bytes(), SCRIPT), "os", says);
}

#[test]
fn secrets_are_names() {
    let secrets = parse_secrets(b"MYSQL_PASSWORD\n_x\n", SCRIPT).unwrap();
    assert_eq!(secrets, ["MYSQL_PASSWORD", "_x"]);
    assert!(parse_secrets(b"", SCRIPT).unwrap().is_empty());
}

#[rstest]
#[case("A\nB\nA\n", "line 3: \"A\": duplicate")]
#[case("A=1\n", "invalid variable name")]
#[case("A B\n", "invalid variable name")]
#[case("A\n B\n", "line 2: \" B\": invalid variable name")]
#[case("LD_PRELOAD\n", "may not set this variable")]
#[case("PATH\n", "may not set this variable")]
fn invalid_secrets_are_refused(#[case] output: &str, #[case] says: &str) {
    refused(parse_secrets(output.as_bytes(), SCRIPT), "secrets", says);
}

#[rstest]
#[case("A=1", "A", "1")]
#[case("A=", "A", "")]
#[case("A=b=c", "A", "b=c")]
#[case("A==", "A", "=")]
#[case("A= two  words ", "A", " two  words ")]
#[case("A=\"quoted\"", "A", "\"quoted\"")]
#[case("A=tab\there", "A", "tab\there")]
#[case("A=$HOME `id` %d", "A", "$HOME `id` %d")]
#[case("A=\u{e4}\u{1f600}", "A", "\u{e4}\u{1f600}")]
fn env_values_are_kept_verbatim(#[case] line: &str, #[case] name: &str, #[case] value: &str) {
    let env = parse_env(line.as_bytes(), SCRIPT).unwrap();
    assert_eq!(env, [EnvVar { name: name.into(), value: value.into() }]);
    assert_eq!(env[0].to_string(), line);
}

#[rstest]
#[case("A\n", "line 1: \"A\": not NAME=VALUE")]
#[case("A=1\nB=2\nA=3\n", "line 3: \"A=3\": duplicate \"A\"")]
#[case("=1\n", "invalid variable name")]
#[case("A =1\n", "invalid variable name")]
#[case("export A=1\n", "invalid variable name")]
#[case("PATH=/x\n", "may not set this variable: it determines where programs are found")]
#[case("LD_PRELOAD=/x.so\n", "may not set this variable")]
#[case("BASH_ENV=/x\n", "may not set this variable")]
#[case("A=1\n\nB=2\n", "line 2")]
#[case("A=1\r\n", "carriage return")]
#[case("A=\x1b]0;x\x07\n", "control character")]
fn invalid_env_lines_are_refused(#[case] output: &str, #[case] says: &str) {
    refused(parse_env(output.as_bytes(), SCRIPT), "env", says);
}

#[rstest]
#[case("%IP", Some("10.0.0.2"))]
#[case("http://%IP:80/", Some("http://10.0.0.2:80/"))]
#[case("%IP,%IP", Some("10.0.0.2,10.0.0.2"))]
#[case("%IPX %IP", Some("%IPX 10.0.0.2"))]
#[case("%IP_X", None)]
#[case("%IP6", None)]
#[case("%ip", None)]
#[case("100%", None)]
#[case("%HOST", None)]
#[case("", None)]
#[case("%%IP", Some("%10.0.0.2"))]
#[case("%IP\u{e4}", Some("10.0.0.2\u{e4}"))]
fn the_address_replaces_only_its_placeholder(#[case] value: &str, #[case] expected: Option<&str>) {
    let var = EnvVar { name: "A".into(), value: value.into() };
    assert_eq!(var.needs_ip(), expected.is_some());
    assert_eq!(var.with_ip("10.0.0.2"), expected.unwrap_or(value));
}

#[test]
fn components_are_names() {
    assert_eq!(parse_components(b"hipache\nredis\n", SCRIPT).unwrap(), ["hipache", "redis"]);
}

#[rstest]
#[case("redis\nredis\n", "line 2: \"redis\": duplicate")]
#[case("-x\n", "invalid component name")]
#[case("a/b\n", "invalid component name")]
#[case("..\n", "invalid component name")]
#[case("a b\n", "invalid component name")]
fn invalid_components_are_refused(#[case] output: &str, #[case] says: &str) {
    refused(parse_components(output.as_bytes(), SCRIPT), "components", says);
}

#[test]
fn volumes_are_absolute_paths() {
    let output = b"/var/lib/mysql\n/service/data\n/with space\n/system\n";
    let volumes = parse_volumes(output, SCRIPT).unwrap();
    assert_eq!(volumes, ["/var/lib/mysql", "/service/data", "/with space", "/system"]);
}

#[rstest]
#[case("data", "absolute path")]
#[case("/", "would hide the image")]
#[case("/service", "would hide the image")]
#[case("/service/", "can't contain `.`, `..`")]
#[case("/a/../b", "can't contain `.`, `..`")]
#[case("/a//b", "can't contain `.`, `..`")]
#[case("/./a", "can't contain `.`, `..`")]
#[case("/proc/self", "reserved for the system")]
#[case("/dev", "reserved for the system")]
#[case("/a:ro", "colon")]
#[case("/a\n/a", "line 2: \"/a\": duplicate")]
fn invalid_volumes_are_refused(#[case] output: &str, #[case] says: &str) {
    refused(parse_volumes(output.as_bytes(), SCRIPT), "volumes", says);
}

#[test]
fn health_is_one_command() {
    assert_eq!(parse_health(b"", SCRIPT).unwrap(), None);
    let health = parse_health(b"mysqladmin ping -h 127.0.0.1\n", SCRIPT).unwrap();
    let command = health.map(|health| health.command);
    assert_eq!(command.as_deref(), Some("mysqladmin ping -h 127.0.0.1"));
    refused(parse_health(b" \n", SCRIPT), "health", "empty command");
    refused(parse_health(b"a\nb\n", SCRIPT), "health", "line 2");
}

#[test]
fn env_may_not_repeat_a_secret() {
    let env = parse_env(b"A=1\nB=2\n", SCRIPT).unwrap();
    assert!(overlap(&["C".into()], &env, SCRIPT).is_ok());
    let error = overlap(&["C".into(), "B".into()], &env, SCRIPT).unwrap_err();
    assert!(error.to_string().contains("repeats the secret B"), "{error}");
}

proptest::proptest! {
    /// No parser panics on any output, and accepted values are printed as they were written.
    #[test]
    fn any_output_is_parsed_or_refused(output in proptest::collection::vec(
        proptest::prop_oneof![
            3 => proptest::sample::select(b"A_Z=%IP/.:-09 \t\n".to_vec()),
            1 => proptest::prelude::any::<u8>(),
        ], 0..60))
    {
        let _ = (parse_version(&output, SCRIPT), parse_os(&output, SCRIPT));
        let _ = (parse_secrets(&output, SCRIPT), parse_components(&output, SCRIPT));
        let _ = (parse_volumes(&output, SCRIPT), parse_health(&output, SCRIPT));
        let _ = super::super::parse_ports(&output, SCRIPT);
        if let Ok(env) = parse_env(&output, SCRIPT) {
            let shown: String = env.iter().map(|var| format!("{var}\n")).collect();
            let text = String::from_utf8(output).unwrap();
            proptest::prop_assert_eq!(shown.trim_end_matches('\n'), text.trim_end_matches('\n'));
            for var in &env {
                proptest::prop_assert_eq!(var.with_ip("%IP"), &var.value[..]);
            }
        }
    }
}
