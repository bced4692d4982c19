//! The law of the diff: a container's changes, written as a layer and unpacked on top of its initial tree, give the
//! container's final tree; and the layer contains nothing more. With real overlays and system calls.

use std::os::fd::AsFd;

use crate::layer_common;
use crate::layer_common::mutate::{self, Op};
use crate::layer_common::{Lab, index, inside, judge, open, unpack_plain};
use proptest::prelude::*;
use svp::layer::diff::{DiffRequest, diff};
use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::layer::meta;
use svp::layer::snapshot::{self, Snapshot};
use svp::layer::unpack::copy_directory_metadata;

/// Runs `change` in a container's view of the lab's layers; returns the resulting layer.
fn record(lab: &mut Lab, change: impl FnOnce(&std::path::Path)) -> Recorded {
    let before_mount = lab.mount(None);
    let (upper, work) = (lab.make_dir(), lab.make_dir());
    copy_directory_metadata(open(&before_mount.0).as_fd(), open(&upper).as_fd()).unwrap();
    let before = snapshot::take(open(&before_mount.0).as_fd()).unwrap();
    let probe = lab.dir.path().join("probe");
    std::fs::write(&probe, "now").unwrap();
    let started = meta::ctime(&rustix::fs::stat(&probe).unwrap());
    let merged = lab.mount(Some((&upper, &work)));
    change(&merged.0);
    let mut after = snapshot::take(open(&merged.0).as_fd()).unwrap();
    drop(merged);
    // An overlay reports different inode numbers for names that it linked to one copied-up file. The upper directory
    // has the real ones; files that aren't in it are unchanged.
    let raw = snapshot::take(open(&upper).as_fd()).unwrap();
    for (path, node) in &mut after {
        node.inode = raw
            .get(path)
            .or(before.get(path))
            .expect("a file of the upper or the lower layers")
            .inode;
    }
    let (upper, below) = (open(&upper), open(&before_mount.0));
    let request =
        DiffRequest { upper: upper.as_fd(), before: below.as_fd(), started, clamp_mtime: None };
    let mut tar = Vec::new();
    let report = diff(&request, &mut tar).unwrap();
    assert_eq!(report.entries as usize, judge::entries(&tar).len());
    let mut again = Vec::new();
    diff(&request, &mut again).unwrap();
    assert!(tar == again, "the same changes give different bytes");
    Recorded { tar, before, after, started }
}

struct Recorded {
    tar: Vec<u8>,
    before: Snapshot,
    after: Snapshot,
    started: Timestamp,
}

impl Recorded {
    /// Checks the law, and adds the layer to the lab.
    fn check(self, lab: &mut Lab) {
        judge::nothing_more(&self.before, &self.after, &self.tar, self.started);
        let report = lab.add(&self.tar).unwrap();
        assert_eq!(report.unmade, []);
        let mount = lab.mount(None);
        let applied = snapshot::take(open(&mount.0).as_fd()).unwrap();
        judge::law(&self.before, &self.after, &applied, self.started);
    }
}

/// A layer with entries that no call in a user namespace can create: devices, owners outside the map.
fn special_layer() -> Vec<u8> {
    let mut entries = Vec::new();
    let mut add = |path: &str, kind, mode, uid, gid| {
        let mut entry = Entry::new(path, kind, mode);
        (entry.uid, entry.gid) = (uid, gid);
        entry.mtime = Timestamp { seconds: 1_500_000_000, nanoseconds: 5 };
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            (entry.major, entry.minor) = (1, 3 + uid % 10);
        }
        entries.push(entry);
    };
    add("dev/", EntryKind::Directory, 0o755, 0, 0);
    add("dev/null", EntryKind::CharDevice, 0o666, 0, 0);
    add("dev/sda", EntryKind::BlockDevice, 0o660, 0, 6);
    add("far/", EntryKind::Directory, 0o2775, 5_000_000, 0);
    add("far/file", EntryKind::File, 0o4755, 5_000_000, 4_000_000_000);
    add("far/device", EntryKind::CharDevice, 0o600, 70_000, 0);
    let entries: Vec<_> = entries.into_iter().map(|entry| (entry, &b""[..])).collect();
    layer_common::tar(&entries)
}

fn rounds(rounds: &[Vec<Op>], special: bool) {
    let mut lab = Lab::new();
    let plain = lab.make_dir();
    let mut stages = index::Stages::default();
    if special {
        let report = lab.add(&special_layer()).unwrap();
        assert_eq!((report.unmade.len(), report.unrepresented.len()), (0, 0));
        stages.add(&special_layer(), &lab.mount(None).0).unwrap();
    }
    for ops in rounds {
        let recorded = record(&mut lab, |root| ops.iter().for_each(|op| mutate::apply(root, *op)));
        if !special {
            unpack_plain(&recorded.tar, &plain).unwrap();
        }
        let tar = recorded.tar.clone();
        recorded.check(&mut lab);
        stages.add(&tar, &lab.mount(None).0).unwrap();
    }
    stages.agree();
    if !special {
        // Unpacking for an overlay and into a plain tree must agree.
        let mount = lab.mount(None);
        let mut stacked = snapshot::take(open(&mount.0).as_fd()).unwrap();
        let mut applied = snapshot::take(open(&plain).as_fd()).unwrap();
        for snapshot in [&mut stacked, &mut applied] {
            // The root of a plain tree is not created by layers that don't mention it.
            snapshot.remove(&b""[..]);
        }
        let differences = snapshot::compare(&stacked, &applied);
        let sides: Vec<_> = differences
            .iter()
            .map(|(path, difference)| (difference, stacked.get(path), applied.get(path)))
            .collect();
        assert!(sides.is_empty(), "an overlay and a plain tree differ: {sides:#?}");
    }
}

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("SVP_LAW_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Default::default()
    }
}

#[test]
fn the_law_holds() {
    if !inside("layer_law::the_law_holds") {
        return;
    }
    let several = proptest::collection::vec(mutate::ops(40), 1..4);
    let mut runner = proptest::test_runner::TestRunner::new(config(100));
    runner
        .run(&(several, any::<bool>()), |(several, special)| {
            rounds(&several, special);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
