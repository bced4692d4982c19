//! `svp export`.

use std::fs::{self, Permissions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use super::super::args::parsed;
use super::super::common::Context;
use super::find::find;
use crate::error::{Error, IoContext, Result};
use crate::oci::Reference;
use crate::progress::ServiceNote;
use crate::service::export::{self, Exported, File, Format, Request, Secrets};
use crate::service::tag_drift;
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The name of the service
    name: String,
    /// The target: podman's quadlet units, a systemd unit that runs svp, or Kubernetes
    #[arg(short, long, value_enum)]
    format: FormatArg,
    /// Write files into DIR, created if missing, and print their names
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace existing files in DIR
    #[arg(long, requires = "output")]
    force: bool,
    /// The image's name on the target [default: localhost/NAME]
    #[arg(long, value_name = "REF", value_parser = parsed::<Reference>)]
    image: Option<Reference>,
    /// Treatment of secrets
    #[arg(long, value_enum, default_value = "with")]
    secrets: SecretsArg,
    /// Print secrets even on a terminal
    #[arg(long)]
    show_secrets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Units for podman's quadlet
    Quadlet,
    /// A systemd unit that runs the service with svp
    Systemd,
    /// Kubernetes objects, also for `podman kube play`
    Kube,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SecretsArg {
    /// Kubernetes: add a Secret; units never contain secrets
    With,
    /// Leave secrets out
    Without,
    /// Kubernetes: only the Secret; quadlet: a shell script that runs `podman secret create`
    Only,
    /// Kubernetes: only the input of `podman secret create NAME -`, for podman before 4.4
    #[value(name = "podman-4.3")]
    Podman43,
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(&args.name)?;
    let record = service_dir.record()?;
    let image = Store::open(&root)?.load_image(&record.manifest)?;
    let tagged = tag_drift::tagged_digest(&root, &record) == Some(record.manifest.digest);
    let request = request(args, &root, tagged)?;
    let exported = export::export(&record, &image, &request)?;
    match &args.output {
        Some(dir) => {
            write(&exported.files, dir, args.force)?;
            let line = |file: &File| format!("{}\n", dir.join(&file.name).display());
            context.print(&exported.files.iter().map(line).collect::<String>())?;
        }
        None => context.print(&joined(&exported, request.format))?,
    }
    for message in exported.notes {
        context.reporter().note(ServiceNote::Export { message }.into());
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &Args, root: &Path, tagged: bool) -> Result<Request> {
    let hide = args.output.is_none() && std::io::stdout().is_terminal() && !args.show_secrets;
    let secrets = match args.secrets {
        SecretsArg::With if hide => Secrets::Masked,
        SecretsArg::With => Secrets::With,
        SecretsArg::Without => Secrets::Without,
        SecretsArg::Only | SecretsArg::Podman43 if hide => {
            return Err(Error::usage("standard output is a terminal")
                .hint("pipe it to its destination, or add --show-secrets to print secrets here"));
        }
        SecretsArg::Only => Secrets::Only,
        SecretsArg::Podman43 => Secrets::PodmanSecret,
    };
    let system = rustix::process::geteuid().is_root();
    // A user unit has the user's home but not this shell's variables; a system unit has no home.
    let found_by_itself =
        ["SVP_ROOT", "XDG_DATA_HOME"].iter().all(|name| std::env::var_os(name).is_none());
    let program = std::env::current_exe()
        .map_err(|error| Error::sandbox("can't find the path of svp itself").source(error))?;
    Ok(Request {
        format: match args.format {
            FormatArg::Quadlet => Format::Quadlet,
            FormatArg::Systemd => Format::Systemd,
            FormatArg::Kube => Format::Kube,
        },
        secrets,
        image: args.image.clone(),
        tagged,
        program,
        root: (system || !found_by_itself)
            .then(|| std::path::absolute(root))
            .transpose()
            .io("find", root)?,
        system,
    })
}

/// Joins all files into one text.
fn joined(exported: &Exported, format: Format) -> String {
    let text = |file: &File| match format {
        Format::Quadlet if exported.files.len() > 1 => format!("# {}\n{}", file.name, file.text),
        _ => file.text.clone(),
    };
    let texts: Vec<String> = exported.files.iter().map(text).collect();
    texts.join(if format == Format::Kube { "---\n" } else { "\n" })
}

/// Writes all files or none; files with secrets get mode 0600.
fn write(files: &[File], dir: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(dir).io("create", dir)?;
    // Ignore files that already have the same content.
    let is_other = |file: &&File| {
        let path = dir.join(&file.name);
        let found = path.symlink_metadata();
        found.is_ok_and(|found| {
            !found.is_file() || fs::read(&path).ok().as_deref() != Some(file.text.as_bytes())
        })
    };
    let taken = files.iter().find(is_other).map(|file| dir.join(&file.name));
    if let Some(path) = taken.filter(|_| !force) {
        return Err(Error::usage(format!("{} already exists with other content", path.display()))
            .hint("add --force to replace it, or choose another directory with --output"));
    }
    let mut staged = Vec::new();
    for file in files {
        let path = dir.join(&file.name);
        let mut new = tempfile::NamedTempFile::new_in(dir).io("write", &path)?;
        new.write_all(file.text.as_bytes()).io("write", &path)?;
        let mode = if file.secret { 0o600 } else { 0o644 };
        new.as_file().set_permissions(Permissions::from_mode(mode)).io("write", &path)?;
        new.as_file().sync_all().io("sync", &path)?;
        staged.push((new, path));
    }
    for (new, path) in staged {
        new.persist(&path).map_err(|error| Error::io("write", &path, error.error))?;
    }
    Ok(())
}
