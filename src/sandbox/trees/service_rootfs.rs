//! The root file system of a service, with writes that outlive its containers.

use super::directories::{SERVICES, create_owned_dir};
use super::layer_store::LayerSource;
use crate::error::Result;
use crate::progress::Reporter;
use crate::sandbox::cgroup;
use crate::sandbox::create::Sandbox;
use crate::sandbox::spec::Overlay;

impl Sandbox {
    /// Returns the root file system of a service: its layers, unpacked if necessary, and an upper directory under
    /// `id`, which stays until it is removed.
    ///
    /// # Errors
    /// As [`Sandbox::build_rootfs`].
    pub(crate) fn service_overlay(
        &self,
        id: &str,
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        reporter: &dyn Reporter,
    ) -> Result<Overlay> {
        let rootfs = self.build_rootfs(layers, reporter)?;
        let place = format!("{SERVICES}/{id}");
        create_owned_dir(&self.layer_store().join(SERVICES), self.map())?;
        create_owned_dir(&self.layer_store().join(&place), self.map())?;
        Ok(Overlay { dir: place, durable: true, ..rootfs.overlay().clone() })
    }

    /// Removes a service's writes, and its cgroup if its monitor was killed.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn remove_service(&self, id: &str) -> Result<()> {
        cgroup::forget(id);
        self.remove_existing(format!("{SERVICES}/{id}"))
    }
}
