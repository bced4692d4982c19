//! `svp health`.

use std::process::ExitCode;

use super::super::args::{Seconds, parsed};
use super::super::common::{Context, Format};
use super::super::table;
use super::find::find;
use crate::error::Result;
use crate::service::health;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The name of the service
    name: String,
    /// Wait until it is healthy, at most SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", value_parser = parsed::<Seconds>)]
    wait: Option<Seconds>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(&args.name)?;
    let why = match args.wait {
        Some(Seconds(limit)) => health::wait(&root, &service_dir, limit).map(|()| None)?,
        None => {
            health::check(&root, &service_dir, &service_dir.record()?, health::DEFAULT_TIMEOUT)?
        }
    };
    let text = match (&why, args.format) {
        (_, Format::Json) => table::json(&serde_json::json!({
            "name": args.name, "healthy": why.is_none(), "reason": why,
        })),
        (None, Format::Table) => "healthy\n".to_owned(),
        (Some(why), Format::Table) => format!("unhealthy: {why}\n"),
    };
    context.print(&text)?;
    Ok(if why.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
