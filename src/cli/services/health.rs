//! `svp health`.

use std::process::ExitCode;

use super::super::args::{Seconds, parsed};
use super::super::common::{Context, Format};
use super::super::table;
use super::find::find;
use crate::error::Result;
use crate::progress::{Step, announce_if_slow};
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
    let reporter = context.reporter();
    let failure = match args.wait {
        Some(Seconds(limit)) => {
            health::wait(&root, &service_dir, limit, reporter).map(|()| None)?
        }
        None => {
            let record = service_dir.record()?;
            let step = Step::RunHealthCommand { service: args.name.clone() };
            announce_if_slow(reporter, step, || {
                health::check(&root, &service_dir, &record, record.health_timeout())
            })?
        }
    };
    let text = match (&failure, args.format) {
        (_, Format::Json) => table::json(&serde_json::json!({
            "name": args.name,
            "healthy": failure.is_none(),
            "reason": failure.as_ref().map(|failure| &failure.reason),
            "output": failure.as_ref().map(|failure| &failure.output),
        })),
        (None, Format::Table) => "healthy\n".to_owned(),
        (Some(failure), Format::Table) => {
            let output = failure.output.lines().map(|line| format!("  {line}\n"));
            format!("unhealthy: {}\n{}", failure.reason, output.collect::<String>())
        }
    };
    context.print(&text)?;
    Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
