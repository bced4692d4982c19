//! The environment that an image gives to the scripts of its pack.

use crate::oci::Image;

/// Docker's and podman's PATH for an image without one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the minimal environment: PATH and HOME.
pub(crate) fn plain() -> Vec<(String, String)> {
    vec![("PATH".into(), PATH.into()), ("HOME".into(), "/root".into())]
}

/// Returns an image's environment: its config's Env on top of a minimal one.
pub(crate) fn of_image(image: &Image) -> Vec<(String, String)> {
    let mut env = plain();
    for variable in image.config().env() {
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        set(&mut env, name, value);
    }
    env
}

/// Sets a variable, replacing its old value if there is one.
pub(crate) fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    // An image's config may contain such variables, but execve(2) can't pass them.
    if name.is_empty() || name.contains('\0') || value.contains('\0') {
        return;
    }
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => env.push((name.to_owned(), value.to_owned())),
    }
}
