//! Kubernetes volumes: claims, mounts, and the init container that fills new ones from the image.

use super::super::mount::{Mount, MountSource};
use super::Model;
use super::names::labels;
use super::objects::{argument, container, object};
use super::yaml::Yaml;
use crate::oci::Digest;

/// The mount point of the volumes in the init container.
const NEW: &str = "/volumes";

/// Fills a volume if it is new: `fill PATH-IN-THE-IMAGE VOLUME`. Entries such as lost+found don't count; an
/// interrupted copy starts again.
const FILL: &str = r#"set -eu
fill() {
  if [ ! -e "$2/.filling" ]; then
    for entry in "$2"/* "$2"/.[!.]* "$2"/..?*; do
      if [ -e "$entry" ] || [ -L "$entry" ]; then
        [ "$entry" = "$2/lost+found" ] || return 0
      fi
    done
  fi
  [ -d "$1" ] || return 0
  touch "$2/.filling"
  cp -a "$1/." "$2/"
  rm "$2/.filling"
}
"#;

/// The unique names of the volumes.
pub(super) struct Claims<'a>(Vec<(&'a str, String)>);

impl<'a> Claims<'a> {
    pub(super) fn new(model: &'a Model<'_>) -> Claims<'a> {
        let volumes = model.volumes();
        let names = labels(&volumes);
        Claims(volumes.into_iter().zip(names).collect())
    }

    /// The PersistentVolumeClaim objects.
    pub(super) fn objects(&self, app: &str) -> impl Iterator<Item = Yaml> {
        self.0.iter().map(move |(_, name)| {
            let request = [("requests", [("storage", "1Gi".into())].into())].into();
            let modes = vec!["ReadWriteOnce".into()].into();
            let spec = Yaml::from([("accessModes", modes), ("resources", request)]);
            object("v1", "PersistentVolumeClaim", name, app).with("spec", spec)
        })
    }

    fn of(&self, volume: &str) -> &str {
        self.0.iter().find(|(name, _)| *name == volume).map_or("", |(_, claim)| claim)
    }

    /// The name of a mount in the pod.
    fn name(&self, source: &MountSource) -> String {
        match source {
            MountSource::Volume(volume) => self.of(volume).to_owned(),
            MountSource::Host(path) => format!("host-{}", &Digest::of(path.as_bytes()).hex()[..8]),
        }
    }
}

/// The container that fills volumes from the image before the others start.
pub(super) fn init_container(model: &Model<'_>, claims: &Claims<'_>) -> Yaml {
    let mut script = FILL.to_owned();
    let mut mounts: Vec<Yaml> = Vec::new();
    for (volume, mount) in model.volume_mounts() {
        let name = claims.of(volume);
        let at = format!("{NEW}/{name}");
        script += &format!("fill {} {at}\n", shell_word(&mount.at));
        let mount = Yaml::from([("name", name.into()), ("mountPath", at.into())]);
        if !mounts.contains(&mount) {
            mounts.push(mount);
        }
    }
    container(model, "fill-volumes")
        .with("command", vec!["/bin/sh".into(), "-c".into(), argument(&script).into()])
        .with("volumeMounts", mounts)
}

pub(super) fn volume_mount(mount: &Mount, claims: &Claims<'_>) -> Yaml {
    let name = claims.name(&mount.source);
    let plain = Yaml::from([("name", name.into()), ("mountPath", mount.at.as_str().into())]);
    plain.with_some("readOnly", mount.read_only.then_some(true))
}

pub(super) fn volumes(model: &Model<'_>, claims: &Claims<'_>) -> Vec<Yaml> {
    let mut out = Vec::new();
    for mount in &model.record.mounts {
        let name = claims.name(&mount.source);
        let source = match &mount.source {
            MountSource::Volume(_) => {
                ("persistentVolumeClaim", [("claimName", name.as_str().into())].into())
            }
            MountSource::Host(path) => ("hostPath", [("path", path.as_str().into())].into()),
        };
        let volume = Yaml::from([("name", name.as_str().into()), source]);
        if !out.contains(&volume) {
            out.push(volume);
        }
    }
    out
}

fn shell_word(text: &str) -> String {
    let bare = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if bare { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
