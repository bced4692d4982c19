//! The import graph: which module may import which, and that only the command line prints. See docs/architecture.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::repo;
use crate::support::sources::rust_files;

/// A module of the crate and the modules that it may import. Every module must be listed here.
const ARROWS: &[(&str, &[&[&str]])] = &[
    ("error", &[]),
    ("diagnostics", &[]),
    ("progress", &[]),
    ("sys", &[GROUND]),
    ("interrupt", &[GROUND, &["sys"]]),
    ("random_name", &[]),
    ("mountinfo", &[]),
    ("shell_words", &[]),
    ("remove_tree", &[]),
    ("channel", &[]),
    ("atomic_file", &[GROUND, &["interrupt", "random_name"]]),
    ("oci", &[GROUND]),
    ("rootfs", &[GROUND]),
    ("layer", &[GROUND, PURE]),
    ("secret", &[GROUND, PURE]),
    ("registry", &[GROUND, PURE]),
    ("store", &[GROUND, PURE, &["layer"]]),
    ("pack", &[GROUND, PURE, &["layer"]]),
    ("sandbox", &[GROUND, PURE, &["layer", "store", "config"]]),
    ("source", &[GROUND, PURE, &["layer", "store", "registry"]]),
    ("import", &[GROUND, PURE, &["layer", "store", "source"]]),
    ("config", &[GROUND]),
    ("service", &[GROUND, PURE, PARTS]),
    ("upkeep", &[GROUND, PURE, PARTS, &["service", "pipeline"]]),
    ("pipeline", &[GROUND, PURE, PARTS, &["service", "config"]]),
];

const GROUND: &[&str] = &["error", "progress", "diagnostics"];
const PURE: &[&str] = &[
    "sys",
    "mountinfo",
    "shell_words",
    "interrupt",
    "random_name",
    "remove_tree",
    "channel",
    "atomic_file",
    "oci",
    "rootfs",
];
const PARTS: &[&str] =
    &["layer", "secret", "registry", "store", "pack", "sandbox", "source", "import"];

/// The command line and the crate's root, which may import every module.
const ABOVE: &[&str] = &["cli", "lib", "main"];

/// Returns the source files, each with its top-level module.
fn sources() -> Vec<(String, PathBuf)> {
    let root = repo().join("src");
    let module = |path: PathBuf| {
        let first = path.strip_prefix(&root).expect("below src").iter().next().expect("a name");
        (Path::new(first).with_extension("").display().to_string(), path.clone())
    };
    let found: Vec<_> = rust_files(&root).into_iter().map(module).collect();
    assert!(found.len() > 5, "no sources found below {}", root.display());
    found
}

/// Returns the code of a file, without comments and unit tests (which end a file).
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file");
    let text = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part");
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the top-level modules named by `crate::NAME` or `crate::{NAME, …}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.extend(first_name(&std::mem::take(&mut name))),
                    _ if depth == 0 => name.push(character),
                    _ => {}
                }
            }
            found.extend(first_name(&name));
        } else {
            found.extend(first_name(rest));
        }
    }
    found
}

fn first_name(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_string())
}

#[test]
fn imports_are_listed_in_arrows() {
    let mut wrong = Vec::new();
    for (module, path) in sources() {
        if ABOVE.contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module {module} is not listed in ARROWS", path.display()));
            continue;
        };
        for import in imports(&code(&path)) {
            if import != module && !allowed.iter().any(|group| group.contains(&import.as_str())) {
                wrong.push(format!("{}: {module} may not import {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_command_line_prints() {
    let mut wrong = Vec::new();
    for (module, path) in sources() {
        // Each process, stages included, writes diagnostics to its own standard error (decision 070).
        if ["cli", "main", "diagnostics"].contains(&module.as_str()) {
            continue;
        }
        for word in
            ["println!", "print!", "eprintln!", "eprint!", "dbg!", "io::stdout", "io::stderr"]
        {
            if code(&path).contains(word) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "only cli prints:\n{}", wrong.join("\n"));
}

#[test]
fn import_parser_finds_imports() {
    let text = "use crate::error::Error;\nuse crate::{oci::{Digest, Reference}, store};\nlet x = crate::layer::f();";
    let found = imports(text).into_iter().collect::<Vec<_>>();
    assert_eq!(found, ["error", "layer", "oci", "store"]);
}

/// An ignored result needs a comment with the reason, on its line or the one before. Writing to a `String` can't fail.
#[test]
fn ignored_results_say_why() {
    let mut silent = Vec::new();
    for (_, path) in sources() {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let text = text.split("#[cfg(test)]").next().expect("a first part");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (n, line) in lines.iter().enumerate() {
            let ignores = line.starts_with("let _ = ")
                && !line.contains("write!(")
                && !line.contains("writeln!(");
            let before = n.checked_sub(1).map_or("", |n| lines[n]);
            let explained =
                line.contains("//") || before.starts_with("//") || before.starts_with("let _ = ");
            if ignores && !explained && !path.ends_with("tests.rs") {
                silent.push(format!("{}:{}: {line}", path.display(), n + 1));
            }
        }
    }
    assert!(silent.is_empty(), "these ignore a result without a reason:\n{}", silent.join("\n"));
}
