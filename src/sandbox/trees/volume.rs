//! Volumes: creates, fills and renames them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::confine::{confine_fd, own_mounts};
use super::directories::{VOLUMES, create_owned_dir};
use super::overlay;
use super::volume_record::VolumeRecord;
use crate::channel::Channel;
use crate::error::{Error, IoContext, Result};
use crate::layer::diff::{DiffRequest, diff};
use crate::layer::entry::Timestamp;
use crate::layer::meta::IdRanges;
use crate::layer::unpack::{
    Mode as UnpackMode, UnpackOptions, copy_directory_metadata, unpack_layer,
};
use crate::rootfs::open_in_root;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::{Bind, Overlay};
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};
use crate::sandbox::userns::namespace;

/// The mounted directory is one level below the volume's own: the service may change its owner, and svp could not
/// rename it then.
pub(super) const DATA: &str = "data";

/// Request: fill a volume from an image, or from another volume. Descriptors: the user namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct FillRequest {
    /// The image's layers.
    overlay: Overlay,
    /// The source directory, absolute in the image.
    from: String,
    /// The data of the volume to copy instead, relative to the layer store.
    #[serde(default)]
    volume: Option<PathBuf>,
    /// The empty destination directory, relative to the layer store.
    into: String,
    ids: IdRanges,
}

impl Sandbox {
    /// Creates a volume, unless it exists, with the content of the image's directory `from`; returns whether it
    /// is new.
    ///
    /// # Errors
    /// As [`Sandbox::build_rootfs`].
    pub(crate) fn create_volume(
        &self,
        name: &str,
        overlay: &Overlay,
        from: &str,
        record: &VolumeRecord,
    ) -> Result<bool> {
        let volume = self.layer_store().join(VOLUMES).join(name);
        if volume.exists() {
            return Ok(false);
        }
        self.fill_new_volume(name, overlay, from, None, record)
    }

    /// Copies a volume that no service uses to a new one, with all that a layer can express.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn copy_volume(&self, from: &str, name: &str, overlay: &Overlay) -> Result<()> {
        // The copy has the data, and so the passwords, of the same setup.
        let record = self.volume_record(from)?.ok_or_else(|| {
            Error::new(crate::error::Kind::Storage, format!("the volume {from} does not exist"))
        })?;
        self.fill_new_volume(name, overlay, "/", Some(volume_data(from)), &record).map(drop)
    }

    /// Creates a volume from a directory of an image, or from another volume; returns whether it is new.
    fn fill_new_volume(
        &self,
        name: &str,
        overlay: &Overlay,
        from: &str,
        source: Option<PathBuf>,
        record: &VolumeRecord,
    ) -> Result<bool> {
        let volume = self.layer_store().join(VOLUMES).join(name);
        create_owned_dir(&self.layer_store().join(VOLUMES), self.map())?;
        let rootfs = self.empty_build_rootfs()?;
        let new = format!("{}/volume", rootfs.overlay().dir);
        let into = format!("{new}/{DATA}");
        create_owned_dir(&self.layer_store().join(&new), self.map())?;
        create_owned_dir(&self.layer_store().join(&into), self.map())?;
        let request = FillRequest {
            overlay: Overlay { lowers: overlay.lowers.clone(), ..rootfs.overlay().clone() },
            from: from.to_owned(),
            volume: source,
            into,
            ids: self.id_ranges(),
        };
        Stage::start(self.layer_store(), &request, &[self.namespace()])?.finish()?;
        record.write(&self.layer_store().join(&new))?;
        match std::fs::rename(self.layer_store().join(&new), &volume) {
            // Another command created it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(false),
            other => other.io("create the volume", &volume).map(|()| true),
        }
    }

    /// Renames a volume, if it exists and the new name is free.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn rename_volume(&self, from: &str, to: &str) -> Result<()> {
        let volumes = self.layer_store().join(VOLUMES);
        let (from, to) = (volumes.join(from), volumes.join(to));
        if !from.exists() {
            return Ok(());
        }
        if to.exists() {
            return Err(Error::new(
                crate::error::Kind::Storage,
                format!("the volume {} exists already", to.display()),
            ));
        }
        std::fs::rename(&from, &to).io("rename the volume", &from)?;
        File::open(&volumes).and_then(|dir| dir.sync_all()).io("sync", &volumes)
    }

    /// Whether a volume of this name exists.
    pub(crate) fn has_volume(&self, name: &str) -> bool {
        self.layer_store().join(VOLUMES).join(name).exists()
    }

    /// Syncs the writes of all services to the disk.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn sync(&self) -> Result<()> {
        let layer_store = File::open(self.layer_store()).io("open", self.layer_store())?;
        rustix::fs::syncfs(layer_store).io("sync", self.layer_store())
    }

    /// Creates an empty volume, if it is missing.
    pub(in crate::sandbox) fn empty_volume(&self, name: &str, record: &VolumeRecord) -> Result<()> {
        for dir in [Path::new(VOLUMES), &Path::new(VOLUMES).join(name), &volume_data(name)] {
            create_owned_dir(&self.layer_store().join(dir), self.map())?;
        }
        record.write(&self.layer_store().join(VOLUMES).join(name))
    }

    /// Returns the directory of the data of the volume at `dir`.
    pub(crate) fn volume_data_at(dir: &Path) -> PathBuf {
        dir.join(DATA)
    }

    /// Returns the bind mount of a volume in a service's container.
    pub(crate) fn volume_bind(name: &str, at: &str, read_only: bool) -> Bind {
        // Relative to the directory in which the container's init starts: `l` in the overlay's directory.
        let source = PathBuf::from("../../..").join(volume_data(name));
        Bind { source, at: at.to_owned(), read_only }
    }
}

/// Returns the directory of a volume's data, relative to the layer store.
pub(in crate::sandbox) fn volume_data(name: &str) -> PathBuf {
    Path::new(VOLUMES).join(name).join(DATA)
}

/// Returns the volume's name, if `source` is the source of a [`Sandbox::volume_bind`].
pub(in crate::sandbox) fn volume_name(source: &Path) -> Option<&str> {
    let rest = source.strip_prefix("../../..").ok()?.strip_prefix(VOLUMES).ok()?;
    rest.parent()?.to_str()
}

impl Request for FillRequest {
    const NAME: &'static str = "fill";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        namespace::join(channel, fds.take()?)?;
        fill(&self)
    }
}

/// Copies a directory of the image, if it exists, with all attributes that a layer can express.
fn fill(request: &FillRequest) -> Result<()> {
    own_mounts()?;
    let into = overlay::open(&request.into)?;
    let volume = request.volume.as_ref().map(overlay::open).transpose()?;
    overlay::enter(&request.overlay)?;
    let image = overlay::open("../before")?;
    let empty = overlay::open("../empty")?;
    if let Some(volume) = volume {
        let into = confine_fd("../none", &into, &[&volume, &empty])?;
        return copy(&volume, &empty, &into, &request.ids);
    }
    let from = Path::new(request.from.trim_start_matches('/'));
    let Ok(from) = open_in_root(image.as_fd(), from, OFlags::RDONLY | OFlags::DIRECTORY) else {
        rustix::fs::fchmod(&into, Mode::from(0o755)).io("set the mode of", "the volume")?;
        return Ok(());
    };
    // From here on, the host's files are out of reach.
    let into = confine_fd("../none", &into, &[&from, &empty])?;
    copy(&from, &empty, &into, &request.ids)
}

/// Copies a tree as a layer, streamed through a pipe.
fn copy(from: &OwnedFd, empty: &OwnedFd, into: &OwnedFd, ids: &IdRanges) -> Result<()> {
    let pipe = std::io::pipe().map_err(|error| Error::sandbox("can't create a pipe").source(error));
    let (reader, writer) = pipe?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let request = DiffRequest {
                upper: from.as_fd(),
                before: empty.as_fd(),
                started: Timestamp { seconds: 0, nanoseconds: 0 },
                clamp_mtime: None,
            };
            let mut writer =
                std::io::BufWriter::with_capacity(1 << 18, File::from(OwnedFd::from(writer)));
            diff(&request, &mut writer)?;
            std::io::Write::flush(&mut writer).io("copy", "a volume")
        });
        let mut reader = File::from(OwnedFd::from(reader));
        let options = UnpackOptions {
            mode: UnpackMode::Plain,
            ids: ids.clone(),
            lower: None,
            drop_set_id: false,
        };
        let unpacked = unpack_layer(&mut reader, into.as_fd(), &options).map(drop);
        // Closing the read end stops the writer.
        drop(reader);
        let written = written.join().unwrap_or_else(|_| Err(Error::sandbox("copying panicked")));
        written.and(unpacked)
    })?;
    copy_directory_metadata(from.as_fd(), into.as_fd())?;
    rustix::fs::syncfs(into).io("sync", "the volume")
}
