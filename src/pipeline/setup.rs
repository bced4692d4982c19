//! `svp setup`: sets up an instance of a service on a base image, with fresh secrets.

use std::fs::File;
use std::path::PathBuf;

use super::image_role::{self, ImageRole};
use super::label::{self, ImageMetadata, LABEL_PACK, Phase};
use super::output::{self, Output};
use super::pack_layer::PackLayer;
use super::script::{self, Script, ScriptOptions};
use super::{environment, query};
use crate::error::{Error, IoContext, Kind, Result};
use crate::oci::{Descriptor, Image, Reference};
use crate::pack::Pack;
use crate::pack::query::EnvVar;
use crate::progress::{ImageNote, Reporter, Warning};
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::service::host_name::HostName;
use crate::service::{InstanceState, SavedInstanceState, image_config, volume};
use crate::store::{Store, TagRecord};

/// A request to set up an instance.
#[derive(Debug)]
pub(crate) struct SetupRequest {
    /// The pack's directory, if given; the pack in the image is the one that runs.
    pub pack: Option<PathBuf>,
    /// The base image, as given with `-i`.
    pub image: Reference,
    /// The tag, as given with `-t`.
    pub tag: Reference,
    /// How the script runs, and how its layer is written.
    pub script: ScriptOptions,
    /// The host name, if not the instance's name.
    pub hostname: Option<HostName>,
    /// Which secrets to use instead of fresh ones.
    pub secrets: SecretOptions,
    /// Replace an image of that name.
    pub force: bool,
    /// Put the pack over the image's own first.
    pub update_pack: bool,
    /// Destinations besides the store.
    pub outputs: Vec<Output>,
}

impl SetupRequest {
    /// Whether an image that has the tag may lose it.
    fn may_replace(&self) -> bool {
        self.force || self.secrets.keep
    }
}

/// Secrets to use instead of fresh ones.
#[derive(Debug, Default)]
pub(crate) struct SecretOptions {
    /// Those given by the user.
    pub own: Vec<(String, Secret)>,
    /// Keep those of the instance that has the tag now.
    pub keep: bool,
}

/// The result of a setup.
#[derive(Debug)]
pub(crate) struct SetUp {
    /// The manifest.
    pub descriptor: Descriptor,
    /// The tag that the instance has.
    pub tag: Reference,
    /// Secrets first, then the pack's environment, with `%IP` unexpanded.
    pub environment: Vec<(String, String)>,
}

/// Sets up an instance.
///
/// On failure no image, tag or state is left.
///
/// # Errors
/// Of every kind; each names the operation that failed.
pub(crate) fn setup(
    request: &SetupRequest,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<SetUp> {
    let (base, tag) = order(request, store, reporter)?;
    let (found, mut image) = base_image(request, store, &base)?;
    check(request, store, &base, &tag)?;
    image_config::check(image.config(), &base.tagged())?;
    let pack = request.pack.as_deref().map(Pack::open).transpose()?;
    let mut update = pack_update(request, pack.as_ref(), &image, reporter)?;
    let sandbox = Sandbox::create(&store.layout().trees())?;
    let answers = query::all_in_image(store, &sandbox, &image, update.as_mut(), reporter)?;
    let secrets = request.secrets.provide(&answers.secrets, store, &tag)?;
    let mut build_rootfs =
        script::build_rootfs(store, &sandbox, &image, update.as_mut(), reporter)?;
    let env = environment::of_build(&image, &answers.env, &secrets, &request.script)?;
    let hostname = request.hostname.clone().unwrap_or_else(|| HostName::of_instance(&tag));
    let hostname = hostname.as_str();
    let script = Script { phase: Phase::Setup, tag: &tag, env, hostname, secrets: &secrets };
    let changes =
        script::run(store, &sandbox, &mut build_rootfs, script, &request.script, reporter)?;
    let created = label::creation_time(request.script.source_date_epoch);
    if let Some(update) = &update {
        let what = "svp setup: the pack over /service".to_owned();
        update.blob(store, request.script.compression)?.put_on(&mut image, what, created)?;
    }
    changes.put_on(&mut image, "svp setup: /service/bin/build setup".to_owned(), created)?;
    label::configure(
        &mut image,
        &ImageMetadata {
            phase: Phase::Setup,
            answers: &answers,
            reference: &tag,
            pack: update.as_ref().and(pack.as_ref()),
            pack_digest: update.as_ref().map(PackLayer::digest),
            created,
            base: (base.tagged(), found.manifest.digest),
            hostname: request.hostname.as_ref(),
        },
    )?;
    let environment = environment_lines(&answers.env, &secrets);
    let id = volume::setup::id_of(store, &secrets)?;
    let left = match secrets.is_empty() {
        true => Vec::new(),
        false => volume::setup::volumes_of_others(store, &sandbox, (&tag.tagged(), &id))?,
    };
    let state = InstanceState::new(&tag, &answers, (secrets, id), request.script.source_date_epoch);
    let descriptor = publish(
        store,
        &image,
        (&tag, request.may_replace()),
        Some(state),
        &request.outputs,
        reporter,
    )?;
    if !left.is_empty() {
        reporter.warning(Warning::VolumesOfEarlierSetup { volumes: left, instance: tag.tagged() });
    }
    Ok(SetUp { descriptor, tag, environment })
}

/// Returns the base image and the tag, in this order. The specification's example swaps `-i` and `-t` with respect to
/// its synopsis; swapped arguments are accepted where they are unambiguous.
fn order(
    request: &SetupRequest,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<(Reference, Reference)> {
    let (image, tag) = (&request.image, &request.tag);
    let swapped = image.digest().is_none()
        && store.tag(image)?.is_none()
        && image_role::role_of_tag(store, tag)? == Some(ImageRole::Base);
    if !swapped {
        return Ok((image.clone(), tag.clone()));
    }
    let (given, base) = (image.tagged(), tag.tagged());
    reporter.note(ImageNote::ArgumentsSwapped { image: given, base }.into());
    Ok((tag.clone(), image.clone()))
}

/// Refuses requests that can't succeed, before any work is done.
fn check(request: &SetupRequest, store: &Store, base: &Reference, tag: &Reference) -> Result<()> {
    image_role::check_tag(tag)?;
    if tag.tagged() == base.tagged() && base.digest().is_none() {
        return Err(Error::usage(format!(
            "{} can't be both the base and the instance",
            tag.tagged()
        ))
        .hint("give the instance a name of its own with -t"));
    }
    output::check(&request.outputs)?;
    if request.update_pack && request.pack.is_none() {
        return Err(Error::usage("--update-pack needs a pack: -b PACK"));
    }
    image_role::check_for_instance(store, tag, request.may_replace())
}

/// Loads the base image, which `svp build` must have built.
fn base_image(
    request: &SetupRequest,
    store: &Store,
    base: &Reference,
) -> Result<(TagRecord, Image)> {
    let make = format!("create a base image with `svp build -b PACK -t {base}`");
    let found = store.resolve(base).map_err(|error| match error.kind() {
        Kind::BadInput => error.hint(format!(
            "{make}; `svp images` lists the existing ones; setup does not pull images"
        )),
        _ => error,
    })?;
    let image = store.load_image(&found.manifest)?;
    let (why, hint) = match image_role::role_of(&image) {
        ImageRole::Base => return Ok((found, image)),
        ImageRole::Instance
            if image_role::role_of_tag(store, &request.tag)? == Some(ImageRole::Base) =>
        {
            (
                "is an instance already",
                format!(
                    "the base image goes to -i and the instance's name to -t: -i {} -t {base}",
                    request.tag
                ),
            )
        }
        ImageRole::Instance => (
            "is an instance already",
            "name the base image that it was set up on, which `svp inspect` shows".to_owned(),
        ),
        ImageRole::Foreign => (
            "is not a base image that svp built",
            format!(
                "build on it with `svp build -b PACK -t REPO --base {base}`, and name REPO with -i"
            ),
        ),
    };
    Err(Error::bad_input(format!("{} {why}", base.tagged())).hint(hint))
}

/// Returns the pack that replaces the image's own, if requested; otherwise warns if they differ.
fn pack_update(
    request: &SetupRequest,
    pack: Option<&Pack>,
    image: &Image,
    reporter: &dyn Reporter,
) -> Result<Option<PackLayer>> {
    let Some(pack) = pack else { return Ok(None) };
    let pack_layer = PackLayer::new(pack)?;
    if image.config().label(LABEL_PACK) == Some(&pack_layer.digest().to_string()) {
        return Ok(None);
    }
    if request.update_pack {
        return Ok(Some(pack_layer));
    }
    reporter.warning(Warning::PackDiffers { pack: pack.path().display().to_string() });
    Ok(None)
}

impl SecretOptions {
    /// A value for each name: the user's own, the one that the instance has now, or a fresh one.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) for a secret that the pack doesn't ask for, or if there
    /// is no instance to take secrets from.
    pub(super) fn provide(
        &self,
        names: &[String],
        store: &Store,
        tag: &Reference,
    ) -> Result<Vec<(String, Secret)>> {
        if let Some((name, _)) = self.own.iter().find(|(name, _)| !names.contains(name)) {
            let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Error::usage(format!("the pack has no secret {name}"))
                .hint(format!("its secrets are: {list}")));
        }
        let kept = if self.keep { kept(store, tag)? } else { Vec::new() };
        let value = |name: &String| {
            let known = self.own.iter().chain(&kept).find(|(known, _)| known == name);
            Ok((name.clone(), known.map_or_else(Secret::generate, |(_, value)| Ok(value.clone()))?))
        };
        names.iter().map(value).collect()
    }
}

/// The secrets of the instance that has the tag.
fn kept(store: &Store, tag: &Reference) -> Result<Vec<(String, Secret)>> {
    let Some(record) = store.tag(tag)? else { return Ok(Vec::new()) };
    let state = InstanceState::load(store, &record.manifest)?.ok_or_else(|| {
        Error::usage(format!("{} has no secrets to keep", tag.tagged()))
            .hint("it is not an instance that was set up in this store; use --force")
    })?;
    Ok(state.secrets)
}

/// The lines that setup prints: secrets first, then the pack's environment, with `%IP` unexpanded.
pub(super) fn environment_lines(
    env: &[EnvVar],
    secrets: &[(String, Secret)],
) -> Vec<(String, String)> {
    let secrets = secrets.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    secrets.chain(env.iter().map(|v| (v.name.clone(), v.value.clone()))).collect()
}

/// Writes the image, its state, its tag and its outputs. Unless `replace` is set, the first of several concurrent
/// setups of the same tag wins, and the others change nothing.
pub(super) fn publish(
    store: &Store,
    image: &Image,
    (tag, replace): (&Reference, bool),
    state: Option<InstanceState>,
    outputs: &[Output],
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let descriptor = store.write_image(image)?;
    let created = image.config().created();
    let saved = if replace {
        state.map(|state| state.save(store, image)).transpose()?
    } else {
        claim(store, image, (tag, &descriptor), state)?
    };
    let finish = || {
        output::write(store, outputs, &descriptor, tag, reporter)?;
        if replace { store.set_tag(tag, &descriptor, created) } else { Ok(()) }
    };
    if let Err(error) = finish() {
        // Report this error, even if the clean-up fails too.
        if !replace {
            // Best effort: a later command removes the rest.
            let _ = store.remove_tag(tag);
        }
        if let Some(saved) = saved {
            saved.undo();
        }
        return Err(error);
    }
    Ok(descriptor)
}

/// Writes an image's state, then its tag. Instances with identical images share one state, so a later one must not
/// overwrite it.
fn claim(
    store: &Store,
    image: &Image,
    (tag, descriptor): (&Reference, &Descriptor),
    state: Option<InstanceState>,
) -> Result<Option<SavedInstanceState>> {
    let dir = store.layout().instances();
    let lock = File::open(&dir).io("open", &dir)?;
    lock.lock().io("lock", &dir)?;
    image_role::check_for_instance(store, tag, false)?;
    let saved = state.map(|state| state.save(store, image)).transpose()?;
    match store.set_new_tag(tag, descriptor, image.config().created()) {
        Ok(true) => Ok(saved),
        other => {
            if let Some(saved) = saved {
                saved.undo();
            }
            Err(other.err().unwrap_or_else(|| image_role::exists(tag)))
        }
    }
}
