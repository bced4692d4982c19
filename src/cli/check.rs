//! `svp check`: tests whether this host can build and run rootless, and prints the fix for each fault.

use std::sync::Mutex;

use super::common::{Context, Format};
use super::escape::single_line;
use super::table::json;
use crate::config::Config;
use crate::error::{Cause, Error, Result};
use crate::layer::settings::Settings;
use crate::pipeline::temporary::check_temporary_files;
use crate::progress::{Event, Note, Reporter, ServiceNote, Silent, Warning};
use crate::sandbox::{
    DiffOptions, IdMap, Limits, MapMethod, Network, Rootfs, RunSpec, Sandbox,
    subordinate_ids_advice, why_no_landlock, why_unbounded,
};
use crate::store::Store;
use crate::upkeep::{Fault, check_store};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check the store instead: every blob, size, digest, tag, diff ID, state and unpacked layer
    #[arg(long)]
    store: bool,
    /// With --store: skip the comparison of unpacked layers with their blobs
    #[arg(long, requires = "store")]
    quick: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// One requirement of a build, or an optional improvement.
#[derive(serde::Serialize)]
struct Finding {
    /// Whether the host meets it.
    ok: bool,
    /// Whether builds fail without it.
    required: bool,
    what: &'static str,
    detail: String,
    hint: Option<String>,
}

impl Finding {
    fn of(what: &'static str, required: bool, result: Result<String>) -> Finding {
        match result {
            Ok(detail) => Finding { ok: true, required, what, detail, hint: None },
            Err(error) => Finding {
                ok: false,
                required,
                what,
                detail: error.to_string(),
                hint: error.hint_text().map(str::to_owned),
            },
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    if args.store {
        return check_the_store(args, context);
    }
    let findings = findings(context)?;
    let text = match args.format {
        Format::Json => json(&findings),
        Format::Table => findings.iter().map(line).collect(),
    };
    context.print(&text)?;
    if findings.iter().any(|finding| finding.required && !finding.ok) {
        return Err(Error::sandbox("this host can't build servicepacks"));
    }
    Ok(())
}

/// Does what a build does, step by step and with the same functions, so that both report the same causes.
fn findings(context: &Context) -> Result<Vec<Finding>> {
    let root = Store::default_root()?;
    let store = context.store();
    let sandbox = match &store {
        Ok(store) => Sandbox::create(&store.layout().trees()),
        Err(_) => Err(not_tested("a store")),
    };
    let in_sandbox = |test: &dyn Fn(&Store, &Sandbox) -> Result<String>| match (&store, &sandbox) {
        (Ok(store), Ok(sandbox)) => test(store, sandbox),
        _ => Err(not_tested("a user namespace")),
    };
    let network = match &sandbox {
        Ok(sandbox) => network(sandbox),
        Err(_) => Finding::of("network", true, Err(not_tested("a user namespace"))),
    };
    let container = in_sandbox(&|_, sandbox| container(sandbox));
    let overlay = in_sandbox(&overlay);
    Ok(vec![
        Finding::of("store", true, store.map(|_| root.display().to_string())),
        Finding::of("configuration", true, configuration()),
        Finding::of("temporary files", true, temporary_files()),
        Finding::of("user namespace", true, sandbox.map(|_| "can be created".into())),
        Finding::of("user ids", false, ids()),
        Finding::of("container", true, container),
        Finding::of("overlay", true, overlay),
        network,
        Finding::of("landlock", false, landlock()),
        Finding::of("resources", false, resources()),
    ])
}

/// The result of a test that another failure prevents.
fn not_tested(without: &str) -> Error {
    Error::sandbox(format!("not tested without {without}"))
}

fn line(finding: &Finding) -> String {
    let mark = match (finding.ok, finding.required) {
        (true, _) => "ok",
        (false, true) => "FAILED",
        (false, false) => "limited",
    };
    let hint = finding.hint.as_deref().map(|hint| format!("{:27}hint: {hint}\n", ""));
    format!("{mark:8}  {:15}  {}\n{}", finding.what, finding.detail, hint.unwrap_or_default())
}

fn check_the_store(args: &Args, context: &Context) -> Result<()> {
    let faults = check_store(&context.store()?, args.quick, context.reporter())?;
    match args.format {
        Format::Json => context.print(&json(&faults))?,
        Format::Table => {
            for Fault { what, problem, remedy } in &faults {
                let line = single_line(&format!("{what}: {problem}: {remedy}"));
                context.print(&format!("{line}\n"))?;
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::bad_input(format!("faults in the store: {}", faults.len())).hint(
        "each line ends with its remedy; pulling or building an image again restores its blobs",
    ))
}

fn configuration() -> Result<String> {
    let config = Config::load()?;
    let missing = if config.path().exists() { "" } else { " (missing, but optional)" };
    Ok(format!("{}{missing}", config.path().display()))
}

fn ids() -> Result<String> {
    let map = IdMap::for_caller()?;
    let count: u64 = map.uids.iter().map(|extent| u64::from(extent.count)).sum();
    match map.how {
        MapMethod::Single => {
            Err(Error::sandbox("a single user id: other owners are only recorded")
                .hint(subordinate_ids_advice()))
        }
        _ => {
            let (uid, gid) = map.root();
            Ok(format!("{count} in a container; its root is {uid}:{gid} on this host"))
        }
    }
}

fn temporary_files() -> Result<String> {
    check_temporary_files()?;
    Ok(std::env::temp_dir().display().to_string())
}

fn container(sandbox: &Sandbox) -> Result<String> {
    run_true(sandbox, Rootfs::HostTools, Network::None, &Silent)?;
    Ok("runs a program in its own namespaces".into())
}

/// Runs a program on an overlay, and writes the changes as a layer.
fn overlay(store: &Store, sandbox: &Sandbox) -> Result<String> {
    let mut build_rootfs = sandbox.build_rootfs(std::iter::empty(), &Silent)?;
    match run_true(sandbox, build_rootfs.rootfs(), Network::None, &Silent) {
        // The empty image has no program; the failed lookup proves that the overlay was mounted.
        Err(error) if error.is(Cause::CommandNotFound) => {}
        other => other?,
    }
    let layer = store.blob_writer()?;
    let options = DiffOptions { compression: Settings::default(), clamp_mtime: None };
    build_rootfs.diff(layer.as_file(), options)?;
    Ok("can be mounted in the store".into())
}

/// Runs a program in the network that a build has by default.
fn network(sandbox: &Sandbox) -> Finding {
    let heard = Replaced::default();
    let done = run_true(sandbox, Rootfs::HostTools, Network::Private, &heard);
    match (done, heard.0.into_inner().ok().flatten()) {
        (Ok(()), Some(why)) => Finding::of("network", false, Err(Error::sandbox(why))),
        (done, _) => Finding::of(
            "network",
            true,
            done.map(|()| "pasta, a private network for builds".into()),
        ),
    }
}

/// Keeps why a private network was replaced.
#[derive(Default)]
struct Replaced(Mutex<Option<String>>);

impl Reporter for Replaced {
    fn event(&self, event: Event<'_>) {
        let why = match event {
            Event::Note(Note::Service(ServiceNote::HostNetwork { reason })) => {
                format!("{reason}: builds use the host's network, as the configuration says")
            }
            Event::Note(Note::Service(ServiceNote::NoNetwork { reason })) => {
                format!("{reason}: builds have no network, as the configuration says")
            }
            Event::Warning(Warning::ContainerNetwork { reason, evidence }) => {
                format!("{reason}: builds use the network of the container around svp ({evidence})")
            }
            _ => return,
        };
        if let Ok(mut kept) = self.0.lock() {
            *kept = Some(why);
        }
    }
}

fn landlock() -> Result<String> {
    match why_no_landlock() {
        None => Ok("a second wall around queries and layers".into()),
        Some(why) => Err(why),
    }
}

fn resources() -> Result<String> {
    match why_unbounded()? {
        None => Ok("--memory, --cpus and --pids can be enforced".into()),
        Some(why) => Err(why),
    }
}

fn run_true(
    sandbox: &Sandbox,
    rootfs: Rootfs,
    network: Network,
    reporter: &dyn Reporter,
) -> Result<()> {
    let spec = RunSpec {
        rootfs,
        argv: vec!["/bin/true".into()],
        env: Vec::new(),
        cwd: "/".into(),
        hostname: "svp-check".into(),
        network,
        no_new_privs: true,
    };
    sandbox.run(&spec, None, Limits::default(), reporter, &mut |_, _| {}).map(drop)
}
