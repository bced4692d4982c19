//! `svp inspect`.

use std::fmt::Write as _;

use super::args::parsed;
use super::common::{Context, Format};
use super::escape::single_line;
use super::field;
use super::table::{self, Table};
use crate::error::Result;
use crate::oci::{Config, Platform, Reference, json};
use crate::store::{Document, Inspection};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image in the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// Choose this platform from an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Print the manifest as JSON; the index itself, unless --platform chooses an image
    #[arg(long, conflicts_with = "config")]
    manifest: bool,
    /// Print the config as JSON
    #[arg(long)]
    config: bool,
    /// Print the manifest (with --config the config) byte for byte, as digested
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// Print one field of the JSON: a dotted name, or a JSON pointer such as
    /// /config/config/Labels/a.b. Strings are printed verbatim, anything else as JSON
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["format", "raw"])]
    field: Option<String>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let store = context.store()?;
    let which = if args.config { Document::Config } else { Document::Manifest };
    let platform = args.platform.as_ref();
    let inspect = || match platform {
        Some(platform) => store.inspect(&args.image, platform),
        None => store.inspect(&args.image, &Platform::host()),
    };
    if args.raw {
        return context.print_bytes(&store.document(&args.image, which, platform)?);
    }
    if !args.config && !args.manifest && args.field.is_none() && args.format == Format::Table {
        return context.print(&text(&inspect()?)?);
    }
    let document: serde_json::Value = if args.config || args.manifest {
        json::parse(&store.document(&args.image, which, platform)?, &format!("{}", args.image))?
    } else {
        serde_json::to_value(inspect()?).expect("data serialises")
    };
    match &args.field {
        None => context.print(&table::json(&document)),
        Some(field) => context.print(&field::show(field::find(&document, field)?)),
    }
}

fn text(inspection: &Inspection) -> Result<String> {
    let config = Config::parse(&serde_json::to_vec(&inspection.config).expect("JSON serialises"))?;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{:<12} {}", format!("{name}:"), single_line(value));
        }
    };
    line("Digest", &inspection.digest.to_string());
    if let Some(index) = &inspection.index {
        line("Index", &index.digest.to_string());
    }
    line("Tags", &inspection.tags.join(", "));
    line("Created", &table::time(inspection.created.as_deref()));
    line("Platform", &inspection.platform.to_string());
    line("Size", &table::size(inspection.size));
    line("Config", &inspection.config_digest.to_string());
    line("Entrypoint", &shown(&config.entrypoint()));
    line("Cmd", &shown(&config.cmd()));
    line("WorkingDir", config.working_dir().unwrap_or_default());
    line("User", config.user().unwrap_or_default());
    line("Ports", &config.exposed_ports().join(", "));
    line("Volumes", &config.volumes().join(", "));
    for entry in config.env() {
        line("Env", &entry);
    }
    for (name, value) in config.labels() {
        line("Label", &format!("{name}={value}"));
    }
    if let Some(index) = &inspection.index {
        let mut table = Table::new(["MANIFEST", "PLATFORM"]);
        for image in &index.manifests {
            let platform = image.platform.as_ref().map_or("-".into(), Platform::to_string);
            table.row([image.digest.to_string(), platform]);
        }
        let _ = write!(out, "\n{table}");
    }
    let mut layers = Table::new(["LAYER", "SIZE", "DIFF ID"]);
    for layer in &inspection.layers {
        layers.row([layer.digest.to_string(), table::size(layer.size), layer.diff_id.to_string()]);
    }
    let _ = write!(out, "\n{layers}");
    Ok(out)
}

/// Formats arguments as a JSON list, which shows where each one ends.
fn shown(arguments: &[String]) -> String {
    if arguments.is_empty() {
        return String::new();
    }
    serde_json::to_string(arguments).expect("strings serialise")
}
