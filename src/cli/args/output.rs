//! Destinations of an image besides the store, and the output of a build.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::cli::common::Context;
use crate::error::{Context as _, Error, IoContext, Result};
use crate::oci::{Descriptor, Reference};
use crate::pipeline::output::{Output, check_file};
use crate::registry::ClientOptions;
use crate::source;
use crate::store::Store;

/// Destinations of an image besides the store.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct OutputArgs {
    /// Add the image to the OCI image layout DIR, created if missing; other tags stay
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) oci_dir: Option<PathBuf>,
    /// Write the image to an archive: oci-archive:FILE or docker-archive:FILE; the file - is standard output
    #[arg(short, long = "output", value_name = "FORMAT:FILE")]
    pub(in crate::cli) output: Vec<String>,
    /// Push the new image to the registry named in its tag
    #[arg(long)]
    pub(in crate::cli) push: bool,
    /// Allow pushing an instance's image, which contains secrets
    #[arg(long, requires = "push")]
    pub(in crate::cli) allow_secrets: bool,
    /// Write the result to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metadata_file: Option<PathBuf>,
}

impl OutputArgs {
    /// Refuses an impossible or forbidden `--push` before any work.
    pub(in crate::cli) fn check_push(&self, tag: &Reference, instance: bool) -> Result<()> {
        if !self.push {
            return Ok(());
        }
        if tag.registry().is_none() {
            return Err(Error::usage(format!("{tag} names no registry to push to"))
                .hint("write the tag as REGISTRY/REPOSITORY:TAG"));
        }
        if instance && !self.allow_secrets {
            return Err(Error::usage(format!("{tag} is an instance: its image contains secrets"))
                .hint(
                    "everyone who can pull it can read them; add --allow-secrets to push it anyway",
                ));
        }
        Ok(())
    }
}

/// Pushes the image if `--push` was given. Call it last: a failing registry then loses neither image nor output.
pub(in crate::cli) fn push(
    args: &OutputArgs,
    image: (&Descriptor, &Reference),
    store: &Store,
    client: &ClientOptions,
    context: &Context,
) -> Result<()> {
    if !args.push {
        return Ok(());
    }
    let pushed = source::push(image.0, image.1, store, client, context.reporter());
    let secrets = if args.allow_secrets { "--allow-secrets " } else { "" };
    let name = image.1.tagged();
    pushed.hint(format!("the image is in the store; retry with `svp push {secrets}{name}`"))
}

/// Returns the destinations given on the command line.
pub(in crate::cli) fn outputs(args: &OutputArgs) -> Result<Vec<Output>> {
    let mut outputs: Vec<Output> = args.oci_dir.iter().cloned().map(Output::Layout).collect();
    for text in &args.output {
        outputs.push(text.parse()?);
    }
    let streamed = outputs.iter().any(|output| matches!(output, Output::Stdout(_)));
    if streamed && std::io::stdout().is_terminal() {
        return Err(Error::usage("refusing to write an archive to a terminal")
            .hint("redirect standard output, or use -o oci-archive:FILE"));
    }
    Ok(outputs)
}

/// Prints a command's data, on standard error if an archive goes to standard output.
pub(in crate::cli) fn print_data(
    context: &Context,
    store: &Store,
    outputs: &[Output],
    image: (&Descriptor, &Reference),
    text: &str,
) -> Result<()> {
    let format = outputs.iter().find_map(|output| match output {
        Output::Stdout(format) => Some(*format),
        _ => None,
    });
    let Some(format) = format else { return context.print(text) };
    context.finish();
    store.write_as(format, image.0, &mut std::io::stdout().lock(), image.1)?;
    let written = write!(std::io::stderr().lock(), "{text}");
    written.io("write to", "standard error")
}

/// Refuses a `--metadata-file` that can't be written, before any work.
pub(in crate::cli) fn check_metadata(args: &OutputArgs) -> Result<()> {
    args.metadata_file.as_deref().map_or(Ok(()), check_file)
}

/// Writes `--metadata-file`.
pub(in crate::cli) fn write_metadata(
    args: &OutputArgs,
    descriptor: &Descriptor,
    tag: &Reference,
) -> Result<()> {
    let Some(path) = &args.metadata_file else { return Ok(()) };
    let metadata = json!({
        "name": tag.tagged(),
        "digest": descriptor.digest,
        "size": descriptor.size,
        "mediaType": descriptor.media_type,
    });
    std::fs::write(path, format!("{metadata:#}\n")).io("write", path)
}
