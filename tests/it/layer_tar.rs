//! Tar archives and compressed streams, checked with independent tools and with random damage.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::layer_common::{inside, judge, open, tar, unpack_plain};
use proptest::prelude::*;
use rstest::rstest;
use std::os::fd::AsFd;
use svp::layer::compress::{Encoder, decoder, detect};
use svp::layer::entry::{Entry, EntryKind, Timestamp};
use svp::layer::read::TarReader;
use svp::layer::snapshot;
use svp::oci::media_type::Compression;

/// One entry of each kind, with every attribute that is hard to encode.
fn hard() -> Vec<(Entry, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut add = |path: &[u8], kind, mode, content: &[u8]| {
        let mut entry = Entry::new(path, kind, mode);
        let number = entries.len() as u32;
        (entry.uid, entry.gid) = (number, 100 + number);
        entry.mtime = Timestamp { seconds: 1_000_000_000, nanoseconds: 7 * number };
        entry.size = content.len() as u64;
        entries.push((entry, content.to_vec()));
    };
    add(b"d", EntryKind::Directory, 0o1777, b"");
    add(b"d/file", EntryKind::File, 0o4755, &[9; 70_000]);
    add(&[&b"d/"[..], &[b'n'; 255]].concat(), EntryKind::File, 0o644, b"long");
    let long = [&[b'p'; 150][..], b"/", &[b'q'; 150], b"/", &[b'r'; 150]].concat();
    add(&long[..150], EntryKind::Directory, 0o755, b"");
    add(&long[..301], EntryKind::Directory, 0o755, b"");
    add(&long, EntryKind::File, 0o600, b"longer");
    add(b"d/\xff\xfe raw", EntryKind::File, 0o644, b"raw");
    add(&[&b"d/\xff"[..], &[b'x'; 200]].concat(), EntryKind::File, 0o644, b"raw and long");
    add("d/\u{e9}".as_bytes(), EntryKind::File, 0o644, b"utf8");
    add(b"d/fifo", EntryKind::Fifo, 0o600, b"");
    add(b"d/link", EntryKind::Symlink, 0o777, b"");
    entries.last_mut().unwrap().0.link = [&b"\xfd/"[..], &[b't'; 150]].concat();
    entries.last_mut().unwrap().0.size = 0;
    let (mut twin, content) = (entries[1].0.clone(), Vec::new());
    (twin.path, twin.kind, twin.link, twin.size) =
        (b"d/twin".to_vec(), EntryKind::HardLink, b"d/file".to_vec(), 0);
    entries.push((twin, content));
    entries[2].0.xattrs.insert(b"user.note".to_vec(), b"a\n\0=b".to_vec());
    entries[0].0.xattrs.insert(b"user.empty".to_vec(), Vec::new());
    // GNU tar sets a directory's time when it first leaves it.
    entries[3..].rotate_left(3);
    entries
}

fn feed(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    writer.join().unwrap().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
    output
}

#[test]
fn gnu_tar_unpacks_written_archives() {
    if !inside("layer_tar::gnu_tar_unpacks_written_archives") {
        return;
    }
    let entries = hard();
    let entries: Vec<_> =
        entries.iter().map(|(entry, content)| (entry.clone(), &content[..])).collect();
    let archive = tar(&entries);
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    std::fs::create_dir(&ours).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    assert_eq!(unpack_plain(&archive, &ours).unwrap().unmade, []);
    let options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C"];
    let arguments = [&["-x"], &options[..], &[theirs.to_str().unwrap()]].concat();
    feed("tar", &arguments, &archive);
    let mut ours = snapshot::take(open(&ours).as_fd()).unwrap();
    let mut theirs = snapshot::take(open(&theirs).as_fd()).unwrap();
    ours.remove(&b""[..]);
    theirs.remove(&b""[..]);
    assert_eq!(ours.len(), entries.len());
    let differences = snapshot::compare(&theirs, &ours);
    let sides: Vec<_> =
        differences.iter().map(|(path, _)| (theirs.get(path), ours.get(path))).collect();
    assert!(differences.is_empty(), "{differences:?}: {sides:#?}");
}

#[rstest]
#[case("posix")]
#[case("gnu")]
#[case("oldgnu")]
fn archives_by_gnu_tar_are_unpacked(#[case] format: &str) {
    if !inside(std::thread::current().name().unwrap()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let to = dir.path().join("to");
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(&to).unwrap();
    let mut entries = hard();
    if format != "posix" {
        // These formats have neither nanoseconds nor extended attributes.
        for (entry, _) in &mut entries {
            entry.mtime.nanoseconds = 0;
            entry.xattrs.clear();
        }
    }
    let entries: Vec<_> =
        entries.iter().map(|(entry, content)| (entry.clone(), &content[..])).collect();
    unpack_plain(&tar(&entries), &from).unwrap();
    let option = format!("--format={format}");
    let mut arguments = vec!["-c", &option, "--numeric-owner", "-C", from.to_str().unwrap()];
    if format == "posix" {
        arguments.extend(["--xattrs", "--xattrs-include=*"]);
    }
    arguments.push(".");
    let archive = feed("tar", &arguments, b"");
    assert_eq!(unpack_plain(&archive, &to).unwrap().unmade, []);
    let from = snapshot::take(open(&from).as_fd()).unwrap();
    let mut to = snapshot::take(open(&to).as_fd()).unwrap();
    if format != "posix" {
        // The root is the only entry whose time was never set.
        to.get_mut(&b""[..]).unwrap().entry.mtime = from[&b""[..]].entry.mtime;
    }
    assert_eq!(snapshot::compare(&from, &to), []);
}

#[test]
fn gzip_decodes_written_streams() {
    let data: Vec<u8> = (0..3_000_000u32).map(|at| (at / 1000 * 31 % 251) as u8).collect();
    let mut encoder = Encoder::new(Vec::new(), Compression::Gzip.into(), 3).unwrap();
    encoder.write_all(&data).unwrap();
    let encoded = encoder.finish().unwrap();
    assert_eq!(detect(&encoded), Compression::Gzip);
    assert!(feed("gzip", &["-dc"], &encoded) == data);
    let theirs = feed("gzip", &["-9c"], &data);
    let mut decoded = Vec::new();
    let input = std::io::Cursor::new(theirs);
    decoder(input, Compression::Gzip).unwrap().read_to_end(&mut decoded).unwrap();
    assert!(decoded == data);
}

#[test]
fn no_more_content_is_read_than_a_damaged_archive_holds() {
    let entries = hard();
    let entries: Vec<_> =
        entries.iter().map(|(entry, content)| (entry.clone(), &content[..])).collect();
    let archive = tar(&entries);
    let damage = proptest::collection::vec((0..archive.len(), any::<u8>()), 1..6);
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&(damage, any::<bool>()), |(damage, mend)| {
            let mut bytes = archive.clone();
            for (at, byte) in damage {
                bytes[at] = byte;
                if mend {
                    fix_checksum(&mut bytes, at);
                }
            }
            let mut input = &bytes[..];
            let mut reader = TarReader::new(&mut input);
            let mut read = 0;
            let mut buffer = [0; 4096];
            while let Ok(Some(_)) = reader.next_entry() {
                while let Ok(count @ 1..) = reader.read_content(&mut buffer) {
                    read += count;
                }
            }
            prop_assert!(read <= bytes.len());
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(judge::entries(&archive).len(), entries.len());
}

/// Fixes the checksum of the header block around `at`, so that the damage gets past the check.
fn fix_checksum(bytes: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    let block = &mut bytes[start..start + 512];
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
