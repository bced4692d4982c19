//! Image configs (image-spec, config.md), edited as JSON to preserve fields that svp doesn't know.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::json::{MAX_CONFIG, canonical, parse};
use super::{Digest, Platform};
use crate::error::{Error, Result};

/// An image config: a JSON object that keeps all fields, known or not.
///
/// Go matches keys case-insensitively, so replacing or removing a field also affects keys that differ only in
/// case: a base's `cmd` can't outlive the removal of `Cmd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config(Map<String, Value>);

/// The fields of a config (image-spec, config.md).
const FIELDS: [&str; 10] = [
    "created",
    "author",
    "architecture",
    "variant",
    "os",
    "os.version",
    "os.features",
    "config",
    "rootfs",
    "history",
];

/// The fields in its `config`: those of the specification, and docker's.
const FIELDS_OF_CONFIG: [&str; 15] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
    "ArgsEscaped",
    "Hostname",
    "StopTimeout",
];

/// Returns a name as Go's encoding/json compares it: of the letters beyond ASCII, it takes ſ for s and the Kelvin sign
/// for k.
fn fold(name: &str) -> String {
    name.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

/// One entry of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The time, as RFC 3339.
    pub created: Option<String>,
    /// The command that created the layer.
    pub created_by: String,
    /// The comment, if any.
    pub comment: Option<String>,
    /// Whether the step created no layer.
    pub empty_layer: bool,
}

impl Config {
    /// Creates the config of an image without layers, for `platform`.
    pub fn new(platform: &Platform) -> Self {
        let mut map = Map::new();
        map.insert("architecture".into(), json!(platform.architecture));
        map.insert("os".into(), json!(platform.os));
        if let Some(variant) = &platform.variant {
            map.insert("variant".into(), json!(variant));
        }
        map.insert("config".into(), json!({}));
        map.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        map.insert("history".into(), json!([]));
        Config(map)
    }

    /// Parses a config and checks the requirements of the specification.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is too large, not a JSON object, lacks platform or
    /// rootfs, or if a field that svp reads has the wrong type.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(Error::bad_input(format!(
                "the image config has {} bytes; the limit is {MAX_CONFIG}",
                bytes.len()
            )));
        }
        let config = Config(parse(bytes, "the image config")?);
        for key in ["architecture", "os"] {
            if config.0.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
                return Err(Error::bad_input(format!("the image config has no {key:?}")));
            }
        }
        config.check_names()?;
        config.diff_ids()?;
        config.check_types()?;
        Ok(config)
    }

    /// Serialises the config in canonical form.
    pub fn encode(&self) -> Vec<u8> {
        canonical(&self.0)
    }

    /// Returns the whole config as JSON.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the image's platform.
    pub fn platform(&self) -> Platform {
        let text = |key: &str| self.0.get(key).and_then(Value::as_str).map(str::to_owned);
        Platform {
            architecture: text("architecture").unwrap_or_default(),
            os: text("os").unwrap_or_default(),
            variant: text("variant").filter(|v| !v.is_empty()),
        }
    }

    /// Returns the creation time, as RFC 3339, if recorded.
    pub fn created(&self) -> Option<&str> {
        self.0.get("created").and_then(Value::as_str)
    }

    /// Sets the creation time; see [`timestamp`].
    pub fn set_created(&mut self, rfc3339: &str) {
        self.0.insert("created".into(), json!(rfc3339));
    }

    /// Returns the digests of the uncompressed layers, lowest first.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the config has no valid list of them.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        let rootfs = self.0.get("rootfs").unwrap_or(&Value::Null);
        if rootfs.get("type").and_then(Value::as_str) != Some("layers") {
            return Err(Error::bad_input("the image config's rootfs is not of type \"layers\""));
        }
        match rootfs.get("diff_ids") {
            Some(Value::Null) => Ok(Vec::new()),
            Some(ids) => serde_json::from_value(ids.clone()).map_err(|error| {
                Error::bad_input("the image config's diff_ids can't be parsed").source(error)
            }),
            None => Err(Error::bad_input("the image config has no diff_ids")),
        }
    }

    /// Returns the environment, as `NAME=VALUE` strings.
    pub fn env(&self) -> Vec<String> {
        self.strings("Env")
    }

    /// Returns the entry point; empty if there is none.
    pub fn entrypoint(&self) -> Vec<String> {
        self.strings("Entrypoint")
    }

    /// Returns the command; empty if there is none.
    pub fn cmd(&self) -> Vec<String> {
        self.strings("Cmd")
    }

    /// Returns the working directory, unless empty.
    pub fn working_dir(&self) -> Option<&str> {
        self.field("WorkingDir").and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    /// Returns the user, unless empty.
    pub fn user(&self) -> Option<&str> {
        self.field("User").and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    /// Returns the signal that stops the service, such as `SIGTERM`.
    pub fn stop_signal(&self) -> Option<&str> {
        self.field("StopSignal").and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    /// Returns the exposed ports, such as `3306/tcp`.
    pub fn exposed_ports(&self) -> Vec<String> {
        self.keys("ExposedPorts")
    }

    /// Returns the volumes' paths.
    pub fn volumes(&self) -> Vec<String> {
        self.keys("Volumes")
    }

    /// Returns the labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.field("Labels").and_then(Value::as_object);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        labels
            .map(|map| map.iter().map(|(k, v)| (k.clone(), text(v))).collect())
            .unwrap_or_default()
    }

    /// Returns the label `name`.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.field("Labels")?.get(name)?.as_str()
    }

    /// Sets an environment variable: in place if it exists, else at the end.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let mut env = self.env();
        let is_it = |entry: &String| entry.split_once('=').map_or(&**entry, |(n, _)| n) == name;
        match env.iter_mut().find(|entry| is_it(entry)) {
            Some(entry) => *entry = format!("{name}={value}"),
            None => env.push(format!("{name}={value}")),
        }
        self.set_field("Env", Some(json!(env)));
    }

    /// Sets the entry point and removes the command, which would become its arguments.
    pub fn set_entrypoint(&mut self, entrypoint: &[&str]) {
        self.set_field("Entrypoint", Some(json!(entrypoint)));
        self.set_field("Cmd", None);
    }

    /// Sets the working directory.
    pub fn set_working_dir(&mut self, path: &str) {
        self.set_field("WorkingDir", Some(json!(path)));
    }

    /// Sets the signal that asks a container to stop.
    pub fn set_stop_signal(&mut self, signal: &str) {
        self.set_field("StopSignal", Some(json!(signal)));
    }

    /// Makes the image run as root.
    pub fn clear_user(&mut self) {
        self.set_field("User", None);
    }

    /// Adds an exposed port, such as `3306/tcp`.
    pub fn add_exposed_port(&mut self, port: &str) {
        self.insert_into("ExposedPorts", port, json!({}));
    }

    /// Adds a volume.
    pub fn add_volume(&mut self, path: &str) {
        self.insert_into("Volumes", path, json!({}));
    }

    /// Sets the label `name`.
    pub fn set_label(&mut self, name: &str, value: &str) {
        self.insert_into("Labels", name, json!(value));
    }

    /// Removes the label `name`, if it exists.
    pub fn remove_label(&mut self, name: &str) {
        if let Some(labels) = self.inner().get_mut("Labels").and_then(Value::as_object_mut) {
            labels.remove(name);
        }
    }

    /// Returns the history, skipping malformed entries.
    pub fn history(&self) -> Vec<History> {
        let entries = self.0.get("history").and_then(Value::as_array);
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
        let entry = |v: &Value| History {
            created: text(v, "created"),
            created_by: text(v, "created_by").unwrap_or_default(),
            comment: text(v, "comment"),
            empty_layer: v.get("empty_layer").and_then(Value::as_bool).unwrap_or(false),
        };
        entries.map(|list| list.iter().map(entry).collect()).unwrap_or_default()
    }

    /// Adds a layer's diff ID and its history entry.
    ///
    /// If the base has fewer history entries than layers, first adds placeholders, so that later entries match their
    /// layers.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the base has no valid list of diff IDs.
    pub fn append_layer(&mut self, diff_id: Digest, entry: &History) -> Result<()> {
        let mut ids = self.diff_ids()?;
        let entries = self.history().iter().filter(|h| !h.empty_layer).count();
        let mut history = match self.0.remove("history") {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        for _ in entries..ids.len() {
            history
                .push(json!({"comment": "the base image does not tell how this layer was made"}));
        }
        let mut new = Map::new();
        if let Some(created) = &entry.created {
            new.insert("created".into(), json!(created));
        }
        new.insert("created_by".into(), json!(entry.created_by));
        if let Some(comment) = &entry.comment {
            new.insert("comment".into(), json!(comment));
        }
        history.push(Value::Object(new));
        ids.push(diff_id);
        self.0.insert("history".into(), Value::Array(history));
        self.0["rootfs"]["diff_ids"] = json!(ids);
        Ok(())
    }

    fn check_types(&self) -> Result<()> {
        let wrong = |key: &str, must: &str| {
            Err(Error::bad_input(format!("the image config's {key:?} is not {must}")))
        };
        let null_or = |key: &str, ok: &dyn Fn(&Value) -> bool| {
            self.field(key).is_none_or(|v| v.is_null() || ok(v))
        };
        let strings =
            |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        if !self.0.get("config").is_none_or(|v| v.is_null() || v.is_object()) {
            return wrong("config", "an object");
        }
        for key in ["Env", "Entrypoint", "Cmd"] {
            if !null_or(key, &strings) {
                return wrong(key, "a list of strings");
            }
        }
        for key in ["ExposedPorts", "Volumes", "Labels"] {
            if !null_or(key, &Value::is_object) {
                return wrong(key, "an object");
            }
        }
        for key in ["WorkingDir", "User"] {
            if !null_or(key, &Value::is_string) {
                return wrong(key, "a string");
            }
        }
        Ok(())
    }

    /// Refuses names that programs in Go take for a field of the specification, and svp doesn't: what svp checks must be
    /// what they read.
    fn check_names(&self) -> Result<()> {
        let inner = self.0.get("config").and_then(Value::as_object);
        let in_config = inner.into_iter().flatten().map(|(key, _)| (key, &FIELDS_OF_CONFIG[..]));
        for (key, fields) in self.0.iter().map(|(key, _)| (key, &FIELDS[..])).chain(in_config) {
            let folded = fold(key);
            if let Some(field) = fields.iter().find(|field| *field != key && fold(field) == folded)
            {
                return Err(Error::bad_input(format!(
                    "the image config has {key:?}, which other programs read as {field:?}"
                ))
                .hint("use an image whose config has each field once, spelled as in the specification"));
            }
        }
        Ok(())
    }

    fn field(&self, key: &str) -> Option<&Value> {
        self.0.get("config")?.get(key)
    }

    fn strings(&self, key: &str) -> Vec<String> {
        let list = self.field(key).and_then(Value::as_array);
        let text = |v: &Value| v.as_str().map(str::to_owned);
        list.map(|list| list.iter().filter_map(text).collect()).unwrap_or_default()
    }

    fn keys(&self, key: &str) -> Vec<String> {
        let map = self.field(key).and_then(Value::as_object);
        map.map(|map| map.keys().cloned().collect()).unwrap_or_default()
    }

    fn inner(&mut self) -> &mut Map<String, Value> {
        let slot = self.0.entry("config").or_insert_with(|| json!({}));
        if !slot.is_object() {
            *slot = json!({});
        }
        slot.as_object_mut().expect("made one above")
    }

    fn set_field(&mut self, key: &str, value: Option<Value>) {
        let map = self.inner();
        map.retain(|k, _| !k.eq_ignore_ascii_case(key));
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    }

    fn insert_into(&mut self, key: &str, name: &str, value: Value) {
        let mut map = self.field(key).and_then(Value::as_object).cloned().unwrap_or_default();
        map.insert(name.to_owned(), value);
        self.set_field(key, Some(Value::Object(map)));
    }
}

/// Formats `seconds` since 1970 as RFC 3339 in UTC, for configs and labels.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if the year has more than four digits.
pub fn timestamp(seconds: i64) -> Result<String> {
    let in_range = |t: &jiff::Timestamp| (0..=253_402_300_799).contains(&t.as_second());
    match jiff::Timestamp::from_second(seconds).ok().filter(in_range) {
        Some(time) => Ok(time.to_string()),
        None => Err(Error::usage(format!("{seconds} is not a time between 1970 and 9999"))
            .hint("set SOURCE_DATE_EPOCH to a number of seconds since 1970")),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
