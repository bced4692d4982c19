//! The root file system of a service, whose writes outlive its containers.

use super::directories::{SERVICES, create_owned_dir};
use super::layer_store::LayerSource;
use crate::error::Result;
use crate::sandbox::cgroup;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;

impl Sandbox {
    /// The root file system of a service, whose writes are kept under `id` until they are removed: the
    /// layers, unpacked if they aren't, and its place on top.
    ///
    /// # Errors
    /// As [`Sandbox::build_rootfs`].
    pub fn service_overlay(
        &self,
        id: &str,
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        unpacking: &mut dyn FnMut(&LayerSource),
    ) -> Result<Overlay> {
        let rootfs = self.build_rootfs(layers, unpacking)?;
        let place = format!("{SERVICES}/{id}");
        create_owned_dir(&self.layer_store().join(SERVICES), self.map())?;
        create_owned_dir(&self.layer_store().join(&place), self.map())?;
        Ok(Overlay { dir: place, durable: true, ..rootfs.overlay().clone() })
    }

    /// Removes what a service has written, and its cgroup if its monitor was killed.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub fn remove_service(&self, id: &str) -> Result<()> {
        cgroup::forget(id);
        self.remove_existing(format!("{SERVICES}/{id}"))
    }
}
