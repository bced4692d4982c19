//! `svp setup`.

use std::path::PathBuf;

use super::args::{
    EnvFormat, OutputArgs, RegistryArgs, ScriptArgs, SecretArgs, check_metadata, environment_text,
    outputs, parsed, print_data, push, write_metadata,
};
use super::common::Context;
use crate::error::Result;
use crate::oci::Reference;
use crate::pipeline::output::check_compression;
use crate::pipeline::{self, SetupRequest};
use crate::progress::Step;
use crate::registry::ClientOptions;
use crate::service::host_name::HostName;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of the pack; the pack in the base image is the one that runs
    #[arg(short = 'b', long = "build-dir", visible_alias = "pack", value_name = "PACK")]
    pack: Option<PathBuf>,
    /// The base image, built by `svp build`
    #[arg(short, long, value_name = "BASE[:TAG]", value_parser = parsed::<Reference>)]
    image: Reference,
    /// The tag of the instance
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Reference,
    /// Replace an image that has this tag; generate new secrets
    #[arg(long)]
    force: bool,
    /// Replace the image's pack with that of -b first
    #[arg(long)]
    update_pack: bool,
    /// The host name during setup and when it runs [default: the instance's name]
    #[arg(long, value_name = "NAME", value_parser = parsed::<HostName>)]
    hostname: Option<HostName>,
    #[command(flatten)]
    secrets: SecretArgs,
    /// Output format of the environment
    #[arg(long, value_enum, default_value = "dotenv")]
    env_format: EnvFormat,
    #[command(flatten)]
    run: ScriptArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let outputs = outputs(&args.output)?;
    check_compression(&outputs, args.run.compression.asked()?)?;
    check_metadata(&args.output)?;
    args.output.check_push(&args.tag, true)?;
    let request = SetupRequest {
        pack: args.pack,
        image: args.image,
        tag: args.tag,
        script: args.run.options()?,
        hostname: args.hostname,
        secrets: args.secrets.options()?,
        force: args.force,
        update_pack: args.update_pack,
        outputs,
    };
    let store = context.store()?;
    let made = pipeline::setup(&request, &store, context.reporter())?;
    write_metadata(&args.output, &made.descriptor, &made.tag)?;
    let (reference, digest) = (made.tag.tagged(), made.descriptor.digest.to_string());
    context.reporter().step(Step::SetUp { reference, digest });
    let text = environment_text(&made.environment, args.env_format)?;
    print_data(context, &store, &request.outputs, (&made.descriptor, &made.tag), &text)?;
    let mut client = ClientOptions::default();
    args.registry.apply(&mut client, context);
    push(&args.output, (&made.descriptor, &made.tag), &store, &client, context)
}
