//! `svp build`: builds a service type's base image, or, with `--phase all`, an instance at once.

use std::path::PathBuf;

use super::base::{self, Base};
use super::label::{self, ImageMetadata, Phase};
use super::output::{self, Output};
use super::pack_layer::PackLayer;
use super::script::{self, Script, ScriptOptions};
use super::{environment, image_role, query, setup};
use crate::config::Config;
use crate::error::Result;
use crate::oci::{Descriptor, Reference};
use crate::pack::Pack;
use crate::progress::Reporter;
use crate::sandbox::Sandbox;
use crate::service::host_name::HostName;
use crate::service::{InstanceState, image_config, volume};
use crate::source::{PullOptions, Source};
use crate::store::Store;

/// The host name during the phase `base`: no instance has it.
const BUILD_HOST: &str = "svp-build";

/// A request to build an image.
#[derive(Debug)]
pub(crate) struct BuildRequest {
    /// The pack's directory.
    pub pack: PathBuf,
    /// The tag.
    pub tag: Reference,
    /// [`Phase::Base`], or [`Phase::All`].
    pub phase: Phase,
    /// The source of the base image, if not the one that the pack's os names.
    pub base: Option<Source>,
    /// How to pull it.
    pub pull: PullOptions,
    /// How the script runs, and how its layer is written.
    pub script: ScriptOptions,
    /// The host name of the instance, for [`Phase::All`], if not its name.
    pub hostname: Option<HostName>,
    /// Secrets given by the user, for [`Phase::All`].
    pub secrets: setup::SecretOptions,
    /// Replace an instance of that name.
    pub force: bool,
    /// Destinations besides the store.
    pub outputs: Vec<Output>,
}

/// The result of a build.
#[derive(Debug)]
pub(crate) struct Built {
    /// The manifest.
    pub descriptor: Descriptor,
    /// The instance's environment, secrets first; only with [`Phase::All`].
    pub environment: Option<Vec<(String, String)>>,
}

/// Builds an image from a pack.
///
/// On failure no image, tag or state is left; a base image that was pulled stays for the next attempt.
///
/// # Errors
/// Of every kind; each names the operation that failed.
pub(crate) fn build(
    request: &BuildRequest,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Built> {
    let pack = Pack::open(&request.pack)?;
    check(request, store)?;
    let mut pack_layer = PackLayer::new(&pack)?;
    let sandbox = Sandbox::create(&store.layout().trees())?;
    let answers = query::all_on_host(&sandbox, &pack_layer, reporter)?;
    let secrets = match request.phase {
        Phase::All => request.secrets.provide(&answers.secrets, store, &request.tag)?,
        _ => Vec::new(),
    };
    let source = base::source(&answers.os, request.base.as_ref(), &Config::load()?)?;
    let base = base::provide(store, &source, &answers.os, &request.pull, reporter)?;
    let Base { mut image, .. } = base;
    image_role::refuse_instance_as_base(&image, &source)?;
    image_config::check(image.config(), &source.to_string())?;
    let mut build_rootfs =
        script::build_rootfs(store, &sandbox, &image, Some(&mut pack_layer), reporter)?;
    let env = environment::of_build(&image, &answers.env, &secrets, &request.script)?;
    let of_instance = HostName::of_instance(&request.tag);
    let hostname = match request.phase {
        Phase::Base => BUILD_HOST,
        _ => request.hostname.as_ref().unwrap_or(&of_instance).as_str(),
    };
    let script =
        Script { phase: request.phase, tag: &request.tag, env, hostname, secrets: &secrets };
    let changes =
        script::run(store, &sandbox, &mut build_rootfs, script, &request.script, reporter)?;
    let created = label::creation_time(request.script.source_date_epoch);
    let digest = pack_layer.digest();
    let what = format!("svp build: the pack {} at /service", digest.short());
    pack_layer.blob(store, request.script.compression)?.put_on(&mut image, what, created)?;
    let what = format!("svp build: /service/bin/build {}", request.phase);
    changes.put_on(&mut image, what, created)?;
    label::configure(
        &mut image,
        &ImageMetadata {
            phase: request.phase,
            answers: &answers,
            reference: &request.tag,
            pack: Some(&pack),
            pack_digest: Some(digest),
            created,
            base: (base.name, base.descriptor.digest),
            hostname: request.hostname.as_ref(),
        },
    )?;
    let environment = setup::environment_lines(&answers.env, &secrets);
    let id = volume::setup::id_of(store, &secrets)?;
    let state = (request.phase == Phase::All).then(|| {
        InstanceState::new(&request.tag, &answers, (secrets, id), request.script.source_date_epoch)
    });
    let replace = request.phase != Phase::All || request.force || request.secrets.keep;
    let descriptor =
        setup::publish(store, &image, (&request.tag, replace), state, &request.outputs, reporter)?;
    let environment = (request.phase == Phase::All).then_some(environment);
    Ok(Built { descriptor, environment })
}

/// Refuses requests that can't succeed, before any work is done.
fn check(request: &BuildRequest, store: &Store) -> Result<()> {
    image_role::check_tag(&request.tag)?;
    output::check(&request.outputs)?;
    match request.phase {
        Phase::All => {
            let may = request.force || request.secrets.keep;
            image_role::check_for_instance(store, &request.tag, may)
        }
        _ => image_role::refuse_instance_name(store, &request.tag, request.force),
    }
}
