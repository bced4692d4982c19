//! Imports a service's writes and its volumes from the tar of an export.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::confine::{confine_all, own_mounts};
use super::overlay;
use super::volume_archive::{ArchiveRequest, ArchivedVolume, Content, WRITES, pipe};
use super::volume_record::VolumeRecord;
use crate::channel::Channel;
use crate::error::{Error, IoContext, Kind, Result};
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::path::show;
use crate::layer::read::TarReader;
use crate::layer::unpack::{Mode as UnpackMode, UnpackOptions, unpack_layer};
use crate::layer::write::TarWriter;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Request: fill a service's upper directory and volumes from a tar; the answer states for each volume whether the tar
/// contains it. Descriptors: the user namespace, the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct ImportRequest(ArchiveRequest);

impl Request for ImportRequest {
    const NAME: &'static str = "import";
    type Answer = Vec<bool>;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<Vec<bool>> {
        namespace::join(channel, fds.take()?)?;
        unpack(&self.0, fds.take()?)
    }
}

impl Sandbox {
    /// Fills a service's new upper directory and new volumes, which get `record`, from the tar that `tar` streams, which is untrusted. Does
    /// not create volumes that are missing from the tar.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a tar that is damaged or is not an export of this service,
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn import_volumes(
        &self,
        overlay: &Overlay,
        volumes: &[ArchivedVolume],
        record: &VolumeRecord,
        tar: OwnedFd,
    ) -> Result<()> {
        for volume in volumes {
            self.empty_volume(&volume.name, record)?;
        }
        let request = ArchiveRequest::new(self, overlay, volumes.iter().collect());
        let fds = [self.namespace(), tar.as_fd()];
        let stage = Stage::start(self.layer_store(), &ImportRequest(request), &fds)?;
        drop(tar);
        let filled = stage.finish()?;
        for (volume, _) in volumes.iter().zip(filled).filter(|(_, filled)| !filled) {
            self.remove_volume(&volume.name)?;
        }
        Ok(())
    }
}

/// Reads the tar; returns for each volume whether the tar contains it.
fn unpack(request: &ArchiveRequest, tar: OwnedFd) -> Result<Vec<bool>> {
    own_mounts()?;
    let open = |(_, path): &(String, PathBuf)| overlay::open(path);
    let volumes = request.volumes.iter().map(open).collect::<Result<Vec<_>>>()?;
    overlay::enter(&request.overlay)?;
    let before = overlay::open("../before")?;
    let upper = overlay::open("../upper")?;
    let trees: Vec<&OwnedFd> = std::iter::once(&upper).chain(&volumes).collect();
    let trees = confine_all("../none", &trees, &[&before])?;
    drop((upper, volumes));
    let names = request.volumes.iter().map(|(prefix, _)| prefix.as_str());
    let prefixes: Vec<&str> = std::iter::once(WRITES).chain(names).collect();
    let mut tar = File::from(tar);
    let mut entries = TarReader::new(&mut tar);
    let mut next = entries.next_entry()?;
    let mut filled = vec![false; prefixes.len()];
    // Each tree's entries are contiguous, in the order of the trees.
    while let Some(entry) = next {
        let belongs = |prefix: &&str| entry.path.starts_with(prefix.as_bytes());
        let Some(n) = prefixes.iter().position(belongs).filter(|n| !filled[*n]) else {
            return Err(Error::bad_input(format!(
                "the backup does not match the service: unexpected entry {}",
                show(&entry.path)
            )));
        };
        filled[n] = true;
        let options = UnpackOptions {
            mode: if n == 0 { UnpackMode::Overlay } else { UnpackMode::Plain },
            ids: request.ids.clone(),
            lower: (n == 0).then(|| before.as_fd()),
            drop_set_id: false,
        };
        next = unpack_tree(&mut entries, entry, prefixes[n], &trees[n], &options)?;
    }
    entries.drain()?;
    rustix::fs::syncfs(&trees[0]).io("sync", "the restored files")?;
    Ok(filled[1..].to_vec())
}

/// Unpacks the entries below `prefix`, the `first` of which has been read; returns the first entry of the next tree.
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
        let copied: Result<Option<Entry>> = (|| {
            let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 18, writer));
            let mut next = Some(first);
            while let Some(mut entry) = next {
                let Some(path) = entry.path.strip_prefix(prefix.as_bytes()) else {
                    tar.finish()?.flush().io("write", "the restored files")?;
                    return Ok(Some(entry));
                };
                entry.path = if path.is_empty() { b"./".to_vec() } else { path.to_vec() };
                if entry.kind == EntryKind::HardLink {
                    let link = entry.link.strip_prefix(prefix.as_bytes());
                    entry.link = link.map(<[u8]>::to_vec).ok_or_else(|| {
                        Error::bad_input(format!(
                            "the backup contains a hard link out of its tree: {}",
                            show(&entry.path)
                        ))
                    })?;
                }
                tar.append(&entry, &mut Content(entries))?;
                next = entries.next_entry()?;
            }
            tar.finish()?.flush().io("write", "the restored files")?;
            Ok(None)
        })();
        let unpacked =
            unpacked.join().unwrap_or_else(|_| Err(Error::sandbox("unpacking panicked")));
        // If both failed, the unpacking error is the cause, unless the tar was cut off.
        match (copied, unpacked) {
            (Err(error), Err(_)) if error.kind() == Kind::BadInput => Err(error),
            (_, Err(error)) => Err(error),
            (copied, Ok(())) => copied,
        }
    })
}
