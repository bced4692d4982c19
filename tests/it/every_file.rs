//! Every file below tests/ is part of this program, or of the package tests/conformance.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::repo;
use crate::support::sources::rust_files;

/// Returns `file` and every module declared in it or below it. The modules of `file` are in `dir`.
fn declared(file: &Path, dir: &Path, found: &mut BTreeSet<PathBuf>) {
    let text = std::fs::read_to_string(file).expect("a source file");
    found.insert(file.to_owned());
    for name in modules(&text) {
        let below = dir.join(name);
        let file = below.with_extension("rs");
        let file = if file.exists() { file } else { below.join("mod.rs") };
        declared(&file, &below, found);
    }
}

/// Returns the names of `mod NAME;` declarations, public or not.
fn modules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')
    })
}

#[test]
fn every_file_is_part_of_this_program() {
    let tests = repo().join("tests");
    let mut there = rust_files(&tests);
    there.retain(|path| !path.starts_with(tests.join("conformance")));
    let mut used = BTreeSet::new();
    declared(&tests.join("it/main.rs"), &tests.join("it"), &mut used);
    let forgotten: Vec<_> = there.difference(&used).collect();
    assert!(forgotten.is_empty(), "no `mod` names {forgotten:?}");
    assert!(there.len() > 50, "only {} files below {}", there.len(), tests.display());
}

#[test]
fn module_parser_finds_modules() {
    let text = "mod a;\npub mod b_c;\n// mod d;\nmod e {\n    mod f;\n}\nuse x::mod_g;";
    assert_eq!(modules(text).collect::<Vec<_>>(), ["a", "b_c"]);
}
