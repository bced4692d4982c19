//! `svp inspect`.

use std::fmt::Write as _;

use super::common::{Context, Format, parsed};
use super::field;
use super::table::{self, Table, printable};
use crate::error::Result;
use crate::oci::{Config, Reference, json};
use crate::store::{Document, Inspection};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image of the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// The form of what is told
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The manifest as JSON, alone
    #[arg(long, conflicts_with = "config")]
    manifest: bool,
    /// The config as JSON, alone
    #[arg(long)]
    config: bool,
    /// The manifest (with --config the config) byte for byte, as its digest has it
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// One field of the JSON alone: names with dots between, or a JSON pointer such as
    /// /config/config/Labels/a.b. Text comes as it is, all else as JSON
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["format", "raw"])]
    field: Option<String>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let store = context.store()?;
    let which = if args.config { Document::Config } else { Document::Manifest };
    if args.raw {
        return context.print_bytes(&store.document(&args.image, which)?);
    }
    if !args.config && !args.manifest && args.field.is_none() && args.format == Format::Table {
        return context.print(&text(&store.inspect(&args.image)?)?);
    }
    let document: serde_json::Value = if args.config || args.manifest {
        json::parse(&store.document(&args.image, which)?, &format!("{}", args.image))?
    } else {
        serde_json::to_value(store.inspect(&args.image)?).expect("data serialises")
    };
    match &args.field {
        None => context.print(&table::json(&document)),
        Some(field) => context.print(&field::show(field::find(&document, field)?)),
    }
}

fn text(told: &Inspection) -> Result<String> {
    let config = Config::parse(&serde_json::to_vec(&told.config).expect("JSON serialises"))?;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{:<12} {}", format!("{name}:"), printable(value));
        }
    };
    line("Digest", &told.digest.to_string());
    line("Tags", &told.tags.join(", "));
    line("Created", &table::time(told.created.as_deref()));
    line("Platform", &told.platform.to_string());
    line("Size", &table::size(told.size));
    line("Config", &told.config_digest.to_string());
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
    let mut layers = Table::new(["LAYER", "SIZE", "DIFF ID"]);
    for layer in &told.layers {
        layers.row([layer.digest.to_string(), table::size(layer.size), layer.diff_id.to_string()]);
    }
    let _ = write!(out, "\n{layers}");
    Ok(out)
}

/// A list of arguments as JSON has it: what is one argument can be seen.
fn shown(arguments: &[String]) -> String {
    if arguments.is_empty() {
        return String::new();
    }
    serde_json::to_string(arguments).expect("strings serialise")
}
