//! `svp index`.

use serde_json::json;

use super::build::RegistryArgs;
use super::common::{Context, Format, parsed};
use super::table;
use crate::error::Result;
use crate::oci::Reference;
use crate::pipeline::index::{IndexRequest, Indexed, index};
use crate::source::{PullOptions, Source};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The images, each for another platform; of an index all its images. One of the store, docker://REF,
    /// oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]
    #[arg(required = true, value_name = "IMAGE", value_parser = parsed::<Source>)]
    images: Vec<Source>,
    /// The tag to give the index
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Reference,
    /// A note for the index, such as org.opencontainers.image.description=TEXT
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    /// Replace an instance that has the name
    #[arg(long)]
    force: bool,
    /// The form of what is printed: the digest alone, or all as JSON
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let mut pull = PullOptions::default();
    args.registry.apply(&mut pull.client);
    let request = IndexRequest {
        sources: args.images,
        tag: args.tag,
        annotations: args.annotation.into_iter().collect(),
        pull,
        force: args.force,
    };
    let Indexed { descriptor, images } = index(&request, &context.store()?, context.reporter())?;
    context.print(&match args.format {
        Format::Table => format!("{}\n", descriptor.digest),
        Format::Json => table::json(&json!({
            "name": request.tag.tagged(),
            "digest": descriptor.digest,
            "mediaType": descriptor.media_type,
            "size": descriptor.size,
            "manifests": images,
        })),
    })
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}
