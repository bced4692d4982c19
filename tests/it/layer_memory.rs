//! Peak memory does not depend on the size of a layer: 2 GiB through every part, in a process of its own, so that the
//! measured peak includes nothing else.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use crate::layer_common::{Lab, inside, open};
use svp::layer::compress::{Encoder, decoder};
use svp::layer::entry::{Entry, EntryKind};
use svp::layer::meta::IdRanges;
use svp::layer::settings::Settings;
use svp::layer::unpack::{Mode, UnpackOptions, unpack_layer};
use svp::layer::write::TarWriter;
use svp::oci::media_type::Compression;

const SIZE: u64 = 2 << 30;
/// The limit, in KiB.
const MOST: u64 = 64 * 1024;

/// Returns the peak memory of this process, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn layer() -> Entry {
    let mut entry = Entry::new("big", EntryKind::File, 0o644);
    entry.size = SIZE;
    entry
}

#[test]
fn two_gibibytes_fit_in_64_mebibytes() {
    if !inside("layer_memory::two_gibibytes_fit_in_64_mebibytes") {
        return;
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let file = tempfile::tempfile().unwrap();
        let encoder = Encoder::new(file, Settings::new(compression, Some(1)).unwrap(), 2).unwrap();
        let mut writer = TarWriter::new(encoder);
        writer.append(&layer(), &mut io::repeat(0).take(SIZE)).unwrap();
        let mut file = writer.finish().unwrap().finish().unwrap();
        file.flush().unwrap();
        assert!(peak() < MOST, "writing {compression:?} took {} KiB", peak());
        io::Seek::rewind(&mut file).unwrap();
        let mut lab = Lab::new();
        let root = lab.make_dir();
        let options = UnpackOptions {
            mode: Mode::Overlay,
            ids: IdRanges::up_to(0),
            lower: None,
            drop_set_id: false,
        };
        let mut tar = decoder(file, compression).unwrap();
        let report = unpack_layer(&mut tar, open(&root).as_fd(), &options).unwrap();
        assert_eq!(report.bytes, SIZE);
        assert_eq!(root.join("big").metadata().unwrap().len(), SIZE);
        assert!(peak() < MOST, "unpacking {compression:?} took {} KiB", peak());
    }
}
