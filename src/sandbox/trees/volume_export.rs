//! Exports a service's writes and its volumes as a tar.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::confine::{confine_to, own_mounts};
use super::overlay;
use super::volume_archive::{ArchiveRequest, ArchivedVolume, Content, WRITES, pipe};
use crate::channel::Channel;
use crate::error::{Error, IoContext, Kind, Result};
use crate::layer::diff::{DiffRequest, diff};
use crate::layer::entry::{Entry, EntryKind, Timestamp};
use crate::layer::meta;
use crate::layer::read::TarReader;
use crate::layer::write::TarWriter;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Request: export a service's writes and its volumes as a tar. Descriptors: the user namespace, the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ExportRequest(ArchiveRequest);

impl Request for ExportRequest {
    const NAME: &'static str = "export";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        pack(&self.0, fds.take()?)
    }
}

impl Sandbox {
    /// Exports a stopped service's writes, in the form of a layer on top of its image, and its volumes, as a tar to
    /// `tar`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a file that no layer can hold,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn export_volumes(
        &self,
        overlay: &Overlay,
        volumes: &[ArchivedVolume],
        tar: OwnedFd,
    ) -> Result<()> {
        let existing: Vec<_> = volumes.iter().filter(|one| self.has_volume(&one.name)).collect();
        let request = ArchiveRequest::new(self, overlay, existing);
        let fds = [self.namespace(), tar.as_fd()];
        let stage = Stage::start(self.layer_store(), &ExportRequest(request), &fds)?;
        drop(tar);
        stage.finish()
    }
}

fn pack(request: &ArchiveRequest, tar: OwnedFd) -> Result<()> {
    own_mounts()?;
    let open = |(prefix, path): &(String, PathBuf)| Ok((prefix.clone(), overlay::open(path)?));
    let volumes = request.volumes.iter().map(open).collect::<Result<Vec<_>>>()?;
    overlay::enter(&request.overlay)?;
    let before = overlay::open("../before")?;
    let upper = overlay::open("../upper")?;
    let empty = overlay::open("../empty")?;
    {
        let trees = [&upper, &before, &empty].into_iter();
        confine_to("../none", &Vec::from_iter(trees.chain(volumes.iter().map(|(_, one)| one))))?;
    };
    let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 18, File::from(tar)));
    pack_tree(&mut tar, WRITES, &upper, &before)?;
    for (prefix, volume) in &volumes {
        tar.append(&root_entry(prefix, volume)?, &mut io::empty())?;
        pack_tree(&mut tar, prefix, volume, &empty)?;
    }
    tar.finish()?.flush().io("write", "the archive")
}

/// Returns the tar entry of a volume's root directory.
pub(super) fn root_entry(prefix: &str, volume: &OwnedFd) -> Result<Entry> {
    let stat = rustix::fs::fstat(volume).io("stat", prefix)?;
    let owner = meta::Ownership::of(&stat);
    let mut entry = Entry::new(prefix, EntryKind::Directory, owner.mode);
    (entry.uid, entry.gid, entry.mtime) = (owner.uid, owner.gid, meta::mtime(&stat));
    entry.xattrs = meta::read_xattrs(volume.as_fd()).io("read", prefix)?;
    entry.xattrs.retain(|name, _| meta::is_portable(name));
    Ok(entry)
}

/// Writes the changes from `before` to `tree`, below `prefix`.
pub(super) fn pack_tree<W: Write>(
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
        // Closing the read end stops the writer.
        drop(reader);
        let written = written.join().unwrap_or_else(|_| Err(Error::sandbox("copying panicked")));
        // One failure causes the other: the diff's own error explains more than a broken pipe.
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
