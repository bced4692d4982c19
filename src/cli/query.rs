//! `svp query` and `svp ports`: print the answers of a pack's bin/query.

use std::path::PathBuf;

use super::args::parsed;
use super::common::{Context, Format};
use super::services::show::service_ports;
use crate::error::{Error, Result};
use crate::pack::{Key, Pack, query};
use crate::pipeline::query::HostPack;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of the pack
    #[arg(short = 'b', long = "build-dir", visible_alias = "pack", value_name = "PACK")]
    pack: PathBuf,
    /// The key: version, os, secrets, env, components, ports, volumes, health or stop
    #[arg(value_parser = parsed::<Key>)]
    key: Key,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct PortsArgs {
    /// A service: list its ports on this host
    #[arg(required_unless_present = "pack")]
    name: Option<String>,
    /// The directory of a pack: list the ports that its service listens on
    #[arg(
        short = 'b',
        long = "build-dir",
        visible_alias = "pack",
        value_name = "PACK",
        conflicts_with = "name"
    )]
    pack: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let pack = HostPack::new(&Pack::open(&args.pack)?)?;
    let answer = query::run_query(&mut |key| pack.query(key, context.reporter()), args.key)?;
    let values = query::validate(args.key, &answer, query::SCRIPT)?;
    print_values(&values, args.format, context)
}

pub(super) fn run_ports(args: PortsArgs, context: &Context) -> Result<()> {
    let pack = match (&args.name, &args.pack) {
        (Some(name), _) => return service_ports(name, args.format, context),
        (None, Some(pack)) => HostPack::new(&Pack::open(pack)?)?,
        (None, None) => return Err(Error::usage("name a service, or a pack with -b")),
    };
    let answers = query::query_all(&mut |key| pack.query(key, context.reporter()))?;
    let ports: Vec<String> = answers.exposed_ports().iter().map(ToString::to_string).collect();
    print_values(&ports, args.format, context)
}

fn print_values(values: &[String], format: Format, context: &Context) -> Result<()> {
    let text = match format {
        Format::Table => values.iter().map(|value| format!("{value}\n")).collect(),
        Format::Json => format!("{}\n", serde_json::json!(values)),
    };
    context.print(&text)
}
