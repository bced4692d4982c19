//! Runs `bin/build` on an image, and writes its changes as a layer.

use std::time::Duration;

use super::label::Phase;
use super::new_layer::NewLayer;
use super::pack_layer::PackLayer;
use super::script_log::{Finished, Log};
use crate::error::{Error, Kind, Result};
use crate::layer::settings::Settings;
use crate::oci::image::chain_ids;
use crate::oci::{Descriptor, Image, Reference};
use crate::pack::PREFIX;
use crate::progress::{Event, ImageNote, Reporter, Step, Warning};
use crate::sandbox::{
    Bound, BuildRootfs, DiffOptions, End, Limits, Network, Reached, RunEnd, RunSpec, Sandbox,
    Stream, Watched, layer_sources,
};
use crate::secret::{Redactor, Secret};
use crate::store::Store;

/// The number of processes and threads of a script, unless the user sets one: above what builds need, and below what
/// stalls a machine.
const DEFAULT_PIDS: u64 = 4096;

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
    /// The bounds of the script.
    pub bounds: ScriptBounds,
}

/// The bounds of a script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptBounds {
    /// The time that it may run.
    pub timeout: Option<Duration>,
    /// The memory of all its processes; bytes.
    pub memory: Option<u64>,
    /// The number of its processes and threads, if not the default.
    pub pids: Option<u64>,
    /// The size of its /dev/shm; bytes.
    pub shm_size: u64,
    /// The size of its log; bytes.
    pub log_size: u64,
}

impl ScriptBounds {
    fn limits(&self) -> Limits {
        Limits {
            time: self.timeout,
            output: None,
            memory: self.memory.map(Bound::Strict),
            pids: Some(self.pids.map_or(Bound::Watched(DEFAULT_PIDS), Bound::Strict)),
            shm: Some(self.shm_size),
        }
    }
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
/// [`Kind::Script`] or [`Kind::TimedOut`] with the last lines and the log's path if the script fails; those of creating the container and the
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
    let mut log = Log::create(store, &tag.tagged(), options.bounds.log_size)?;
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
    let limits = options.bounds.limits();
    let ended = sandbox.run(&spec, None, limits, reporter, &mut |stream, bytes| match stream {
        Stream::Stdout => stdout.pass(bytes, &mut show),
        Stream::Stderr => stderr.pass(bytes, &mut show),
    });
    stdout.finish(&mut show);
    stderr.finish(&mut show);
    let RunEnd { end, dropped, reached } = ended?;
    let log = log.finish()?;
    if log.dropped > 0 {
        let path = log.path.display().to_string();
        reporter.note(ImageNote::LogShortened { path, dropped: log.dropped }.into());
    }
    if end != End::Exited(0) || reached.killed_for.is_some() {
        let why = Why { end, reached, bounds: &options.bounds };
        return Err(failure(phase, &why, &log, sandbox.map().is_single()));
    }
    if reached.memory_kills > 0 {
        let memory = options.bounds.memory.unwrap_or_default();
        reporter.warning(Warning::ProcessesKilled { processes: reached.memory_kills, memory });
    }
    if reached.pids {
        let pids = options.bounds.pids.unwrap_or(DEFAULT_PIDS);
        reporter.warning(Warning::ProcessesRefused { pids });
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

/// How a script failed.
struct Why<'a> {
    end: End,
    reached: Reached,
    bounds: &'a ScriptBounds,
}

impl Why<'_> {
    /// Says how the script ended, and which bound it reached.
    fn text(&self) -> String {
        let most = self.bounds.pids.unwrap_or(DEFAULT_PIDS);
        match self.reached.killed_for {
            Some(Watched::Pids) => {
                return format!(
                    "was killed: it had more than {most} processes and threads (--pids)"
                );
            }
            Some(Watched::Memory) => return "was killed: it used too much memory".to_owned(),
            None => {}
        }
        let mut text = match self.end {
            End::Exited(code) => format!("exited with {code}"),
            End::Signaled(signal) => {
                format!("was killed by signal {signal}{}", signal_name(signal))
            }
            End::TimedOut => {
                let time = self.bounds.timeout.unwrap_or_default();
                format!("was killed: it ran for longer than --timeout {}s", time.as_secs_f64())
            }
            End::TooMuchOutput => "was stopped".to_owned(),
        };
        if self.reached.memory_kills > 0 {
            let memory = amount(self.bounds.memory.unwrap_or_default());
            text += &match self.reached.memory_kills {
                1 => format!(" (a process was killed by the kernel: over --memory {memory})"),
                many => {
                    format!(" ({many} processes were killed by the kernel: over --memory {memory})")
                }
            };
        }
        if self.reached.pids {
            text += &format!(" (it had all the {most} processes and threads that --pids allows)");
        }
        text
    }

    fn kind(&self) -> Kind {
        match self.end {
            End::TimedOut => Kind::TimedOut,
            _ => Kind::Script,
        }
    }
}

/// Writes an amount of memory as `--memory` takes it.
fn amount(bytes: u64) -> String {
    let units = [(30, 'g'), (20, 'm'), (10, 'k')];
    let whole = units.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    whole.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn failure(phase: Phase, why: &Why<'_>, log: &Finished, single_id: bool) -> Error {
    let mut text = format!("the script /service/bin/build {phase} {}", why.text());
    if log.tail.is_empty() {
        text.push_str(", without output");
    } else {
        text.push_str("; its last output:");
        for line in &log.tail {
            text.push_str("\n  | ");
            text.push_str(line);
        }
    }
    let what = match log.dropped {
        0 => "its whole output is in",
        _ => "the start and the end of its output are in",
    };
    let mut hint = format!("{what} {}", log.path.display());
    if phase == Phase::Base && why.kind() == Kind::Script {
        hint.push_str("; build a pack without phases with `svp build --phase all`");
    }
    if single_id {
        hint.push_str(
            "; containers have a single id here, so no file can belong to another user: see `svp check`",
        );
    }
    Error::new(why.kind(), text).hint(hint)
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map(|signal| format!(" ({})", signal.as_str()))
        .unwrap_or_default()
}
