//! A store with very many tags: the work is spread over threads, and each image is read once, whatever its tags.

use std::collections::HashSet;
use std::fs;
use std::time::Instant;

use crate::support::{TestEnv, many};
use serde_json::Value;

fn json(env: &TestEnv, arguments: &[&str]) -> Value {
    let text = env.ok([arguments, &["--format", "json"]].concat());
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn many_tags_are_listed_measured_and_removed() {
    let env = TestEnv::new();
    many::fill(&env.store(), 100, 300);
    let list = json(&env, &["images"]);
    let list = list.as_array().unwrap();
    let names: HashSet<_> = list.iter().map(|image| image["repository"].to_string()).collect();
    let digests: HashSet<_> = list.iter().map(|image| image["digest"].to_string()).collect();
    assert_eq!((list.len(), names.len(), digests.len()), (300, 300, 100));
    assert!(list.iter().all(|image| image["size"].is_u64()));
    let tags = json(&env, &["inspect", "team/n7:t7"]);
    assert_eq!(tags["tags"], serde_json::json!(["team/n107:t107", "team/n207:t207", "team/n7:t7"]));
    assert_eq!(json(&env, &["df", "-v"])["images"].as_array().unwrap().len(), 100);
    assert_eq!(env.ok(["check", "--store"]), "");

    let blobs = || fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
    let before = blobs();
    // Other tags refer to the same image.
    assert_eq!(env.ok(["rmi", "team/n7:t7", "team/n7:t7"]), "team/n7:t7\n");
    assert_eq!(blobs(), before);
    // The last tag takes the image's manifest, config and own layer with it.
    assert_eq!(env.ok(["rmi", "team/n107:t107", "team/n207:t207"]).lines().count(), 2);
    assert_eq!(blobs(), before - 3);
    // None is removed if one is missing.
    assert!(env.fails(65, ["rmi", "team/n1:t1", "team/n7:t7"]).contains("team/n7:t7"));
    assert_eq!(json(&env, &["images"]).as_array().unwrap().len(), 297);
    assert_eq!(json(&env, &["prune"]), serde_json::json!([]));
    assert_eq!(env.ok(["check", "--store"]), "");
    let all: Vec<String> = (0..300).map(|n| format!("team/n{n}:t{n}")).collect();
    let left = all
        .iter()
        .map(String::as_str)
        .filter(|name| !tags["tags"].as_array().unwrap().contains(&(*name).into()));
    env.ok(["rmi"].into_iter().chain(left));
    assert_eq!(blobs(), 0);
    env.assert_nothing_left();
}

/// Prints the figures of docs/decisions/050-many-tags.md.
#[test]
#[ignore = "fifty thousand tags: make soak"]
fn fifty_thousand_tags_work() {
    let env = TestEnv::new();
    many::fill(&env.store(), 5000, 50_000);
    env.ok(["images"]);
    let commands: &[&[&str]] = &[
        &["images"],
        &["inspect", "team/n9:t9"],
        &["tag", "team/n9:t9", "new"],
        &["rmi", "new"],
        &["df"],
        &["df", "-v"],
        &["prune", "--dry-run"],
        &["prune"],
        &["check", "--store"],
    ];
    for command in commands {
        let since = Instant::now();
        env.ok(*command);
        println!("{:>6.2} s  svp {}", since.elapsed().as_secs_f64(), command.join(" "));
    }
}
