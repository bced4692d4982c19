//! `svp volume`: lists, shows, removes, exports and imports volumes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::common::{Context, Format};
use super::table::{self, Table};
use super::unpack;
use crate::error::{Error, IoContext, Result};
use crate::oci::config::timestamp;
use crate::progress::{Step, Warning, announce_if_slow};
use crate::service::backup::output_file::OutputFile;
use crate::service::volume::list::{Users, Volume, list, remove};
use crate::service::volume::transfer::{Export, import};
use crate::store::Store;

/// The commands for volumes.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List volumes, the services that use them, and their disk use
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show volumes, as JSON
    Inspect(InspectArgs),
    /// Remove volumes with their data; refuses those that a service uses
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Write a volume as a tar
    Export(ExportArgs),
    /// Create a volume from a tar, plain or compressed with gzip or zstd
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Print only names
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// The names of the volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// The names of the volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// The name of the volume
    #[arg(value_name = "VOLUME")]
    name: String,
    /// The file to write, replaced once the tar is complete [default: standard output, also -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The name of the volume, which is created if it is missing
    #[arg(value_name = "VOLUME")]
    name: String,
    /// The tar to read [default: standard input, also -]
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,
    /// Replace all files of an existing volume
    #[arg(long)]
    replace: bool,
}

/// A volume, with the names that podman uses, where it has the same facts.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    driver: &'static str,
    mountpoint: String,
    created_at: Option<String>,
    labels: BTreeMap<String, String>,
    scope: &'static str,
    options: BTreeMap<String, String>,
    size: Option<u64>,
    used_by: Vec<String>,
    created_for: Option<String>,
    image: Option<String>,
    usable: bool,
}

impl Shown {
    fn new(volume: &Volume) -> Shown {
        let record = volume.record.as_ref();
        Shown {
            name: volume.name.clone(),
            driver: "local",
            mountpoint: volume.data.display().to_string(),
            created_at: record.and_then(|record| timestamp(record.created).ok()),
            labels: BTreeMap::new(),
            scope: "local",
            options: BTreeMap::new(),
            size: volume.bytes,
            used_by: volume.users.clone(),
            created_for: record.and_then(|record| record.service.clone()),
            image: record.and_then(|record| record.instance.clone()),
            usable: !volume.other_ids,
        }
    }
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let root = Store::default_root()?;
        match self {
            Command::Ls(args) => ls(&args, &root, context),
            Command::Inspect(args) => inspect(&args, &root, context),
            Command::Rm(args) => {
                remove(&root, &args.names, &mut |name| context.print(&format!("{name}\n")))
            }
            Command::Export(args) => run_export(&args, &root, context),
            Command::Import(args) => run_import(&args, &root, context),
        }
    }
}

/// Reads the services' use of volumes; only warns about damaged services.
fn users(root: &Path, context: &Context) -> Result<Users> {
    let users = Users::read(root)?;
    for error in &users.damaged {
        context.reporter().warning(Warning::ServiceUnreadable { reason: error.to_string() });
    }
    Ok(users)
}

fn ls(args: &ListArgs, root: &Path, context: &Context) -> Result<()> {
    let volumes = measured(root, &[], context)?;
    if args.quiet {
        let names: String = volumes.iter().map(|volume| format!("{}\n", volume.name)).collect();
        return context.print(&names);
    }
    if args.format == Format::Json {
        return context.print(&table::json(&volumes.iter().map(Shown::new).collect::<Vec<_>>()));
    }
    let mut table = Table::new(["VOLUME", "USED BY", "SIZE", "CREATED"]);
    for volume in &volumes {
        let created = volume.record.as_ref().and_then(|record| timestamp(record.created).ok());
        let users = match (volume.other_ids, &volume.users[..]) {
            (true, _) => "(other ids)".to_owned(),
            (false, []) => "-".to_owned(),
            (false, users) => users.join(", "),
        };
        table.row([
            volume.name.clone(),
            users,
            volume.bytes.map_or_else(|| "unknown".to_owned(), table::size),
            table::time(created.as_deref()),
        ]);
    }
    context.print(&table.to_string())
}

fn inspect(args: &InspectArgs, root: &Path, context: &Context) -> Result<()> {
    let volumes = measured(root, &args.names, context)?;
    context.print(&table::json(&volumes.iter().map(Shown::new).collect::<Vec<_>>()))
}

/// Announces work that takes longer than a second.
fn announced<T>(step: Step, context: &Context, work: impl FnOnce() -> T) -> T {
    announce_if_slow(context.reporter(), step, work)
}

fn measured(root: &Path, names: &[String], context: &Context) -> Result<Vec<Volume>> {
    let users = users(root, context)?;
    announced(Step::MeasureVolumes, context, || list(root, names, &users))
}

fn run_export(args: &ExportArgs, root: &Path, context: &Context) -> Result<()> {
    let volume = args.name.clone();
    let refuse = || {
        Err(Error::usage("refusing to write a tar to a terminal")
            .hint("redirect standard output, or name a file with -o"))
    };
    let Some(path) = args.output.as_deref().filter(|path| *path != Path::new("-")) else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return refuse();
        }
        context.finish();
        let to = stdout.as_fd().try_clone_to_owned().io("open", "standard output")?;
        return announced(Step::ExportVolume { volume }, context, || {
            Export::begin(root, &args.name, context.reporter())?.write(to)
        });
    };
    // A wrong name must not touch the file.
    let export = Export::begin(root, &args.name, context.reporter())?;
    let output = OutputFile::create(path)?;
    if output.file().is_terminal() {
        return refuse();
    }
    let to = output.file().try_clone().io("open", path)?;
    announced(Step::ExportVolume { volume }, context, || export.write(to.into()))?;
    output.finish()
}

fn run_import(args: &ImportArgs, root: &Path, context: &Context) -> Result<()> {
    let path = args.input.as_deref().filter(|path| *path != Path::new("-"));
    let input = match path {
        Some(path) => File::open(path).io("open", path)?,
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                return Err(Error::usage("refusing to read a tar from a terminal")
                    .hint("name a file, or redirect standard input"));
            }
            stdin.as_fd().try_clone_to_owned().map(File::from).io("open", "standard input")?
        }
    };
    let step = Step::ImportVolume { volume: args.name.clone() };
    let report = announced(step, context, || {
        import(root, &args.name, input, args.replace, context.reporter())
    })?;
    unpack::report(&[report], context.reporter());
    context.print(&format!("{}\n", args.name))
}
