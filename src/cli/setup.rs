//! `svp setup`.

use std::io::Read;
use std::path::PathBuf;

use clap::ValueEnum;

use super::build::{
    RegistryArgs, RunArgs, check_metadata, outputs, print_data, push, write_metadata,
};
use super::common::{Context, OutputArgs, parsed};
use crate::error::{Error, IoContext, Kind, Result};
use crate::oci::Reference;
use crate::pipeline::output::check_compression;
use crate::pipeline::setup::SecretOptions;
use crate::pipeline::{self, SetupRequest};
use crate::registry::ClientOptions;
use crate::secret::Secret;

/// Maximum size of a secret read from a file, in bytes.
const MAX_SECRET: u64 = 64 << 10;

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
    #[command(flatten)]
    secrets: SecretArgs,
    /// Output format of the environment
    #[arg(long, value_enum, default_value = "dotenv")]
    env_format: EnvFormat,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Secrets that are not generated.
#[derive(Debug, clap::Args)]
pub(super) struct SecretArgs {
    /// Read the secret NAME from FILE; - is standard input
    #[arg(long, value_name = "NAME=@FILE")]
    secret: Vec<String>,
    /// Replace the instance that has this tag, keeping its secrets
    #[arg(long, conflicts_with = "force")]
    keep_secrets: bool,
}

/// Output format of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EnvFormat {
    /// One NAME=VALUE per line, unquoted
    Dotenv,
    /// One JSON object
    Json,
    /// export NAME='VALUE', for a shell to read
    Shell,
}

impl SecretArgs {
    /// Whether any option for secrets was given.
    pub(super) fn any(&self) -> bool {
        self.keep_secrets || !self.secret.is_empty()
    }

    /// Reads the secrets.
    pub(super) fn options(&self) -> Result<SecretOptions> {
        let mut own: Vec<(String, Secret)> = Vec::new();
        for text in &self.secret {
            let Some((name, file)) = text.split_once("=@") else {
                return Err(Error::usage("--secret takes NAME=@FILE").hint(
                    "a secret on the command line could be read by every user of this machine: \
                     put it into a file, or pipe it to --secret NAME=@-",
                ));
            };
            if own.iter().any(|(known, _)| known == name) {
                return Err(Error::usage(format!("the secret {name} is given twice")));
            }
            own.push((name.to_owned(), read_secret(name, file)?));
        }
        Ok(SecretOptions { own, keep: self.keep_secrets })
    }
}

fn read_secret(name: &str, file: &str) -> Result<Secret> {
    let mut value = Vec::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_SECRET + 1).read_to_end(&mut value)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_SECRET + 1).read_to_end(&mut value))
    };
    read.io("read the secret from", file).map_err(|error| {
        error.with_kind(Kind::Usage).hint(format!(
            "--secret {name}=@FILE takes a file that you may read, or {name}=@- standard input"
        ))
    })?;
    if value.len() as u64 > MAX_SECRET {
        return Err(Error::usage(format!("the secret {name} is longer than {MAX_SECRET} bytes")));
    }
    let mut value = String::from_utf8(value)
        .map_err(|_| Error::usage(format!("the secret {name} is not UTF-8 text")))?;
    let kept = value.trim_end_matches(['\n', '\r']).len();
    value.truncate(kept);
    Secret::new(name, value)
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
        secrets: args.secrets.options()?,
        force: args.force,
        update_pack: args.update_pack,
        outputs,
    };
    let store = context.store()?;
    let made = pipeline::setup(&request, &store, context.reporter())?;
    write_metadata(&args.output, &made.descriptor, &made.tag)?;
    context.reporter().step(&format!("set up {} {}", made.tag.tagged(), made.descriptor.digest));
    let text = environment_text(&made.environment, args.env_format);
    print_data(context, &store, &request.outputs, (&made.descriptor, &made.tag), &text)?;
    let mut client = ClientOptions::default();
    args.registry.apply(&mut client);
    push(&args.output, (&made.descriptor, &made.tag), &store, &client, context)
}

/// Formats an environment.
pub(super) fn environment_text(environment: &[(String, String)], format: EnvFormat) -> String {
    match format {
        EnvFormat::Dotenv => environment.iter().map(|(n, v)| format!("{n}={v}\n")).collect(),
        EnvFormat::Shell => environment
            .iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
            .collect(),
        EnvFormat::Json => {
            let pairs = environment.iter().map(|(n, v)| (n.clone(), v.clone().into()));
            let map: serde_json::Map<String, serde_json::Value> = pairs.collect();
            format!("{:#}\n", serde_json::Value::Object(map))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let env = vec![("B".to_owned(), "it's".to_owned()), ("A".to_owned(), "%IP".to_owned())];
        assert_eq!(environment_text(&env, EnvFormat::Dotenv), "B=it's\nA=%IP\n");
        let shell = "export B='it'\\''s'\nexport A='%IP'\n";
        assert_eq!(environment_text(&env, EnvFormat::Shell), shell);
        let json: serde_json::Value =
            serde_json::from_str(&environment_text(&env, EnvFormat::Json)).unwrap();
        assert_eq!(json["B"], "it's");
    }
}
