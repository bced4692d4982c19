//! `svp pull`, `push`, `copy`, `save` and `load`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use super::args::{PullArgs, RecompressionArgs, RegistryArgs, SignatureArgs, parsed};
use super::common::Context;
use crate::error::{Error, IoContext, Result};
use crate::oci::{Platform, Reference};
use crate::pipeline::copy::{self, CopyRequest, Destination};
use crate::pipeline::output::Output;
use crate::progress::{Step, announce_if_slow};
use crate::source::{PullOptions, Source};

#[derive(Debug, clap::Args)]
pub(super) struct PullCommand {
    /// docker://REF, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The name in the store, instead of the image's own name
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Option<Reference>,
    /// Replace an instance of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pull: PullArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// An image in the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// The destination, docker://REF [default: the image's own name]
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
    /// Only this platform's image of an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// Allow pushing an instance's image, which contains secrets
    #[arg(long)]
    allow_secrets: bool,
    #[command(flatten)]
    compression: RecompressionArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct CopyArgs {
    /// docker://REF, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF], or a name in the store
    #[arg(value_name = "SOURCE", value_parser = parsed::<Source>)]
    source: Source,
    /// The destination, in the same notation; the file - is standard output
    #[arg(value_name = "DESTINATION", value_parser = parsed::<Destination>)]
    destination: Destination,
    /// Replace an instance of that name
    #[arg(long)]
    force: bool,
    /// Allow copying an instance's image, which contains secrets
    #[arg(long)]
    allow_secrets: bool,
    #[command(flatten)]
    compression: RecompressionArgs,
    #[command(flatten)]
    pull: PullArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct SaveArgs {
    /// An image in the store
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// The destination: oci-archive:FILE, docker-archive:FILE or oci:DIR; the file - is standard output
    #[arg(short, long, value_name = "FORMAT:FILE", default_value = "oci-archive:-", value_parser = parsed::<Output>)]
    output: Output,
    /// Only this platform's image of an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// Allow saving an instance's image, which contains secrets
    #[arg(long)]
    allow_secrets: bool,
    #[command(flatten)]
    compression: RecompressionArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// An OCI or docker archive, plain or compressed; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// The name of the image, instead of those in the archive
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Option<Reference>,
    /// Replace instances that have these names
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    signatures: SignatureArgs,
}

pub(super) fn pull(args: PullCommand, context: &Context) -> Result<()> {
    let source = source_of(&args.source)?;
    let name = args.tag.map_or_else(|| copy::own_name(&source), Ok)?;
    run(
        CopyRequest {
            source,
            destination: Destination::Local(name),
            pull: args.pull.options(context),
            compression: None,
            force: args.force,
            allow_secrets: false,
        },
        context,
    )
}

pub(super) fn push(args: PushArgs, context: &Context) -> Result<()> {
    let destination = match args.destination.as_deref() {
        Some(text) => text.parse()?,
        None => Destination::Local(args.image.clone()),
    };
    let destination = match destination {
        // A name with a registry's host needs no `docker://`.
        Destination::Local(name) if name.registry().is_some() => Destination::Docker(name),
        Destination::Local(name) => {
            let destination = format!("docker://REGISTRY/{}", name.tagged());
            return Err(Error::usage(format!("{name} names no registry to push to"))
                .hint(format!("name the destination: `svp push {} {destination}`", args.image)));
        }
        other => other,
    };
    let mut pull = PullOptions { whole: args.platform.is_none(), ..PullOptions::default() };
    args.registry.apply(&mut pull.client, context);
    pull.platform = args.platform.unwrap_or(pull.platform);
    run(
        CopyRequest {
            source: Source::Local(args.image),
            destination,
            pull,
            compression: args.compression.asked()?,
            force: false,
            allow_secrets: args.allow_secrets,
        },
        context,
    )
}

pub(super) fn copy(args: CopyArgs, context: &Context) -> Result<()> {
    run(
        CopyRequest {
            source: args.source,
            destination: args.destination,
            pull: args.pull.whole_options(context),
            compression: args.compression.asked()?,
            force: args.force,
            allow_secrets: args.allow_secrets,
        },
        context,
    )
}

pub(super) fn save(args: SaveArgs, context: &Context) -> Result<()> {
    run(
        CopyRequest {
            source: Source::Local(args.image),
            destination: Destination::File(args.output, None),
            pull: PullOptions {
                whole: args.platform.is_none(),
                platform: args.platform.unwrap_or_else(Platform::host),
                ..PullOptions::default()
            },
            compression: args.compression.asked()?,
            force: false,
            allow_secrets: args.allow_secrets,
        },
        context,
    )
}

pub(super) fn load(args: LoadArgs, context: &Context) -> Result<()> {
    let store = context.store()?;
    let signature_policy = args.signatures.policy();
    let options = PullOptions { signature_policy, ..PullOptions::default() };
    let (tag, reporter) = (args.tag.as_ref(), context.reporter());
    let loaded = copy::load(&args.input, tag, args.force, &options, &store, reporter)?;
    let lines = loaded.iter().map(|image| format!("{}\n", image.name.tagged()));
    context.print(&lines.collect::<String>())
}

/// Parses a source to pull from; a name with a registry host means `docker://`.
fn source_of(text: &str) -> Result<Source> {
    match text.parse()? {
        Source::Local(name) if name.registry().is_some() => Ok(Source::Docker(name)),
        Source::Local(name) => {
            let full = name.clone().with_default_registry();
            Err(Error::usage(format!("{name} is a local name: nothing to pull"))
                .hint(format!("for an image on Docker Hub write docker://{full}")))
        }
        other => Ok(other),
    }
}

fn run(mut request: CopyRequest, context: &Context) -> Result<()> {
    let streamed = match &request.destination {
        Destination::File(Output::Stdout(format), _) => Some(*format),
        _ => None,
    };
    if streamed.is_some() && std::io::stdout().is_terminal() {
        return Err(Error::usage("refusing to write an archive to a terminal")
            .hint("redirect standard output, or name a file"));
    }
    let store = context.store()?;
    if let Source::Local(image) = &mut request.source
        && image.digest_prefix().is_some()
    {
        // An image in a layout needs a name, and a digest is not a name.
        *image = store.resolve(image)?.reference()?;
    }
    let copied = copy::copy(&request, &store, context.reporter())?;
    let digest = format!("{}\n", copied.descriptor.digest);
    let Some(format) = streamed else { return context.print(&digest) };
    context.finish();
    let mut output = std::io::stdout().lock();
    let step = Step::Write {
        reference: copied.name.to_string(),
        destination: "standard output".to_owned(),
    };
    announce_if_slow(context.reporter(), step, || {
        store.write_as(format, &copied.descriptor, &mut output, &copied.name)
    })?;
    output.flush().io("write to", "standard output")?;
    write!(std::io::stderr().lock(), "{digest}").io("write to", "standard error")
}
