//! `svp build`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::args::{
    EnvFormat, OutputArgs, PullArgs, ScriptArgs, SecretArgs, check_metadata, environment_text,
    outputs, parsed, print_data, push, write_metadata,
};
use super::common::Context;
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::pipeline::output::check_compression;
use crate::pipeline::{self, BuildRequest, Phase};
use crate::progress::Step;
use crate::service::host_name::HostName;
use crate::source::Source;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of the pack
    #[arg(short = 'b', long = "build-dir", visible_alias = "pack", value_name = "PACK")]
    pack: PathBuf,
    /// The tag of the new image
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Reference,
    /// The base image, instead of the one that the pack's `os` names: docker://REF, oci:DIR[:REF],
    /// oci-archive:FILE[:REF], docker-archive:FILE[:REF], or a name in the store
    #[arg(long, value_name = "SOURCE", value_parser = parsed::<Source>)]
    base: Option<Source>,
    /// The phase to run: `base` for the image that all instances share, `all` to build one instance directly
    #[arg(long, value_enum, default_value = "base")]
    phase: PhaseArg,
    /// Replace an instance that has this tag
    #[arg(long)]
    force: bool,
    /// With `--phase all`: the host name during the build and when the instance runs [default: its name]
    #[arg(long, value_name = "NAME", value_parser = parsed::<HostName>)]
    hostname: Option<HostName>,
    #[command(flatten)]
    run: ScriptArgs,
    #[command(flatten)]
    secrets: SecretArgs,
    /// Output format of the environment of `--phase all`
    #[arg(long, value_enum, default_value = "dotenv")]
    env_format: EnvFormat,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pull: PullArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PhaseArg {
    Base,
    All,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let phase = match args.phase {
        PhaseArg::Base => Phase::Base,
        PhaseArg::All => Phase::All,
    };
    if phase == Phase::Base && args.secrets.any() {
        return Err(Error::usage("the phase `base` has no secrets")
            .hint("use `svp setup`, or `svp build --phase all`"));
    }
    if phase == Phase::Base && args.hostname.is_some() {
        return Err(Error::usage("the phase `base` has no host name of its own")
            .hint("give --hostname to `svp setup`, or to `svp build --phase all`"));
    }
    let outputs = outputs(&args.output)?;
    check_compression(&outputs, args.run.compression.asked()?)?;
    check_metadata(&args.output)?;
    args.output.check_push(&args.tag, phase == Phase::All)?;
    let pull = args.pull.options(context);
    let client = pull.client.clone();
    let request = BuildRequest {
        pack: args.pack,
        tag: args.tag.clone(),
        phase,
        base: args.base,
        pull,
        script: args.run.options()?,
        hostname: args.hostname,
        secrets: args.secrets.options()?,
        force: args.force,
        outputs,
    };
    let store = context.store()?;
    let built = pipeline::build(&request, &store, context.reporter())?;
    write_metadata(&args.output, &built.descriptor, &args.tag)?;
    let digest = format!("{}\n", built.descriptor.digest);
    let text = match built.environment {
        Some(environment) => {
            let (reference, digest) = (args.tag.tagged(), built.descriptor.digest.to_string());
            context.reporter().step(Step::Built { reference, digest });
            environment_text(&environment, args.env_format)?
        }
        None => digest,
    };
    print_data(context, &store, &request.outputs, (&built.descriptor, &args.tag), &text)?;
    push(&args.output, (&built.descriptor, &args.tag), &store, &client, context)
}
