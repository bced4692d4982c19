//! Exports one volume as a tar, and imports a tar, which is untrusted, as a volume.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::build_rootfs::BuildRootfs;
use super::confine::{confine_fd, confine_to, own_mounts};
use super::directories::{VOLUMES, create_owned_dir};
use super::overlay;
use super::volume::{DATA, volume_data};
use super::volume_archive::{Content, pipe};
use super::volume_export::{pack_tree, root_entry};
use super::volume_record::VolumeRecord;
use crate::channel::Channel;
use crate::error::{Error, IoContext, Kind, Result};
use crate::layer::entry::EntryKind;
use crate::layer::meta::IdRanges;
use crate::layer::path::{EntryPath, show, split_entry};
use crate::layer::read::TarReader;
use crate::layer::unpack::{Mode, UnpackOptions, UnpackReport, unpack_layer};
use crate::layer::write::TarWriter;
use crate::random_name::random_name;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// Request: write a volume as a tar. Descriptors: the user namespace, the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct PackVolumeRequest {
    /// An empty root file system, whose empty directory the volume is compared with.
    overlay: Overlay,
    /// The volume's data, relative to the layer store.
    volume: PathBuf,
}

/// Request: unpack a tar into a new volume. Descriptors: the user namespace, the tar.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct UnpackVolumeRequest {
    /// The empty directory, relative to the layer store.
    into: String,
    ids: IdRanges,
}

impl Request for PackVolumeRequest {
    const NAME: &'static str = "pack-volume";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        pack(&self, fds.take()?)
    }
}

impl Request for UnpackVolumeRequest {
    const NAME: &'static str = "unpack-volume";
    type Answer = UnpackReport;

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<UnpackReport> {
        namespace::join(channel, fds.take()?)?;
        unpack(&self, fds.take()?)
    }
}

/// A volume that was unpacked and has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct NewVolume<'a> {
    volumes: PathBuf,
    dir: PathBuf,
    report: UnpackReport,
    _rootfs: BuildRootfs<'a>,
}

impl NewVolume<'_> {
    /// Gives it its name; an existing volume of that name is replaced as a whole. Returns the files that differ from
    /// the tar's entries.
    ///
    /// # Errors
    /// [`Kind::Storage`].
    pub(crate) fn publish(self, name: &str, record: &VolumeRecord) -> Result<UnpackReport> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        record.write(&self.dir)?;
        let volume = self.volumes.join(name);
        // One step: at no time is there no volume, or a mixture. The old one takes the place of the new one in the build
        // directory, with which it is removed.
        let flags = if volume.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &self.dir, CWD, &volume, flags).io("create the volume", &volume)?;
        File::open(&self.volumes).and_then(|dir| dir.sync_all()).io("sync", &self.volumes)?;
        Ok(self.report)
    }
}

impl Sandbox {
    /// Writes a volume as a tar, as `tar -C DATA --numeric-owner --xattrs -c .` would, sorted.
    ///
    /// # Errors
    /// [`Kind::BadInput`] for a file that a layer can't hold, [`Kind::Storage`], [`Kind::Sandbox`].
    pub(crate) fn export_volume(&self, name: &str, tar: OwnedFd) -> Result<()> {
        let rootfs = self.empty_build_rootfs()?;
        let request =
            PackVolumeRequest { overlay: rootfs.overlay().clone(), volume: volume_data(name) };
        let fds = [self.namespace(), tar.as_fd()];
        let stage = Stage::start(self.layer_store(), &request, &fds)?;
        drop(tar);
        stage.finish()
    }

    /// Unpacks an uncompressed tar, which is untrusted, for a new volume.
    ///
    /// # Errors
    /// [`Kind::BadInput`] for a tar that is damaged, empty, or has an entry that no volume can hold;
    /// [`Kind::Storage`], [`Kind::Sandbox`].
    pub(crate) fn unpack_volume(&self, tar: OwnedFd) -> Result<NewVolume<'_>> {
        create_owned_dir(&self.layer_store().join(VOLUMES), self.map())?;
        let rootfs = self.empty_build_rootfs()?;
        let dir = &rootfs.overlay().dir;
        let new = self.layer_store().join(dir).join("volume");
        create_owned_dir(&new, self.map())?;
        create_owned_dir(&new.join(DATA), self.map())?;
        rustix::fs::chmod(new.join(DATA), rustix::fs::Mode::from(0o755))
            .io("set the mode of", "the volume")?;
        let into = format!("{dir}/volume/{DATA}");
        let request = UnpackVolumeRequest { into, ids: self.id_ranges() };
        let fds = [self.namespace(), tar.as_fd()];
        let stage = Stage::start(self.layer_store(), &request, &fds)?;
        drop(tar);
        let report = stage.finish()?;
        Ok(NewVolume {
            volumes: self.layer_store().join(VOLUMES),
            dir: new,
            report,
            _rootfs: rootfs,
        })
    }

    /// Removes a volume; an interrupt leaves the whole volume or nothing of it.
    ///
    /// # Errors
    /// [`Kind::Storage`], [`Kind::Sandbox`].
    pub(crate) fn remove_volume(&self, name: &str) -> Result<()> {
        let volume = self.layer_store().join(VOLUMES).join(name);
        if !volume.exists() {
            return Ok(());
        }
        // Unlocked: if svp is killed, the next command removes it.
        let away = format!("tmp/{}", random_name());
        std::fs::rename(&volume, self.layer_store().join(&away)).io("remove", &volume)?;
        self.remove(vec![away])
    }

    /// Whether a volume has no files. False if that can't be determined.
    pub(crate) fn is_empty_volume(&self, name: &str) -> bool {
        let data = self.layer_store().join(volume_data(name));
        std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_none())
    }
}

fn pack(request: &PackVolumeRequest, tar: OwnedFd) -> Result<()> {
    own_mounts()?;
    let volume = overlay::open(&request.volume)?;
    overlay::enter(&request.overlay)?;
    let empty = overlay::open("../empty")?;
    confine_to("../none", &[&volume, &empty])?;
    let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 18, File::from(tar)));
    tar.append(&root_entry("./", &volume)?, &mut io::empty())?;
    pack_tree(&mut tar, "", &volume, &empty)?;
    tar.finish()?.flush().io("write", "the archive")
}

fn unpack(request: &UnpackVolumeRequest, tar: OwnedFd) -> Result<UnpackReport> {
    own_mounts()?;
    let into = confine_fd("/dev", &overlay::open(&request.into)?, &[])?;
    let (reader, writer) = pipe()?;
    let options = UnpackOptions {
        mode: Mode::Plain,
        ids: request.ids.clone(),
        lower: None,
        drop_set_id: false,
    };
    let report = std::thread::scope(|scope| {
        let checked = scope.spawn(move || check_entries(File::from(tar), writer));
        let mut reader = reader;
        let unpacked = unpack_layer(&mut reader, into.as_fd(), &options);
        // Closing the read end stops the writer.
        drop(reader);
        let checked = checked.join().unwrap_or_else(|_| Err(Error::sandbox("reading panicked")));
        match (checked, unpacked) {
            (Err(error), _) if error.kind() == Kind::BadInput => Err(error),
            (_, Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(()), Ok(report)) => Ok(report),
        }
    })?;
    rustix::fs::syncfs(&into).io("sync", "the volume")?;
    Ok(report)
}

/// Copies a tar, and refuses what unpacking would not create: names that mean removals in a layer.
fn check_entries(tar: File, into: impl Write) -> Result<()> {
    let mut tar = BufReader::with_capacity(1 << 18, tar);
    let mut entries = TarReader::new(&mut tar);
    let mut copy = TarWriter::new(BufWriter::with_capacity(1 << 18, into));
    let mut any = false;
    while let Some(entry) = entries.next_entry()? {
        any = true;
        let path = EntryPath::parse(&entry.path)?;
        let whiteout = path.as_bytes().split(|b| *b == b'/').any(|name| name.starts_with(b".wh."));
        if whiteout || (!path.is_root() && split_entry(&path)?.is_none()) {
            return Err(Error::bad_input(format!(
                "a volume can't have the file {}: names that begin with \".wh.\" mean removals",
                show(&entry.path)
            )));
        }
        if path.is_root() && entry.kind != EntryKind::Directory {
            return Err(Error::bad_input("the tar's root is not a directory"));
        }
        copy.append(&entry, &mut Content(&mut entries))?;
    }
    if !any {
        return Err(Error::bad_input("the tar is empty")
            .hint("`svp volume export` writes a volume as a tar, `tar -C DIR -c .` a directory"));
    }
    if !entries.has_end_mark() {
        return Err(Error::bad_input("the tar is cut off: its end mark is missing"));
    }
    entries.drain()?;
    copy.finish()?.flush().io("write", "the volume")
}
