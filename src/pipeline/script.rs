//! Runs `bin/build` on an image, and writes its changes as a layer.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::label::Phase;
use super::new_layer::NewLayer;
use super::pack_layer::PackLayer;
use crate::error::{Error, IoContext, Kind, Result};
use crate::layer::settings::Settings;
use crate::oci::image::chain_ids;
use crate::oci::{Descriptor, Image, Reference};
use crate::pack::PREFIX;
use crate::progress::{Event, ImageNote, Reporter, Step};
use crate::sandbox::{
    BuildRootfs, DiffOptions, End, Limits, Network, RunEnd, RunSpec, Sandbox, Stream, layer_sources,
};
use crate::secret::{Redactor, Secret};
use crate::store::Store;

/// How many lines of a failed script are shown with the error.
const LAST_LINES: usize = 10;

/// How many logs are kept in the store.
const LOGS: usize = 50;

/// Options for a build's script and for its layer.
#[derive(Clone, Debug)]
pub(crate) struct ScriptOptions {
    /// The script's network.
    pub network: Network,
    /// Variables for the script alone.
    pub env: Vec<(String, String)>,
    /// How to compress the layers.
    pub compression: Settings,
    /// SOURCE_DATE_EPOCH; seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

/// A script to run on an image.
pub(super) struct Script<'a> {
    pub(super) phase: Phase,
    /// The future image; the log is named after it.
    pub(super) tag: &'a Reference,
    pub(super) env: Vec<(String, String)>,
    /// The host name.
    pub(super) hostname: &'a str,
    /// The secrets in `env`, redacted in the log and on the terminal.
    pub(super) secrets: &'a [(String, Secret)],
}

/// The image's unpacked layers, with the pack on top if it is new. The pack replaces the image's own directory
/// `/service`, if it has one.
pub(super) fn build_rootfs<'s>(
    store: &Store,
    sandbox: &'s Sandbox,
    image: &Image,
    pack: Option<&mut PackLayer>,
    reporter: &dyn Reporter,
) -> Result<BuildRootfs<'s>> {
    let layers = layer_sources(store, image);
    let mut build_rootfs = sandbox.build_rootfs(layers, reporter)?;
    if let Some(pack) = pack {
        if !pack.replaces_lower() && sandbox.has_directory(&build_rootfs, PREFIX)? {
            pack.replace_lower()?;
        }
        let ids = image.layers().iter().map(|layer| layer.diff_id).chain([pack.diff_id()]);
        let chain_id = chain_ids(ids).pop().unwrap_or(pack.diff_id());
        build_rootfs.add_private_layer(&pack.layer(chain_id)?)?;
    }
    Ok(build_rootfs)
}

/// Runs `bin/build PHASE` on a fresh upper directory and writes the changes.
///
/// # Errors
/// [`Kind::Script`] with the last lines and the log's path if the script fails; those of creating the container and the
/// layer.
pub(super) fn run(
    store: &Store,
    sandbox: &Sandbox,
    build_rootfs: &mut BuildRootfs<'_>,
    script: Script<'_>,
    options: &ScriptOptions,
    reporter: &dyn Reporter,
) -> Result<NewLayer> {
    let Script { phase, tag, env, secrets, hostname } = script;
    let script = "/service/bin/build".to_owned();
    reporter.step(Step::RunScript { script, phase: Some(phase.to_string()) });
    let mut log = Log::create(store, &tag.tagged())?;
    let spec = RunSpec {
        rootfs: build_rootfs.rootfs(),
        argv: vec!["/service/bin/build".into(), phase.to_string()],
        env,
        cwd: "/service".into(),
        hostname: hostname.into(),
        network: options.network,
        // su and sudo work in a container.
        no_new_privs: false,
    };
    let mut show = |bytes: &[u8]| {
        log.take(bytes);
        reporter.event(Event::ScriptOutput(bytes));
    };
    let redactor = || Redactor::new(secrets.iter().map(|(_, secret)| secret));
    let (mut stdout, mut stderr) = (redactor(), redactor());
    let ended =
        sandbox.run(&spec, None, Limits::default(), reporter, &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.pass(bytes, &mut show),
            Stream::Stderr => stderr.pass(bytes, &mut show),
        });
    stdout.finish(&mut show);
    stderr.finish(&mut show);
    let RunEnd { end, dropped } = ended?;
    let log = log.finish()?;
    if end != End::Exited(0) {
        return Err(failure(phase, end, &log, sandbox.map().is_single()));
    }
    if !dropped.is_empty() {
        reporter.note(ImageNote::ChangesDropped { paths: dropped }.into());
    }
    reporter.step(Step::WriteLayer);
    let writer = store.blob_writer()?;
    let written = build_rootfs.diff(
        writer.as_file(),
        DiffOptions { compression: options.compression, clamp_mtime: options.source_date_epoch },
    )?;
    for socket in &written.sockets {
        reporter.note(ImageNote::SocketSkipped { path: format!("/{socket}") }.into());
    }
    if !written.unmapped.is_empty() {
        reporter.note(ImageNote::UnmappedUsers { names: written.unmapped }.into());
    }
    let media_type = options.compression.compression().layer_media_type();
    let descriptor = Descriptor::new(media_type, written.digest, written.size);
    Ok(NewLayer { writer, descriptor, diff_id: written.diff_id })
}

fn failure(phase: Phase, end: End, log: &Finished, single_id: bool) -> Error {
    let how = match end {
        End::Exited(code) => format!("exited with {code}"),
        End::Signaled(signal) => format!("was killed by signal {signal}{}", signal_name(signal)),
        End::TimedOut | End::TooMuchOutput => "was stopped".to_owned(),
    };
    let mut text = format!("the script /service/bin/build {phase} {how}");
    if log.tail.is_empty() {
        text.push_str(", without output");
    } else {
        text.push_str("; its last output:");
        for line in &log.tail {
            text.push_str("\n  | ");
            text.push_str(line);
        }
    }
    let mut hint = format!("its whole output is in {}", log.path.display());
    if phase == Phase::Base {
        hint.push_str("; build a pack without phases with `svp build --phase all`");
    }
    if single_id {
        hint.push_str(
            "; containers have a single id here, so no file can belong to another user: see `svp check`",
        );
    }
    Error::new(Kind::Script, text).hint(hint)
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map(|signal| format!(" ({})", signal.as_str()))
        .unwrap_or_default()
}

/// The log file of a script, and the end of the script's output.
struct Log {
    path: PathBuf,
    file: File,
    result: std::io::Result<()>,
    tail: Vec<u8>,
}

struct Finished {
    path: PathBuf,
    tail: Vec<String>,
}

impl Log {
    fn create(store: &Store, name: &str) -> Result<Log> {
        let dir = store.layout().logs();
        prune(&dir);
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = tempfile::Builder::new()
            .prefix(&format!("{}-{name}-", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")))
            .suffix(".log")
            .rand_bytes(4)
            .tempfile_in(&dir)
            .io("create a log in", &dir)?;
        let (file, path) = file.keep().map_err(|error| Error::io("keep", &dir, error.error))?;
        Ok(Log { path, file, result: Ok(()), tail: Vec::new() })
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.file.write_all(bytes);
        }
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(16 << 10);
        self.tail.drain(..excess);
    }

    fn finish(self) -> Result<Finished> {
        self.result.io("write", &self.path)?;
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(LAST_LINES)..]
            .iter()
            .map(|line| line.chars().take(500).collect())
            .collect();
        Ok(Finished { path: self.path, tail })
    }
}

/// Removes all but the newest logs, whose names begin with the time.
fn prune(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    let old = logs.len().saturating_sub(LOGS - 1);
    for path in &logs[..old] {
        // Best effort: a later command removes the rest.
        let _ = std::fs::remove_file(path);
    }
}
