//! The environment that an image gives to the scripts of its pack.

use crate::error::{Error, Result};
use crate::oci::Image;

/// Docker's and podman's PATH for an image without one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the minimal environment: PATH and HOME.
pub(crate) fn plain() -> Vec<(String, String)> {
    vec![("PATH".into(), PATH.into()), ("HOME".into(), "/root".into())]
}

/// Returns an image's environment: its config's Env on top of a minimal one.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a variable with a NUL byte, which execve(2) can't pass.
pub(crate) fn of_image(image: &Image) -> Result<Vec<(String, String)>> {
    let mut env = plain();
    for variable in image.config().env() {
        if variable.contains('\0') {
            let shown = variable.escape_debug();
            return Err(Error::bad_input(format!(
                "the image's variable {shown} has a NUL byte: no program can get it"
            ))
            .hint("change Env in the image's config, with the tool that made the image"));
        }
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        set(&mut env, name, value);
    }
    Ok(env)
}

/// Sets a variable, replacing its old value if there is one.
pub(crate) fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    // An image's config may contain variables without a name. The others have been refused where they came from.
    if name.is_empty() || name.contains('\0') || value.contains('\0') {
        return;
    }
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => env.push((name.to_owned(), value.to_owned())),
    }
}
