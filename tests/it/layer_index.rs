//! A file tree of layers describes the tree that unpacking produces, whatever the layers contain, and refuses the
//! layers that unpacking refuses.

use crate::layer_common::index::Stages;
use crate::layer_common::{Lab, inside, sketch, unpack_plain};
use proptest::prelude::*;
use svp::layer::compare::compare;
use svp::layer::file_tree::FileTree;
use svp::layer::outline::Outline;

/// Directories, files, links and whiteouts in all combinations.
const PATHS: &[&str] = &[
    "a",
    "b",
    "a/b",
    "a/b/c",
    "a/c",
    "b/a",
    "b/b/b",
    "l",
    "l/a",
    "a/l",
    "a/l/b",
    "l/l/b",
    "./",
    "a/./b/",
    "/b",
    ".wh.a",
    ".wh.b",
    ".wh.l",
    "a/.wh.b",
    "a/b/.wh.c",
    "b/.wh.b",
    "l/.wh.a",
    "a/.wh.l",
    ".wh..wh..opq",
    "a/.wh..wh..opq",
    "b/.wh..wh..opq",
    "l/.wh..wh..opq",
    ".wh..wh.plnk",
    ".wh..wh.aufs/x",
    "a/.wh.b/c",
    "../a",
];
const TARGETS: &[&str] =
    &["a", "b", "/a", "../a", "a/b", "..", ".", "/", "l", "a/l", "l/a", "../../b/x", "new/dir"];

fn line() -> impl Strategy<Value = String> {
    let kinds =
        prop_oneof![4 => Just('d'), 4 => Just('f'), 3 => Just('s'), 2 => Just('l'), 1 => Just('p')];
    let path = proptest::sample::select(PATHS);
    let target = proptest::sample::select(TARGETS);
    (kinds, path, target).prop_map(|(kind, path, target)| {
        // Whiteouts must be files, and the root a directory, or nearly every case would be refused.
        let kind = if path.contains(".wh.") {
            'f'
        } else if path == "./" {
            'd'
        } else {
            kind
        };
        format!("{kind} {path} {target}")
    })
}

/// Unpacks the layers and reads them into a file tree; both must fail at the same layer, or neither. With `mend`,
/// refused lines are dropped, so that neither fails.
fn check(layers: &[Vec<String>], mend: bool) {
    let mut lab = Lab::new();
    let plain = lab.make_dir();
    let mut stages = Stages::default();
    let mut outline = Outline::of_image();
    for lines in layers {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let lines = if mend { stages.taken(&lines) } else { lines };
        let tar = sketch(&lines);
        let unpacked = unpack_plain(&tar, &plain);
        let printed = stages.add(&tar, &plain);
        assert_eq!(
            unpacked.as_ref().map(drop).map_err(svp::error::Error::kind),
            printed.as_ref().map(drop).map_err(svp::error::Error::kind),
            "{lines:?}: {unpacked:?} {printed:?}"
        );
        assert!(!mend || printed.is_ok());
        // An outline of the whole image refuses the same layers, and one of the layer alone none but those.
        let whole = outline.add_layer(&mut &*tar);
        let alone = Outline::of_layer().add_layer(&mut &*tar);
        assert_eq!(
            unpacked.as_ref().map(drop).map_err(svp::error::Error::kind),
            whole.as_ref().map(drop).map_err(svp::error::Error::kind),
            "{lines:?}: {unpacked:?} {whole:?}"
        );
        match alone {
            Ok(false) => assert!(unpacked.is_ok(), "{lines:?}: {unpacked:?}"),
            Ok(true) => {}
            Err(_) => assert!(unpacked.is_err(), "{lines:?}: {alone:?}"),
        }
        if printed.is_err() {
            break;
        }
    }
    stages.agree();
}

#[test]
fn a_file_tree_describes_the_unpacked_tree() {
    if !inside("layer_index::a_file_tree_describes_the_unpacked_tree") {
        return;
    }
    let cases = std::env::var("SVP_LAW_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let layers = proptest::collection::vec(proptest::collection::vec(line(), 0..12), 1..4);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&(layers, any::<[bool; 2]>()), |(layers, [a, b])| {
            check(&layers, a || b);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn depth_is_no_limit() {
    let (lower, own) = ("d/".repeat(2000), "e/".repeat(2000));
    let deep = [&format!("d {lower}"), &format!("f d/{own}"), "f d/f x"].map(str::to_owned);
    let mut index = FileTree::default();
    index.add_layer(&mut &*sketch(&deep.each_ref().map(String::as_str))).unwrap();
    let before = index.clone();
    // A whiteout keeps the entries of its own layer, at any depth.
    let hiding = [format!("d {}e", "d/".repeat(1998)), "f .wh.d".into()];
    index.add_layer(&mut &*sketch(&hiding.each_ref().map(String::as_str))).unwrap();
    let differences = compare(&before, &index, false);
    let count = |is: fn(&svp::layer::compare::Difference<'_>) -> bool| {
        differences.iter().filter(|it| is(it)).count()
    };
    assert_eq!((count(|it| it.before.is_none()), count(|it| it.after.is_none())), (1, 2003));
    index.add_layer(&mut &*sketch(&["f .wh..wh..opq"])).unwrap();
    assert_eq!(compare(&FileTree::default(), &index, true), []);
    // Links whose resolution leads deeper than any path.
    let loops = [format!("s l {}", "x/".repeat(1000)), format!("f l/{}f", "y/".repeat(1500))];
    let error = index.add_layer(&mut &*sketch(&loops.each_ref().map(String::as_str))).unwrap_err();
    assert_eq!(error.kind(), svp::error::Kind::BadInput);
}

#[test]
fn a_copy_is_independent_of_its_original() {
    let mut base = FileTree::default();
    base.add_layer(&mut &*sketch(&["f d/x 1", "f e/y 2"])).unwrap();
    let (mut left, mut right) = (base.clone(), base.clone());
    left.add_layer(&mut &*sketch(&["f d/left l"])).unwrap();
    right.add_layer(&mut &*sketch(&["f d/.wh.x"])).unwrap();
    let differences = |a: &FileTree, b: &FileTree| {
        let paths = compare(a, b, false).into_iter().map(|it| String::from_utf8(it.path).unwrap());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(differences(&base, &left), ["d/left"]);
    assert_eq!(differences(&base, &right), ["d/x"]);
    assert_eq!(differences(&left, &right), ["d/left", "d/x"]);
    drop(base);
    assert_eq!(differences(&right, &left), ["d/left", "d/x"]);
}
