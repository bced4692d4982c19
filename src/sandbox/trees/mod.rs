//! Trees: unpacked layers, the root file systems of builds and services, volumes. The containers' root owns them.
//!
//! | file | job |
//! |---|---|
//! | `directories` | creates and names the directories of the layer store |
//! | `overlay`, `overlay_cause`, `confine` | mounts an overlay; why it can't be mounted; confines a stage to a tree |
//! | `unpack`, `diff`, `remove` | the stages that unpack, diff and remove trees |
//! | `unmapped_ids` | finds new users without an id |
//! | `layer_store` | unpacks each layer of an image once |
//! | `build_rootfs`, `service_rootfs` | layers with an upper directory on top |
//! | `layer_cache` | lists, measures and removes the trees of all id maps |
//! | `verify` | compares unpacked layers with their blobs |
//! | `unpack_directory` | unpacks into any directory of the caller |
//! | `image_files` | checks an image for files |
//! | `volume`, `volume_record` | volumes, and what is known about each |
//! | `volume_transfer` | the tar of one volume |
//! | `volume_export`, `volume_import`, `volume_archive` | the tar of a backup: a service's files and volumes |

pub(super) mod build_rootfs;
pub(super) mod confine;
pub(super) mod diff;
pub(super) mod directories;
pub(super) mod image_files;
pub(super) mod layer_cache;
pub(super) mod layer_store;
pub(super) mod overlay;
mod overlay_cause;
pub(super) mod remove;
pub(super) mod service_rootfs;
pub(super) mod unmapped_ids;
pub(super) mod unpack;
pub(super) mod unpack_directory;
pub(super) mod verify;
pub(super) mod volume;
pub(super) mod volume_archive;
pub(super) mod volume_export;
pub(super) mod volume_import;
pub(super) mod volume_record;
pub(super) mod volume_transfer;
