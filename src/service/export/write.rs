//! Exports a service in one of the formats.

use super::super::record::Record;
use super::{Exported, Format, Model, Request, kube, quadlet, systemd};
use crate::error::Result;
use crate::oci::Image;

/// Exports a service in the requested format.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if the format can't express the service.
pub(crate) fn export(record: &Record, image: &Image, request: &Request) -> Result<Exported> {
    if request.format == Format::Systemd {
        return systemd::export(record, request);
    }
    let model = Model::new(record, image, request)?;
    match request.format {
        Format::Kube => kube::export(&model, request.secrets),
        _ => quadlet::export(&model, request.secrets),
    }
}
