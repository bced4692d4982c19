//! `svp build`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::common::{Context, OutputArgs, env_argument, parsed, source_date_epoch};
use super::compression::CompressionArgs;
use super::setup::{EnvFormat, SecretArgs, environment_text};
use crate::error::{Context as _, Error, IoContext, Result};
use crate::oci::{Descriptor, Platform, Reference};
use crate::pipeline::output::{Output, check_compression, check_file};
use crate::pipeline::{self, BuildRequest, Phase, ScriptOptions};
use crate::registry::{AuthFiles, CertDirs, ClientOptions};
use crate::sandbox::Network;
use crate::source::{self, PullOptions, PullPolicy, SignaturePolicy, Source};
use crate::store::Store;

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
    /// The phase to run: `base` for the image of all instances, `all` for one instance at once
    #[arg(long, value_enum, default_value = "base")]
    phase: PhaseArg,
    /// Replace an instance that has this tag
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: RunArgs,
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

/// Options for a script and its layer.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Network of the script: auto is private where possible, else the host's
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// Set a variable for the script; it does not reach the image
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = env_argument)]
    env: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) compression: CompressionArgs,
}

impl RunArgs {
    pub(super) fn options(self) -> Result<ScriptOptions> {
        let network = match self.network {
            NetworkArg::Auto => Network::Auto,
            NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
        };
        Ok(ScriptOptions {
            network,
            env: self.env,
            compression: self.compression.settings()?,
            source_date_epoch: source_date_epoch()?,
        })
    }
}

/// Options for connections to registries.
#[derive(Debug, clap::Args)]
pub(super) struct RegistryArgs {
    /// Also trust the certificates in FILE (PEM)
    #[arg(long, value_name = "FILE")]
    cacert: Vec<PathBuf>,
    /// Read authorities (*.crt) and a client certificate (*.cert, *.key) from DIR instead of certs.d
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Read registry credentials from FILE
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Require TLS and verify certificates; false also allows plain http
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
}

impl RegistryArgs {
    /// The auth file given on the command line; a file to write may not exist yet.
    pub(super) fn login_file(&self) -> Option<PathBuf> {
        self.authfile.clone()
    }

    pub(super) fn apply(self, options: &mut ClientOptions) {
        options.cacert = self.cacert;
        options.tls_verify = self.tls_verify;
        options.cert_dirs = CertDirs::from_env(self.cert_dir.as_deref());
        options.auth_files = AuthFiles::from_env(self.authfile.as_deref());
    }
}

/// Options for pulling an image from a registry.
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Choose this platform from an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parsed::<Platform>)]
    platform: Option<Platform>,
    /// When to pull an image that the store may have
    #[arg(long = "pull", value_enum, value_name = "WHEN", default_value = "always")]
    policy: PolicyArg,
    /// Use this policy.json instead of the user's or the system's
    #[arg(long = "policy", value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Never contact a registry; use the store alone
    #[arg(long, conflicts_with = "policy")]
    offline: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// If the store does not have it
    Missing,
    /// Always; blobs in the store are not downloaded again
    Always,
    /// Always, but fall back to the store if the registry fails
    Newer,
    /// Never
    Never,
}

impl PullArgs {
    /// As [`PullArgs::options`], for commands that copy a whole index unless a platform is given.
    pub(super) fn whole_options(self) -> PullOptions {
        PullOptions { whole: self.platform.is_none(), ..self.options() }
    }

    pub(super) fn options(self) -> PullOptions {
        let mut options = PullOptions::default();
        self.registry.apply(&mut options.client);
        options.signature_policy = SignaturePolicy::from_env(self.policy_file);
        options.policy = match self.policy {
            _ if self.offline => PullPolicy::Never,
            PolicyArg::Missing => PullPolicy::Missing,
            PolicyArg::Always => PullPolicy::Always,
            PolicyArg::Newer => PullPolicy::Newer,
            PolicyArg::Never => PullPolicy::Never,
        };
        if let Some(platform) = self.platform {
            options.platform = platform;
        }
        options
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PhaseArg {
    Base,
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkArg {
    Auto,
    Host,
    None,
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
    let outputs = outputs(&args.output)?;
    check_compression(&outputs, args.run.compression.asked()?)?;
    check_metadata(&args.output)?;
    args.output.check_push(&args.tag, phase == Phase::All)?;
    let pull = args.pull.options();
    let client = pull.client.clone();
    let request = BuildRequest {
        pack: args.pack,
        tag: args.tag.clone(),
        phase,
        base: args.base,
        pull,
        script: args.run.options()?,
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
            context.reporter().step(&format!("built {} {}", args.tag.tagged(), digest.trim()));
            environment_text(&environment, args.env_format)
        }
        None => digest,
    };
    print_data(context, &store, &request.outputs, (&built.descriptor, &args.tag), &text)?;
    push(&args.output, (&built.descriptor, &args.tag), &store, &client, context)
}

/// Pushes the image if `--push` was given: last, so that a failing registry loses neither the image nor the output.
pub(super) fn push(
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
    pushed.hint(format!("the image is in the store; retry with `svp push {}`", image.1.tagged()))
}

/// The destinations given on the command line.
pub(super) fn outputs(args: &OutputArgs) -> Result<Vec<Output>> {
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
pub(super) fn print_data(
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
    let told = write!(std::io::stderr().lock(), "{text}");
    told.io("write to", "standard error")
}

/// Refuses a `--metadata-file` that can't be written, before any work.
pub(super) fn check_metadata(args: &OutputArgs) -> Result<()> {
    args.metadata_file.as_deref().map_or(Ok(()), check_file)
}

/// Writes `--metadata-file`.
pub(super) fn write_metadata(
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
