//! `svp upgrade`.

use std::process::ExitCode;
use std::time::Duration;

use super::super::args::parsed;
use super::super::common::{Context, Format};
use super::super::table;
use super::find::find;
use super::show::ServiceInfo;
use crate::error::Result;
use crate::oci::Reference;
use crate::pipeline::upgrade_service::{UpgradeRequest, upgrade_service};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The name of the service
    name: String,
    /// The new image, of the same instance [default: the one that the service's tag names now]
    #[arg(long, value_name = "REF", value_parser = parsed::<Reference>)]
    image: Option<Reference>,
    /// Seconds to wait until the service is healthy
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let (_, service_dir) = find(&args.name)?;
    let request =
        UpgradeRequest { image: args.image.clone(), limit: Duration::from_secs(args.wait) };
    upgrade_service(&request, &context.store()?, &service_dir, context.reporter())?;
    match args.format {
        Format::Table => context.print(&format!("{}\n", args.name))?,
        Format::Json => context.print(&table::json(&ServiceInfo::of(&service_dir)?))?,
    }
    Ok(ExitCode::SUCCESS)
}
