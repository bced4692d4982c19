//! registries.conf (containers-registries.conf(5), containers-registries.conf.d(5)): locations, mirrors,
//! insecure and blocked registries.
//!
//! Settings for short names are ignored: in svp, a name without a registry is local.

mod file;
mod registry;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, IoContext, Result};
use crate::oci::Reference;
use file::ParsedFile;
use registry::{Mirror, Registry, Use};

const FILE: &str = "registries.conf";
const DROP_INS: &str = "registries.conf.d";

/// The configuration of registries. It is read once, before the first request.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    places: Places,
    read: Arc<Mutex<Option<Arc<Conf>>>>,
}

#[derive(Clone, Debug, Default)]
struct Places {
    /// A file that the user named: it must exist.
    named: Option<PathBuf>,
    /// The user's configuration directory.
    user: Option<PathBuf>,
    /// The system's configuration directory.
    system: Option<PathBuf>,
}

/// The merged settings.
#[derive(Debug, Default)]
pub(super) struct Conf {
    registries: BTreeMap<String, Registry>,
    helpers: Option<Vec<String>>,
}

/// A location from which an image may be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) reference: Reference,
    /// Whether plain http and unverified TLS are allowed.
    pub(super) insecure: bool,
}

impl Registries {
    /// Uses no files: every registry is reached by its name.
    pub fn none() -> Self {
        Self::default()
    }

    /// Uses `CONTAINERS_REGISTRIES_CONF` if set; else the user's `registries.conf` (in `$XDG_CONFIG_HOME/containers` or
    /// `~/.config/containers`), else `/etc/containers/registries.conf`; and the drop-ins.
    pub fn from_env() -> Self {
        let named = env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|path| !path.is_empty());
        let has_some = |dir: &PathBuf| dir.join(FILE).exists() || dir.join(DROP_INS).exists();
        let places = Places {
            named: named.map(PathBuf::from),
            user: user_directories().into_iter().find(has_some),
            system: Some(SYSTEM.into()),
        };
        Registries { places, read: Arc::default() }
    }

    /// Returns the settings; reads the files on the first call.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput), naming the file and the line, if a file is invalid, or if the
    /// one that the user named is missing; [`Kind::Storage`](crate::error::Kind::Storage) if a file can't be read.
    pub(super) fn conf(&self) -> Result<Arc<Conf>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conf) = &*read {
            return Ok(Arc::clone(conf));
        }
        let conf = Arc::new(self.places.read()?);
        *read = Some(Arc::clone(&conf));
        Ok(conf)
    }
}

/// The system's configuration directory shared by podman, skopeo and svp.
pub(crate) const SYSTEM: &str = "/etc/containers";

/// Returns the user's configuration directories: `$XDG_CONFIG_HOME`, and `~/.config`, which podman reads even if the
/// former is set. The first with a given file wins.
pub(crate) fn user_directories() -> Vec<PathBuf> {
    let dir = |name: &str| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = [dir("XDG_CONFIG_HOME"), dir("HOME").map(|home| home.join(".config"))];
    config.into_iter().flatten().map(|dir| dir.join("containers")).collect()
}

impl Places {
    fn read(&self) -> Result<Conf> {
        let user_file = self.user.as_ref().map(|dir| dir.join(FILE)).filter(|file| file.exists());
        let drop_ins = |dir: &Option<PathBuf>| dir.iter().map(|dir| dir.join(DROP_INS)).collect();
        let (main, directories): (_, Vec<PathBuf>) = match (&self.named, user_file) {
            (None, Some(file)) => (Some(file), drop_ins(&self.user)),
            (named, _) => {
                let main = named.clone().or_else(|| Some(self.system.as_ref()?.join(FILE)));
                (main, [drop_ins(&self.system), drop_ins(&self.user)].concat())
            }
        };
        let mut conf = Conf::default();
        if let Some(main) = main {
            match file::read(&main)? {
                Some(parsed) => conf.add(parsed),
                None if self.named.is_none() => {}
                None => {
                    return Err(Error::bad_input(format!("there is no file {}", main.display()))
                        .hint("CONTAINERS_REGISTRIES_CONF names it"));
                }
            }
        }
        for directory in directories {
            for path in conf_files(&directory)? {
                // Ignore a file that was just removed.
                if let Some(parsed) = file::read(&path)? {
                    conf.add(parsed);
                }
            }
        }
        Ok(conf)
    }
}

/// Returns the `*.conf` files of a directory, sorted by name.
fn conf_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.io("read", directory)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.io("read", directory)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Conf {
    /// Merges another file: its entries replace those of the same prefix.
    fn add(&mut self, parsed: ParsedFile) {
        for registry in parsed.registries {
            self.registries.insert(registry.prefix.clone(), registry);
        }
        if parsed.helpers.is_some() {
            self.helpers = parsed.helpers;
        }
    }

    /// Returns `credential-helpers`, unless empty; its entry `containers-auth.json` stands for the auth files.
    pub(super) fn helpers(&self) -> Option<&[String]> {
        self.helpers.as_deref().filter(|helpers| !helpers.is_empty())
    }

    /// Returns the `[[registry]]` with the longest prefix of `name`, the name of an image or a registry.
    fn find(&self, name: &str) -> Option<&Registry> {
        let matching = self.registries.values().filter(|registry| registry.rest(name).is_some());
        matching.max_by_key(|registry| registry.prefix.len())
    }

    /// Returns whether `name`, of an image or a registry, may be reached without verified TLS. Does not rewrite it.
    ///
    /// # Errors
    /// [`Kind::Registry`](crate::error::Kind::Registry) if it is blocked.
    pub(super) fn insecure(&self, name: &str) -> Result<bool> {
        match self.find(name) {
            Some(registry) if registry.blocked => Err(registry.refusal(name)),
            found => Ok(found.is_some_and(|registry| registry.insecure)),
        }
    }

    /// Returns the locations from which to pull `reference`, in order: the mirrors, then the location itself. A blocked
    /// location is an error.
    pub(super) fn pull_from(&self, reference: &Reference) -> Vec<Result<Endpoint>> {
        let name = reference.to_string();
        let Some(registry) = self.find(&name) else {
            return vec![Ok(Endpoint { reference: reference.clone(), insecure: false })];
        };
        let used = |mirror: &&Mirror| match mirror.used {
            Use::All => true,
            Use::Digests => reference.digest().is_some(),
            Use::Tags => reference.digest().is_none(),
        };
        let mirrors = registry.mirrors.iter().filter(used).map(|mirror| {
            let reference = registry.rewritten(&name, Some(&mirror.location))?;
            // A mirror may be blocked by its own name.
            self.insecure(&reference.to_string())?;
            Ok(Endpoint { reference, insecure: mirror.insecure })
        });
        let own = if registry.blocked {
            Err(registry.refusal(&name))
        } else {
            let location = registry.location.as_deref();
            registry
                .rewritten(&name, location)
                .map(|reference| Endpoint { reference, insecure: registry.insecure })
        };
        mirrors.chain([own]).collect()
    }
}

#[cfg(test)]
mod tests;
