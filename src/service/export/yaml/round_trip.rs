//! Tests that an independent parser reads back any text.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::Yaml;

/// Parses YAML documents with PyYAML.
#[track_caller]
fn parse(text: &str) -> Vec<Value> {
    let script =
        "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(sys.stdin.buffer))))";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 with PyYAML: run `make deps`");
    let mut stdin = python.stdin.take().expect("a pipe");
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = python.wait_with_output().expect("output");
    writer.join().expect("a thread").expect("python reads everything");
    assert!(output.status.success(), "python3 failed");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn any_text_is_read_back_from_yaml() {
    let mut runner = TestRunner::deterministic();
    let texts = proptest::string::string_regex(
        r#"(\PC|[\x00-\x20\x7f-\xa0]|[-:#'"!|>%@`{}\[\],&*?~=$. \n]|[0-9eE._]{1,5}){0,12}"#,
    );
    let texts = texts.unwrap();
    let mut all: Vec<String> =
        (0..3000).map(|_| texts.new_tree(&mut runner).unwrap().current()).collect();
    let known = "y N yes no On OFF true False null ~ 1 1.0 .5 -1 +1 0x1f 0o7 1_000 1e3 12:30 2026-01-01 .inf .nan << = - -- --- ... \u{feff} a: :a \u{85} \u{2028} a\u{2029} | |- > ? ! & * % @ `";
    all.extend(known.split(' ').map(String::from));
    all.extend(
        [
            "",
            " ",
            "a\n",
            "\na",
            "a\n\n",
            " a\nb",
            "a\n b\n\n  c\n",
            "a\n\t\nb",
            "a \nb",
            "a\r\nb",
            "#a\nb\n",
            "---\na\n",
        ]
        .map(String::from),
    );
    // As keys, as values, in lists, alone, nested.
    let map: BTreeMap<&String, &String> = all.iter().zip(all.iter().rev()).collect();
    let entries = map.iter().map(|(key, value)| ((*key).clone(), Yaml::from(value.as_str())));
    let list: Vec<Yaml> = all.iter().map(|text| Yaml::from(text.as_str())).collect();
    let nested = Yaml::List(vec![Yaml::List(list.clone()), Yaml::Map(vec![])]);
    let document = Yaml::from([
        ("map", Yaml::Map(entries.collect())),
        ("list", list.into()),
        ("nested", nested),
    ]);
    let expected = serde_json::json!({"map": map, "list": all, "nested": [all, {}]});
    let read = parse(&document.document());
    for (n, text) in all.iter().enumerate() {
        assert_eq!(read[0]["list"][n], *text, "{:?}", Yaml::from(text.as_str()).document());
    }
    assert!(read[0] == expected, "keys or nested texts are read otherwise");
}
