//! Exports a volume as a tar, and imports a tar as a volume.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::list::is_no_volume;
use crate::error::{Context, Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::layer::compress::layer_decoder;
use crate::layer::unpack::UnpackReport;
use crate::progress::Reporter;
use crate::sandbox::{Sandbox, VolumeRecord};
use crate::service::backup::cutover;
use crate::service::mount::MountSource;
use crate::service::name::check_name;
use crate::service::service_dir::ServiceDir;
use crate::service::status::now;
use crate::store::StoreLayout;

/// A volume that can be exported: the services that write it are stopped, and can't start.
pub(crate) struct Export<'a> {
    sandbox: Sandbox,
    name: &'a str,
    _locks: Vec<File>,
}

impl<'a> Export<'a> {
    /// Finds the volume, and locks its services.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a volume that is missing or in use; [`Kind::Storage`], [`Kind::Sandbox`].
    pub(crate) fn begin(root: &Path, name: &'a str, reporter: &dyn Reporter) -> Result<Self> {
        let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
        if check_name(name).is_err() || !sandbox.has_volume(name) {
            return Err(is_no_volume(name));
        }
        let _locks = stopped_users(root, name, false, reporter)?;
        Ok(Export { sandbox, name, _locks })
    }

    /// Writes the volume as a tar to `to`.
    ///
    /// # Errors
    /// [`Kind::BadInput`] for a file that no layer can hold, [`Kind::Storage`], [`Kind::Sandbox`].
    pub(crate) fn write(&self, to: OwnedFd) -> Result<()> {
        self.sandbox.export_volume(self.name, to).context(format_args!("the volume {}", self.name))
    }
}

/// Creates a volume with the content of a tar, which may be compressed and is untrusted. With `replace`, the tar may
/// replace the content of an existing volume. On failure everything stays as it was.
///
/// # Errors
/// [`Kind::Usage`] for a volume that has files, if `replace` is not set, or is in use; [`Kind::BadInput`] for a tar
/// that is damaged or has an entry that no volume can hold; [`Kind::Storage`], [`Kind::Sandbox`].
pub(crate) fn import(
    root: &Path,
    name: &str,
    input: File,
    replace: bool,
    reporter: &dyn Reporter,
) -> Result<UnpackReport> {
    check_name(name)?;
    let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
    if sandbox.has_volume(name) && !replace && !sandbox.is_empty_volume(name) {
        return Err(Error::usage(format!("the volume {name} has files already")).hint(format!(
            "--replace replaces all of them; `svp volume export {name} -o FILE` saves them first"
        )));
    }
    let _locks = stopped_users(root, name, true, reporter)?;
    let failed = |error| Error::new(Kind::Storage, "can't create a pipe").source(error);
    let (tar, into) = io::pipe().map_err(failed)?;
    let new = std::thread::scope(|scope| {
        let sandbox = &sandbox;
        let unpacked = scope.spawn(move || sandbox.unpack_volume(OwnedFd::from(tar)));
        let streamed = decompress(input, &mut File::from(OwnedFd::from(into)));
        let unpacked =
            unpacked.join().unwrap_or_else(|_| Err(Error::sandbox("unpacking panicked")));
        interrupt::check()?;
        match (streamed, unpacked) {
            // The stage's reason explains more than a broken pipe.
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(_)) if error.kind() == Kind::BadInput => Err(error),
            (_, unpacked) => unpacked,
        }
    })
    .context(format_args!("nothing was imported into the volume {name}"))?;
    let old = sandbox.volume_record(name).ok().flatten();
    let record =
        VolumeRecord { service: old.and_then(|old| old.service), ..VolumeRecord::new(now()) };
    new.publish(name, &record)
}

/// Copies a tar to the stage, decompressed if it begins like gzip or zstd.
fn decompress(input: File, into: &mut File) -> Result<()> {
    let (_, mut tar) = layer_decoder(input)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match tar.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(Error::bad_input("the tar can't be read").source(error));
            }
            Ok(0) => return Ok(()),
            Ok(read) => read,
        };
        into.write_all(&buffer[..read]).io("write", "the volume")?;
    }
}

/// Locks the services that use a volume, so that none of them starts; fails if one of them runs. Services that only
/// read it count if `readers` is set.
fn stopped_users(
    root: &Path,
    name: &str,
    readers: bool,
    reporter: &dyn Reporter,
) -> Result<Vec<File>> {
    let volume = MountSource::Volume(name.to_owned());
    let mut locks = Vec::new();
    for service in ServiceDir::all(root)? {
        let mounts = service.record()?.mounts;
        let uses = mounts.iter().any(|m| m.source == volume && (readers || !m.read_only));
        if !uses && !cutover::volumes(&service)?.iter().any(|one| one == name) {
            continue;
        }
        let user = service.name();
        if cutover::is_locked(&service)? || service.has_cutover_journal() {
            return Err(Error::usage(format!(
                "{user}, which uses the volume {name}, is being restored"
            ))
            .hint("try again when that is done; `svp prune` completes a restore that was killed"));
        }
        let lock = service.lock()?.ok_or_else(|| {
            Error::usage(format!("the service {user} is running and uses the volume {name}")).hint(
                format!("stop it first: `svp stop {user}`; `svp backup {user}` saves its data while it runs"),
            )
        })?;
        service.wait_for_container(reporter)?;
        locks.push(lock);
    }
    Ok(locks)
}
