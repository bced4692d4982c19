//! Parts of Kubernetes objects.

use super::Model;
use super::yaml::Yaml;

/// Metadata common to all objects.
pub(super) fn object(api: &str, kind: &str, name: &str, app: &str) -> Yaml {
    let metadata = Yaml::from([("name", name.into()), ("labels", app_label(app))]);
    [("apiVersion", api.into()), ("kind", kind.into()), ("metadata", metadata)].into()
}

pub(super) fn app_label(app: &str) -> Yaml {
    [("app.kubernetes.io/name", app.into())].into()
}

pub(super) fn container(model: &Model<'_>, name: &str) -> Yaml {
    let policy = if model.in_registry { "IfNotPresent" } else { "Never" };
    [
        ("name", name.into()),
        ("image", model.image.as_str().into()),
        ("imagePullPolicy", policy.into()),
    ]
    .into()
}

/// Escapes an argument of a command, in which Kubernetes replaces `$$` by `$`.
pub(super) fn argument(text: &str) -> String {
    text.replace("$$", "$$$$")
}
