//! For backups: what an image has, and copies of what outlives a container.

use std::fs::File;
use std::io::{self, BufWriter, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::area::Scratch;
use super::spec::Overlay;
use super::stage::launch::Stage;
use super::stage::protocol::{Descriptors, Request};
use super::trees::{confine_all, confine_to, own_mounts};
use super::userns::namespace;
use super::{Sandbox, overlay};
use crate::channel::Channel;
use crate::error::{Error, IoContext, Kind, Result};
use crate::layer::diff::{DiffRequest, diff};
use crate::layer::entry::{Entry, EntryKind, Timestamp};
use crate::layer::meta::{self, IdRanges};
use crate::layer::path::show;
use crate::layer::read::TarReader;
use crate::layer::unpack::{Mode as UnpackMode, UnpackOptions, unpack_layer};
use crate::layer::write::TarWriter;
use crate::rootfs::open_in_root;

/// Where the tar has what the service has written.
const WRITES: &str = "writes/";

/// Files to look for in an image. The user namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LookRequest {
    overlay: Overlay,
    paths: Vec<String>,
}

impl Sandbox {
    /// Which of these paths lead to something in the image that a scratch place shows.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn present(&self, scratch: &Scratch<'_>, paths: &[&str]) -> Result<Vec<bool>> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = LookRequest { overlay: scratch.overlay().clone(), paths };
        Stage::start(self.area(), &request, &[self.namespace()])?.finish()
    }
}

impl Request for LookRequest {
    const NAME: &'static str = "look";
    type Answer = Vec<bool>;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<Vec<bool>> {
        namespace::join(channel, fds.take()?)?;
        look(&self)
    }
}

/// Whether each path is there.
fn look(request: &LookRequest) -> Result<Vec<bool>> {
    own_mounts()?;
    overlay::enter(&request.overlay)?;
    let image = overlay::open("../before")?;
    let found = |path: &String| {
        let path = Path::new(path.trim_start_matches('/'));
        open_in_root(image.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC).is_ok()
    };
    Ok(request.paths.iter().map(found).collect())
}

/// A service's place and its volumes, to be written as one tar or filled from it.
#[derive(Debug, Serialize, Deserialize)]
struct SavedRequest {
    overlay: Overlay,
    /// Each volume's place in the tar, and its directory, relative to the tree area.
    volumes: Vec<(String, PathBuf)>,
    ids: IdRanges,
}

/// Writes what a service has written, and its volumes, as a tar. The user namespace, the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExportRequest(SavedRequest);

impl Request for ExportRequest {
    const NAME: &'static str = "export";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        pack(&self.0, fds.take()?)
    }
}

/// Fills a service's place and its volumes from such a tar; which volumes were in it. The user namespace, the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ImportRequest(SavedRequest);

impl Request for ImportRequest {
    const NAME: &'static str = "import";
    type Answer = Vec<bool>;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<Vec<bool>> {
        namespace::join(channel, fds.take()?)?;
        unpack(&self.0, fds.take()?)
    }
}

/// A volume, and where it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedVolume {
    /// Its name.
    pub name: String,
    /// Where, absolute in the container.
    pub at: String,
}

impl SavedVolume {
    /// Its place in the tar: the path with its slashes escaped, so that none is within another.
    fn prefix(&self) -> String {
        let at = self.at.trim_matches('/').replace('%', "%25").replace('/', "%2F");
        format!("volumes/{at}/")
    }
}

impl Sandbox {
    /// Writes what a service that doesn't run has written, as a layer on its image would be, and its
    /// volumes, as a tar to `tar`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a file that no layer can hold,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn save(&self, overlay: &Overlay, volumes: &[SavedVolume], tar: OwnedFd) -> Result<()> {
        let there: Vec<_> = volumes.iter().filter(|one| self.has_volume(&one.name)).collect();
        let request = self.saved_request(overlay, there);
        let fds = [self.namespace(), tar.as_fd()];
        let stage = Stage::start(self.area(), &ExportRequest(request), &fds)?;
        drop(tar);
        stage.finish()
    }

    /// Fills a service's new place and new volumes from the tar that `tar` streams, which may be anyone's.
    /// Volumes that it doesn't have aren't made.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a tar that is damaged or no such copy,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn unsave(&self, overlay: &Overlay, volumes: &[SavedVolume], tar: OwnedFd) -> Result<()> {
        for volume in volumes {
            self.empty_volume(&volume.name)?;
        }
        let request = self.saved_request(overlay, volumes.iter().collect());
        let fds = [self.namespace(), tar.as_fd()];
        let stage = Stage::start(self.area(), &ImportRequest(request), &fds)?;
        drop(tar);
        let filled = stage.finish()?;
        for (volume, _) in volumes.iter().zip(filled).filter(|(_, filled)| !filled) {
            self.remove_volume(&volume.name)?;
        }
        Ok(())
    }

    fn saved_request(&self, overlay: &Overlay, volumes: Vec<&SavedVolume>) -> SavedRequest {
        let volumes =
            volumes.iter().map(|one| (one.prefix(), Self::volume_data(&one.name))).collect();
        SavedRequest { overlay: overlay.clone(), volumes, ids: self.id_ranges() }
    }
}

/// The stage that writes the tar.
fn pack(request: &SavedRequest, tar: OwnedFd) -> Result<()> {
    own_mounts()?;
    let open = |(prefix, path): &(String, PathBuf)| Ok((prefix.clone(), overlay::open(path)?));
    let volumes = request.volumes.iter().map(open).collect::<Result<Vec<_>>>()?;
    overlay::enter(&request.overlay)?;
    let before = overlay::open("../before")?;
    let upper = overlay::open("../upper")?;
    let empty = overlay::open("../empty")?;
    confine_to("../none")?;
    let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 18, File::from(tar)));
    pack_tree(&mut tar, WRITES, &upper, &before)?;
    for (prefix, volume) in &volumes {
        tar.append(&root_entry(prefix, volume)?, &mut io::empty())?;
        pack_tree(&mut tar, prefix, volume, &empty)?;
    }
    tar.finish()?.flush().io("write", "the copy")
}

/// The directory of a volume itself.
fn root_entry(prefix: &str, volume: &OwnedFd) -> Result<Entry> {
    let stat = rustix::fs::fstat(volume).io("look at", prefix)?;
    let owner = meta::Ownership::of(&stat);
    let mut entry = Entry::new(prefix, EntryKind::Directory, owner.mode);
    (entry.uid, entry.gid, entry.mtime) = (owner.uid, owner.gid, meta::mtime(&stat));
    entry.xattrs = meta::read_xattrs(volume.as_fd()).io("read", prefix)?;
    entry.xattrs.retain(|name, _| meta::is_portable(name));
    Ok(entry)
}

/// Writes what `tree` has and `before` hasn't, below `prefix`.
fn pack_tree<W: Write>(
    tar: &mut TarWriter<W>,
    prefix: &str,
    tree: &OwnedFd,
    before: &OwnedFd,
) -> Result<()> {
    let (reader, writer) = pipe()?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let request = DiffRequest {
                upper: tree.as_fd(),
                before: before.as_fd(),
                started: Timestamp::default(),
                clamp_mtime: None,
            };
            let mut writer = BufWriter::with_capacity(1 << 18, writer);
            diff(&request, &mut writer)?;
            writer.flush().io("copy", prefix)
        });
        let mut reader = reader;
        let taken: Result<()> = (|| {
            let mut entries = TarReader::new(&mut reader);
            while let Some(mut entry) = entries.next_entry()? {
                entry.path = below(prefix, &entry.path);
                if entry.kind == EntryKind::HardLink {
                    entry.link = below(prefix, &entry.link);
                }
                tar.append(&entry, &mut Content(&mut entries))?;
            }
            entries.drain()
        })();
        // So that the writer ends if nobody reads any more.
        drop(reader);
        let written = written.join().unwrap_or_else(|_| Err(Error::sandbox("copying panicked")));
        // Whichever failed first made the other fail; what was read says more.
        match (written, taken) {
            (Err(error), _) if error.kind() != Kind::Storage => Err(error),
            (_, Err(error)) => Err(error),
            (written, Ok(())) => written,
        }
    })
}

fn below(prefix: &str, path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    [prefix.as_bytes(), path].concat()
}

/// The stage that reads the tar; which volumes were in it.
fn unpack(request: &SavedRequest, tar: OwnedFd) -> Result<Vec<bool>> {
    own_mounts()?;
    let open = |(_, path): &(String, PathBuf)| overlay::open(path);
    let volumes = request.volumes.iter().map(open).collect::<Result<Vec<_>>>()?;
    overlay::enter(&request.overlay)?;
    let before = overlay::open("../before")?;
    let upper = overlay::open("../upper")?;
    let trees: Vec<&OwnedFd> = std::iter::once(&upper).chain(&volumes).collect();
    let trees = confine_all("../none", &trees)?;
    drop((upper, volumes));
    let names = request.volumes.iter().map(|(prefix, _)| prefix.as_str());
    let prefixes: Vec<&str> = std::iter::once(WRITES).chain(names).collect();
    let mut tar = File::from(tar);
    let mut entries = TarReader::new(&mut tar);
    let mut next = entries.next_entry()?;
    let mut filled = vec![false; prefixes.len()];
    // Each tree's entries come together, in the order of the trees.
    while let Some(entry) = next {
        let belongs = |prefix: &&str| entry.path.starts_with(prefix.as_bytes());
        let Some(n) = prefixes.iter().position(belongs).filter(|n| !filled[*n]) else {
            return Err(Error::bad_input(format!(
                "the backup is none of this service: {} has no place in it",
                show(&entry.path)
            )));
        };
        filled[n] = true;
        let options = UnpackOptions {
            mode: if n == 0 { UnpackMode::Overlay } else { UnpackMode::Plain },
            ids: request.ids.clone(),
            lower: (n == 0).then(|| before.as_fd()),
        };
        next = unpack_tree(&mut entries, entry, prefixes[n], &trees[n], &options)?;
    }
    entries.drain()?;
    rustix::fs::syncfs(&trees[0]).io("sync", "what was restored")?;
    Ok(filled[1..].to_vec())
}

/// Unpacks the entries below `prefix`, the `first` of which has been read; gives the first of another tree.
fn unpack_tree(
    entries: &mut TarReader<'_>,
    first: Entry,
    prefix: &str,
    tree: &OwnedFd,
    options: &UnpackOptions<'_>,
) -> Result<Option<Entry>> {
    let (reader, writer) = pipe()?;
    std::thread::scope(|scope| {
        let unpacked = scope.spawn(move || {
            let mut reader = reader;
            unpack_layer(&mut reader, tree.as_fd(), options).map(drop)
        });
        let handed: Result<Option<Entry>> = (|| {
            let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 18, writer));
            let mut next = Some(first);
            while let Some(mut entry) = next {
                let Some(path) = entry.path.strip_prefix(prefix.as_bytes()) else {
                    tar.finish()?.flush().io("write", "what is restored")?;
                    return Ok(Some(entry));
                };
                entry.path = if path.is_empty() { b"./".to_vec() } else { path.to_vec() };
                if entry.kind == EntryKind::HardLink {
                    let link = entry.link.strip_prefix(prefix.as_bytes());
                    entry.link = link.map(<[u8]>::to_vec).ok_or_else(|| {
                        Error::bad_input(format!(
                            "the backup has a hard link out of its tree: {}",
                            show(&entry.path)
                        ))
                    })?;
                }
                tar.append(&entry, &mut Content(entries))?;
                next = entries.next_entry()?;
            }
            tar.finish()?.flush().io("write", "what is restored")?;
            Ok(None)
        })();
        let unpacked =
            unpacked.join().unwrap_or_else(|_| Err(Error::sandbox("unpacking panicked")));
        // Where both failed, what could not be unpacked is the reason, unless it was cut off.
        match (handed, unpacked) {
            (Err(error), Err(_)) if error.kind() == Kind::BadInput => Err(error),
            (_, Err(error)) => Err(error),
            (handed, Ok(())) => handed,
        }
    })
}

/// The content of a tar's current entry.
struct Content<'a, 'b>(&'a mut TarReader<'b>);

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_content(buffer).map_err(io::Error::other)
    }
}

fn pipe() -> Result<(PipeReader, PipeWriter)> {
    io::pipe().map_err(|error| Error::sandbox("can't make a pipe").source(error))
}
