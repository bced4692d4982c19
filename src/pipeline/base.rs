//! Finds the source of a base image: `--base`, the configuration's `[os]` table, or Docker Hub.

use super::copy;
use super::image_role::{self, ImageRole};
use crate::config::Config;
use crate::error::{Context, Result};
use crate::oci::{Descriptor, Image};
use crate::pack::query::Os;
use crate::progress::{Reporter, Step};
use crate::source::{PullOptions, Source, pull};
use crate::store::Store;

/// A base image in the store.
pub(super) struct Base {
    /// Its name at the source.
    pub(super) name: String,
    pub(super) descriptor: Descriptor,
    pub(super) image: Image,
}

/// The source of the base image for an operating system.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if the configuration names no source.
pub(super) fn source(os: &Os, asked: Option<&Source>, config: &Config) -> Result<Source> {
    if let Some(source) = asked {
        return Ok(source.clone());
    }
    if let Some(configured) = config.os(&os.to_string()) {
        return configured.parse().context(format!(
            "[os] {:?} in {}",
            os.to_string(),
            config.path().display()
        ));
    }
    format!("docker://docker.io/library/{}:{}", os.name, os.version)
        .parse()
        .context(format!("the pack's os {os}"))
}

/// Pulls the base image into the store.
///
/// # Errors
/// As [`pull`]; the hint shows how to name another source.
pub(super) fn provide(
    store: &Store,
    source: &Source,
    os: &Os,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<Base> {
    reporter.step(Step::BaseImage { source: source.to_string() });
    let descriptor = pull(source, store, options, reporter)
        .context(format!("the base image for the pack's os {os}"))
        .map_err(|error| error.also_hint("or name another source with --base"))?;
    let image = store.load_image(&descriptor)?;
    if matches!(source, Source::Docker(_)) {
        remember(store, source, &descriptor)?;
    }
    Ok(Base { name: source.image_name(), descriptor, image })
}

/// Tags a registry's image with its full name, as `svp pull` does, so that `--pull missing` and `never` find it and
/// `svp prune` keeps it.
fn remember(store: &Store, source: &Source, descriptor: &Descriptor) -> Result<()> {
    let name = copy::own_name(source)?;
    let held = store.tag(&name)?;
    let same = held.is_some_and(|tag| tag.manifest.digest == descriptor.digest);
    // Never overwrite the tag of an instance, which has secrets.
    if same || image_role::role_of_tag(store, &name)? == Some(ImageRole::Instance) {
        return Ok(());
    }
    copy::tag(store, &name, descriptor, false)
}
