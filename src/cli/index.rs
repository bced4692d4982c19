//! `svp index`.

use std::str::FromStr;

use serde_json::json;

use super::args::{RegistryArgs, parsed};
use super::common::{Context, Format};
use super::table;
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::pipeline::index::{IndexRequest, Indexed, index};
use crate::source::{PullOptions, Source};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The images, one for each platform; an index stands for all its images. A name in the store, docker://REF,
    /// oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]
    #[arg(required = true, value_name = "IMAGE", value_parser = parsed::<Source>)]
    images: Vec<Source>,
    /// The tag of the new index
    #[arg(short, long, value_name = "REPO[:TAG]", value_parser = parsed::<Reference>)]
    tag: Reference,
    /// Add an annotation to the index, such as org.opencontainers.image.description=TEXT
    #[arg(long, value_name = "NAME=VALUE", value_parser = parsed::<Annotation>)]
    annotation: Vec<Annotation>,
    /// Replace an instance of that name
    #[arg(long)]
    force: bool,
    /// Output format: the digest alone, or everything as JSON
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let mut pull = PullOptions::default();
    args.registry.apply(&mut pull.client, context);
    let request = IndexRequest {
        sources: args.images,
        tag: args.tag,
        annotations: args.annotation.into_iter().map(|it| (it.name, it.value)).collect(),
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

/// An annotation on the command line: `NAME=VALUE`.
#[derive(Clone, Debug)]
struct Annotation {
    name: String,
    value: String,
}

impl FromStr for Annotation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Annotation { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(Error::usage("write it as NAME=VALUE")),
        }
    }
}
