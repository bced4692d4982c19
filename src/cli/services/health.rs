//! `svp health`.

use std::process::ExitCode;
use std::time::Duration;

use super::super::common::Context;
use super::super::run::seconds;
use super::find;
use crate::error::Result;
use crate::service::health;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The service
    name: String,
    /// Wait until it is well, so many seconds at most
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, value_parser = seconds)]
    wait: Option<Option<u64>>,
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let (root, place) = find(&args.name)?;
    if let Some(limit) = args.wait {
        health::wait(&root, &place, Duration::from_secs(limit.unwrap_or(60)))?;
        context.print("healthy\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    match health::look(&root, &place, &place.record()?, health::PATIENCE)? {
        None => {
            context.print("healthy\n")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(why) => {
            context.print(&format!("unhealthy: {why}\n"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}
