//! No cycle between files: of any two files of `src`, at most one depends on the other.
//!
//! A path is resolved through re-exports to the file that defines the name: a re-export by itself is an address, not a
//! dependency. So a `mod.rs` may re-export the children that use what it defines, as long as it does not use them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::repo;
use crate::support::sources::rust_files;

type Module = Vec<String>;

/// A parsed source file.
#[derive(Debug, Default)]
struct File {
    name: String,
    /// The names that it defines, without its child modules.
    defines: BTreeSet<String>,
    /// The names that its `use` declarations bring in, each with its path.
    uses: Vec<(String, Vec<String>)>,
    /// The names among `uses` that it only re-exports.
    re_exports: BTreeSet<String>,
    /// All other paths of more than one name.
    paths: Vec<Vec<String>>,
}

/// All source files, by module.
#[derive(Debug, Default)]
struct Crate(BTreeMap<Module, File>);

/// The target of a path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Module(Module),
    Item(Module),
}

impl Crate {
    fn read() -> Crate {
        let root = repo().join("src");
        let mut files = Crate::default();
        for path in rust_files(&root) {
            let text = std::fs::read_to_string(&path).expect("a source file");
            files.add(path.strip_prefix(&root).expect("below src"), &text);
        }
        assert!(files.0.len() > 50, "no sources found below {}", root.display());
        files
    }

    fn add(&mut self, path: &Path, text: &str) {
        let name = path.display().to_string();
        // `main.rs` is the root of another crate.
        if name == "main.rs" {
            return;
        }
        let mut module: Module = path.with_extension("").iter().map(text_of).collect();
        if ["mod", "lib"].contains(&module[module.len() - 1].as_str()) {
            module.pop();
        }
        let code = code(text);
        let mut file = File { name, defines: definitions(&code), ..File::default() };
        for (public, tree) in use_trees(&code) {
            let before = file.uses.len();
            expand(&tree, &[], &mut file.uses);
            if public {
                let names = file.uses[before..].iter().map(|(name, _)| name.clone());
                file.re_exports.extend(names.filter(|name| !uses_name(&code, name)));
            }
        }
        file.paths = paths(&code);
        self.0.insert(module, file);
    }

    /// Resolves a path that is written in module `from`.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<Found> {
        let (first, mut rest) = path.split_first()?;
        let mut at: Module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_vec(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            _ => {
                rest = path;
                let known = self.0.contains_key(&child(from, first))
                    || self.0.get(from)?.uses.iter().any(|(name, _)| name == first);
                known.then(|| from.to_vec())?
            }
        };
        while let Some((name, more)) = rest.split_first() {
            rest = more;
            if name == "super" {
                at.pop()?;
            } else if self.0.contains_key(&child(&at, name)) {
                at.push(name.clone());
            } else {
                match self.find(&at, name, depth)? {
                    Found::Module(module) => at = module,
                    item => return Some(item),
                }
            }
        }
        Some(Found::Module(at))
    }

    /// Resolves a name in a module that has no child of that name.
    fn find(&self, module: &[String], name: &str, depth: usize) -> Option<Found> {
        let file = self.0.get(module)?;
        if file.defines.contains(name) {
            return Some(Found::Item(module.to_vec()));
        }
        let imported = |wanted: &str| -> Vec<&Vec<String>> {
            file.uses.iter().filter(|(name, _)| name == wanted).map(|(_, path)| path).collect()
        };
        let resolve = |path: &[String]| {
            // An import from another crate under the same name would resolve to itself.
            if depth == 0 || path.first().is_some_and(|first| first == name) && path.len() > 1 {
                return None;
            }
            self.resolve(module, path, depth - 1)
        };
        if let Some(found) = imported(name).into_iter().find_map(|path| resolve(path)) {
            return Some(found);
        }
        imported("*").into_iter().find_map(|path| match resolve(path)? {
            Found::Module(module) => {
                let same = self.0.contains_key(&child(&module, name));
                if same {
                    Some(Found::Module(child(&module, name)))
                } else {
                    self.find(&module, name, depth - 1)
                }
            }
            Found::Item(_) => None,
        })
    }

    /// Returns the files that each file depends on.
    fn graph(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut graph = BTreeMap::new();
        for (module, file) in &self.0 {
            let imports = file.uses.iter().filter(|(name, _)| !file.re_exports.contains(name));
            let written = imports.map(|(_, path)| path).chain(&file.paths);
            // Importing a module alone is not a dependency: the paths into it are.
            let items = written.filter_map(|path| match self.resolve(module, path, 8)? {
                Found::Item(module) => self.0.get(&module).map(|file| file.name.as_str()),
                Found::Module(_) => None,
            });
            let targets: BTreeSet<&str> = items.filter(|name| *name != file.name).collect();
            graph.insert(file.name.as_str(), targets);
        }
        graph
    }
}

fn text_of(name: &std::ffi::OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn child(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

/// Returns the code of a file, without comments and unit tests (which end a file).
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the names of the items that begin at the start of a line.
fn definitions(code: &str) -> BTreeSet<String> {
    let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];
    let mut found = BTreeSet::new();
    for line in code.lines().filter(|line| !line.starts_with(char::is_whitespace)) {
        let mut words = line.split_whitespace().skip_while(|word| !kinds.contains(word));
        let mut word = words.find(|word| !kinds.contains(word) && *word != "unsafe");
        if line.starts_with("macro_rules!") {
            word = line.split_whitespace().nth(1);
        }
        let end = |c: char| !c.is_alphanumeric() && c != '_';
        found.extend(word.map(|word| word.split(end).next().unwrap_or_default().to_owned()));
    }
    found
}

/// Returns whether a name occurs outside of `use` declarations.
fn uses_name(code: &str, name: &str) -> bool {
    let mut rest = String::new();
    let mut within = false;
    for line in code.lines() {
        let start = line.trim_start();
        within |= start.starts_with("use ") || start.starts_with("pub") && start.contains(" use ");
        if !within && !start.contains("mod ") {
            rest.push_str(line);
            rest.push('\n');
        }
        within &= !line.trim_end().ends_with(';');
    }
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// Returns the trees of the `use` declarations without white space, each with whether it is a re-export.
fn use_trees(code: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let before = rest[..at].chars().next_back();
        let tree = rest[at + 4..].split(';').next().unwrap_or_default();
        if before.is_none_or(char::is_whitespace) {
            let line = rest[..at].rsplit('\n').next().unwrap_or_default();
            let public = line.trim_start().starts_with("pub");
            found.push((public, tree.replace(" as ", "@").split_whitespace().collect()));
        }
        rest = &rest[at + 4..];
    }
    found
}

/// Adds each name of a `use` tree to `found`, with its path.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, group.strip_suffix('}')),
        None => (tree, None),
    };
    let names = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned);
    let mut path: Vec<String> = [prefix.to_vec(), names.collect()].concat();
    if let Some(group) = group {
        parts(group).into_iter().for_each(|part| expand(part, &path, found));
        return;
    }
    let Some(last) = path.pop() else { return };
    let (last, name) = match last.split_once('@') {
        Some((last, name)) => (last.to_owned(), name.to_owned()),
        None => (last.clone(), last),
    };
    match last.as_str() {
        "self" if !path.is_empty() => found.push((path[path.len() - 1].clone(), path)),
        "*" => found.push((name, path)),
        _ => {
            path.push(last);
            found.push((name, path));
        }
    }
}

/// Splits a group at the commas outside of inner groups.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0, 0);
    let mut found = Vec::new();
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&group[start..]);
    found.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Returns all paths of more than one name.
fn paths(code: &str) -> Vec<Vec<String>> {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let lines = code.lines().filter(|line| !line.starts_with("pub") || !line.contains(" use "));
    let words = lines.flat_map(|line| line.split(|c| !part(c))).filter(|word| word.contains("::"));
    let names =
        |word: &str| word.split("::").map(|name| name.trim_matches(':').to_owned()).collect();
    words.map(names).filter(|path: &Vec<String>| path.iter().all(|name| !name.is_empty())).collect()
}

/// Returns the groups of files that depend on one another.
fn cycles<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<Vec<&'a str>> {
    let reach = |from: &'a str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(name) = next.pop() {
            next.extend(
                graph.get(name).into_iter().flatten().copied().filter(|to| seen.insert(*to)),
            );
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|name| (*name, reach(name))).collect();
    let together = |name: &&'a str| {
        let others = reached[*name].iter().copied();
        others.filter(|other| reached[other].contains(*name)).collect::<Vec<_>>()
    };
    graph.keys().map(together).filter(|group| !group.is_empty()).collect()
}

#[test]
fn no_two_files_depend_on_each_other() {
    let files = Crate::read();
    let graph = files.graph();
    let mut problems = Vec::new();
    for group in cycles(&graph) {
        problems.push(format!("{} files depend on one another:", group.len()));
        for name in &group {
            let within: Vec<_> =
                graph[name].iter().filter(|to| group.contains(to)).copied().collect();
            problems.push(format!("    {name} -> {}", within.join(", ")));
        }
    }
    assert!(problems.is_empty(), "cycles between files of src:\n{}", problems.join("\n"));
}

#[test]
fn cycles_are_found_and_re_exports_are_not_cycles() {
    let files = |all: &[(&str, &str)]| {
        let mut files = Crate::default();
        all.iter().for_each(|(path, text)| files.add(Path::new(path), text));
        let graph = files.graph();
        cycles(&graph).into_iter().map(|group| group.join(" ")).collect::<Vec<_>>()
    };
    let none: Vec<String> = Vec::new();
    let re_exports = ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\n");
    let (b, c) =
        (("a/b.rs", "pub struct B;"), ("a/c.rs", "use super::{B, b};\nfn c() { b::f(); }"));
    assert_eq!(files(&[("lib.rs", "mod a;"), re_exports, b, c]), none);
    let back = ("a/b.rs", "pub struct B;\nuse crate::a::c::c;");
    assert_eq!(files(&[("lib.rs", "mod a;"), re_exports, back, c]), ["a/b.rs a/c.rs"]);
    let defines = ("a/mod.rs", "mod b;\npub use b::B;\npub const A: u8 = 1;");
    let uses = ("a/b.rs", "pub struct B;\nfn b() -> u8 { super::A }");
    assert_eq!(files(&[("lib.rs", "mod a;"), defines, uses]), none);
    let defines = ("a/mod.rs", "mod b;\npub use b::B;\npub const A: u8 = 1;\nfn a(_: B) {}");
    let uses = ("a/b.rs", "pub struct B;\nfn b() -> u8 { super::A }");
    assert_eq!(files(&[("lib.rs", "mod a;"), defines, uses]), ["a/b.rs a/mod.rs"]);
    let (x, y) = (
        ("x.rs", "use crate::{y as z, a};\nfn x() { z::y(); }"),
        ("y.rs", "fn y() { crate::x::x() }"),
    );
    assert_eq!(files(&[("lib.rs", ""), x, y]), ["x.rs y.rs"]);
}
