//! The environment of `bin/build`, complete: the variables of the image and the pack, the secrets, and
//! the caller's variables for the build.

use super::script::ScriptOptions;
use crate::error::Result;
use crate::oci::Image;
use crate::pack::query::EnvVar;
use crate::secret::Secret;
use crate::service::environment::{of_image, set};

/// Variables that configure proxies.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Builds the environment of `bin/build`: the image's variables, the pack's except those with an address that is not
/// yet known, svp's own proxy variables, SOURCE_DATE_EPOCH, the variables of `options`, and the secrets.
///
/// # Errors
/// Those of [`of_image`].
pub(super) fn of_build(
    image: &Image,
    pack: &[EnvVar],
    secrets: &[(String, Secret)],
    options: &ScriptOptions,
) -> Result<Vec<(String, String)>> {
    let mut env = of_image(image)?;
    for variable in pack.iter().filter(|variable| !variable.needs_ip()) {
        set(&mut env, &variable.name, &variable.value);
    }
    for name in PROXIES {
        for name in [name.to_owned(), name.to_lowercase()] {
            if let Ok(value) = std::env::var(&name) {
                set(&mut env, &name, &value);
            }
        }
    }
    if let Some(seconds) = options.source_date_epoch {
        set(&mut env, "SOURCE_DATE_EPOCH", &seconds.to_string());
    }
    for (name, value) in &options.env {
        set(&mut env, name, value);
    }
    for (name, secret) in secrets {
        set(&mut env, name, secret.expose());
    }
    Ok(env)
}
