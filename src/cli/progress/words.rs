//! Formats events as text.

use std::time::Duration;

use super::super::table::size;
use crate::progress::{
    BackupDirection, BackupNote, BackupProgress, Event, ImageNote, Note, PortReason, ServiceNote,
    Step, Warning,
};
use crate::shell_words::{quote, quote_path};

/// Formats an event as a line of text; `None` for transfers and script output.
pub(crate) fn line(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Step(step) => self::step(step),
        Event::Note(note) => format!("note: {}", self::note(note)),
        Event::Warning(warning) => format!("warning: {}", self::warning(warning)),
        Event::Retry(retry) => format!(
            "note: {} (attempt {} of {}): trying again in {}",
            retry.reason,
            retry.attempt,
            retry.attempts,
            seconds(retry.delay)
        ),
        Event::BackupProgress(progress) => {
            let BackupProgress { service, direction, done, total, finished } = progress;
            let what = match direction {
                BackupDirection::Backup => "backup",
                BackupDirection::Restore => "restore",
            };
            let of = total.map_or(String::new(), |total| format!(" of {}", size(total)));
            let so_far = if *finished { ", done" } else { " so far" };
            format!("{what} of {service}: {}{of}{so_far}", size(*done))
        }
        Event::Transfer(_) | Event::Transferred { .. } | Event::ScriptOutput(_) => return None,
    })
}

fn seconds(delay: Duration) -> String {
    format!("{:.1} s", delay.as_secs_f32())
}

/// Returns the first 12 hexadecimal digits of a digest, as in tables.
pub(super) fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

fn step(step: &Step) -> String {
    match step {
        Step::Pull { source } => format!("pulling {source}"),
        Step::Push { digest, destination } => format!("pushing {digest} to {destination}"),
        Step::Load { file } => format!("loading {file}"),
        Step::Import { input, reference } => format!("importing {input} as {reference}"),
        Step::Write { reference, destination } => format!("writing {reference} to {destination}"),
        Step::BaseImage { source } => format!("base image {source}"),
        Step::ReadLayer { digest } => format!("reading layer {}", short(digest)),
        Step::UnpackLayer { digest } => format!("unpacking layer {}", short(digest)),
        Step::CompressLayer { digest, compression } => {
            format!("compressing layer {} with {compression}", short(digest))
        }
        Step::DecompressLayer { digest } => format!("decompressing layer {}", short(digest)),
        Step::RunScript { script, phase: Some(phase) } => format!("running {script} {phase}"),
        Step::RunScript { script, phase: None } => format!("running {script}"),
        Step::WriteLayer => "writing the layer".into(),
        Step::Built { reference, digest } => format!("built {reference} {digest}"),
        Step::SetUp { reference, digest } => format!("set up {reference} {digest}"),
        Step::LoggedIn { registry, keeper } => {
            format!("logged in to {registry}; saved in {keeper}")
        }
        Step::LoggedOut { registry } => format!("logged out of {registry}"),
        Step::LoginsRemoved { file } => format!("removed all logins from {file}"),
        Step::CreateVolume { volume, at } => format!("creating volume {volume} for {at}"),
        Step::StopService => "stopping".into(),
        Step::NotRunning { service } => format!("{service} is not running"),
        Step::WaitForStop { service, signal, seconds } => {
            format!("waiting for {service} to end: SIGKILL follows {seconds} s after {signal}")
        }
        Step::WaitForContainer { service } => {
            format!("waiting for the processes of the last container of {service} to end")
        }
        Step::WaitForHealth { service } => format!("waiting until {service} is healthy"),
        Step::RunHealthCommand { service } => format!("running the health command of {service}"),
        Step::RemoveService { service } => format!("removing the files of {service}"),
        Step::WaitForStore => {
            "waiting for another svp process that removes files from the store".into()
        }
        Step::WaitForLayer { digest } => {
            format!("waiting for another svp process that unpacks layer {}", short(digest))
        }
        Step::WaitForServer { server } => format!("waiting for an answer of {server}"),
        Step::MeasureStore => "measuring the store".into(),
        Step::PruneStore => "pruning the store".into(),
        Step::RemoveImages => "removing images, and the layers that no other image needs".into(),
        Step::RunQuery { key } => format!("running bin/query {key}"),
        Step::ExportVolume { volume } => format!("exporting the volume {volume}"),
        Step::ImportVolume { volume } => format!("importing the volume {volume}"),
        Step::MeasureVolumes => "measuring the volumes".into(),
        Step::SyncFiles => "writing the files to disk".into(),
        Step::ReadBackup { service, image, created } => {
            format!("a backup of {service} ({image}) of {created}")
        }
        Step::Upgrade { service, image, digest } => {
            format!("upgrading {service} to {image} ({})", short(digest))
        }
        Step::CopyVolumes => "copying the volumes".into(),
        Step::StartCopy => "starting a fresh copy of the service".into(),
        Step::UnpackBackup => "unpacking the backup into a fresh copy of the service".into(),
        Step::Cutover => "the fresh copy is healthy: it replaces the old one".into(),
        Step::CheckBlobs => "checking the blobs".into(),
        Step::CheckImages => "checking the images".into(),
        Step::CheckImageFiles => "checking cached facts and instances".into(),
        Step::CheckUnpackedLayers => "checking the unpacked layers".into(),
    }
}

fn note(note: &Note) -> String {
    match note {
        Note::Image(note) => image_note(note),
        Note::Service(note) => service_note(note),
        Note::Backup(note) => backup_note(note),
    }
}

fn image_note(note: &ImageNote) -> String {
    match note {
        ImageNote::OciManifest { digest, docker_digest } => format!(
            "the manifest {docker_digest} has Docker's format: the image layout gets an OCI manifest, {digest}, with \
             the same config and layers"
        ),
        ImageNote::EntriesSkipped { count: 1 } => {
            "skipped 1 entry of the index that is not an image".into()
        }
        ImageNote::EntriesSkipped { count } => {
            format!("skipped {count} entries of the index that are not images")
        }
        ImageNote::SeveralImages { directory, reference } => format!(
            "{directory} contains several images: `podman load` can't tell them apart; use \
             `skopeo copy {} containers-storage:{reference}`",
            quote(&format!("oci:{directory}:{reference}"))
        ),
        ImageNote::SocketSkipped { path } => {
            format!("skipped the socket {path}: a layer can't contain sockets")
        }
        ImageNote::ChangesDropped { paths } => format!(
            "not in the image, since svp provides these files anew in each container: {}; change them in bin/run instead",
            paths.join(", ")
        ),
        ImageNote::UnmappedUsers { names } => format!(
            "no file can belong to these new users or groups, and nothing can run as them, since the container              does not have their ids: {}; `svp check` shows how to get more ids",
            names.join(", ")
        ),
        ImageNote::ArgumentsSwapped { image, base } => format!(
            "there is no image {image}, and {base} is a base image: setting up {image} on it, \
             as with `-i {base} -t {image}`"
        ),
        ImageNote::LogShortened { path, dropped } => format!(
            "the log keeps the start and the end of the script's output: {} are left out of {path}",
            size(*dropped)
        ),
        ImageNote::DeviceNotCreated { path, major, minor } => {
            format!("{path}: no permission to create the device {major}:{minor}")
        }
        ImageNote::OwnerNotSet { path, uid, gid } => {
            format!("{path}: no permission to change its owner to {uid}:{gid}")
        }
        ImageNote::XattrNotSet { path, name } => {
            format!("{path}: can't set the attribute {name}")
        }
        ImageNote::SetIdDropped { path, mode } => format!(
            "{path}: without setuid and setgid ({mode}): its owner would be you, and others could run it as you"
        ),
        ImageNote::CapabilityConfined { path } => {
            format!("{path}: its capabilities have no effect on this host: only root can give them")
        }
        ImageNote::SetIdKept { directory } => format!(
            "{directory} contains setuid or setgid programs, which every user who can enter it can run as their \
             owners: keep it in a directory that only root can enter"
        ),
        ImageNote::KeywordsIgnored { tar, keywords } => format!(
            "{tar}: without effect, as in other tools: {} (of global headers, or ACLs by name)",
            keywords.join(", ")
        ),
        ImageNote::MoreNotSet { count } => format!("and {count} more"),
        ImageNote::PackCreated { directory, name } => {
            format!("build it with `svp build -b {} -t {name}`", quote_path(directory))
        }
        ImageNote::LayersKept => {
            "the layers stay for now: the store is in use or another image is damaged".into()
        }
        ImageNote::ImageInUse { image, services } => format!(
            "the image that {image} named stays, without that name: services have it: {}",
            services.join(", ")
        ),
        ImageNote::Freed { bytes, dry_run: true } => format!("{} would be freed", size(*bytes)),
        ImageNote::Freed { bytes, dry_run: false } => format!("{} freed", size(*bytes)),
    }
}

fn service_note(note: &ServiceNote) -> String {
    match note {
        ServiceNote::HostNetwork { reason } => format!("{reason}: using the host's network"),
        ServiceNote::NoNetwork { reason } => format!("{reason}: there is no network"),
        ServiceNote::PublishedWithoutNetwork => {
            "-p has no effect without a private network: with --network host the service listens on the \
             host itself"
                .into()
        }
        ServiceNote::VolumeIgnored { path, reason } => {
            format!("the image's volume at {path} is left out: {reason}")
        }
        ServiceNote::AddressMoved { service, from, to } => {
            format!("{from} is used by another service: {service} now has the address {to}")
        }
        ServiceNote::PortMoved { port, to, reason: PortReason::Privileged } => {
            format!("port {port} needs a privilege on this host: using {to} instead")
        }
        ServiceNote::PortMoved { port, to, reason: PortReason::InUse } => format!(
            "another program uses port {port} on all of this host's addresses: using {to} instead"
        ),
        ServiceNote::PortTaken { port } => {
            format!("another program already uses port {port} on this host: `ss -lnp` shows it")
        }
        ServiceNote::ContainerKilled => "the container was killed".into(),
        ServiceNote::NoLimits { reason }
        | ServiceNote::ContainerNotStarted { reason }
        | ServiceNote::ComponentNotStarted { reason }
        | ServiceNote::LogLost { reason } => reason.clone(),
        ServiceNote::ContainerRestart { delay_ms } => {
            format!("restarting the container in {}", milliseconds(*delay_ms))
        }
        ServiceNote::ComponentRestart { component, end, delay_ms } => {
            format!("{component} {end}; restarting in {}", milliseconds(*delay_ms))
        }
        ServiceNote::ComponentStuck => {
            "a component does not exit after SIGKILL: killing the whole container".into()
        }
        ServiceNote::Unhealthy { reason } => format!("unhealthy: {reason}"),
        ServiceNote::UnhealthyRestart => "restarting since it is unhealthy".into(),
        ServiceNote::Healthy => "healthy again".into(),
        ServiceNote::StopTimedOut { components, signal, seconds } => format!(
            "{} did not end within {seconds} s of {signal}, and was killed: give it more time with --time SECONDS, or \
             let its pack answer `bin/query stop`",
            components.join(", ")
        ),
        ServiceNote::LogsWritten => "the logs can be written again".into(),
        ServiceNote::NetworkRestored => {
            "the network was restored: its helper process had died".into()
        }
        ServiceNote::NetworkLost { reason } => format!("the network is lost: {reason}"),
        ServiceNote::OutOfMemory => {
            "out of memory: the kernel killed a process of the service; allow more with --memory"
                .into()
        }
        ServiceNote::NotAtBoot { service } => format!(
            "the service is not started at boot; `svp export {service} --format systemd` creates a unit that starts it"
        ),
        ServiceNote::TagMoved { service, image, running, tagged } => format!(
            "{service} has the image {}, but {image} is {} now: `svp upgrade {service}` takes it",
            short(running),
            short(tagged)
        ),
        ServiceNote::UpToDate { service, image, digest } => {
            format!("nothing to do: {service} has the image {image} ({}) already", short(digest))
        }
        ServiceNote::FilesLeft { service } => format!(
            "files that {service} wrote outside of its volumes are those of the new image now"
        ),
        ServiceNote::LinkedBy { service, users } => {
            format!("linked to {service}, and can't start without it: {}", users.join(", "))
        }
        ServiceNote::VolumeShared { volume } => {
            format!("keeping the volume {volume}: another service uses it")
        }
        ServiceNote::VolumesKept { volumes } => format!(
            "keeping the data in {}; `svp volume rm {}` removes it",
            volumes.join(", "),
            volumes.join(" ")
        ),
        ServiceNote::VolumeRemoved { volume } => format!("removed the volume {volume}"),
        ServiceNote::SecretsHidden => {
            "secrets are hidden on a terminal; add --show-secrets to print them".into()
        }
        ServiceNote::Export { message } => message.clone(),
    }
}

fn milliseconds(delay: u64) -> String {
    seconds(Duration::from_millis(delay))
}

fn backup_note(note: &BackupNote) -> String {
    match note {
        BackupNote::CopiesFiles { service, stopped } => {
            let stopped =
                if *stopped { format!("{service} is stopped while ") } else { String::new() };
            format!(
                "the pack has no bin/backup: {stopped}its volumes and its other files are copied"
            )
        }
        BackupNote::HostPathSkipped { path, at } => {
            format!("not in the backup: the host directory {path}, mounted at {at}")
        }
        BackupNote::NoHeader => "the backup has no header".into(),
        BackupNote::NoRestoreScript => {
            "the pack has no bin/restore, so svp can't restore this backup".into()
        }
        BackupNote::Verified => "verified: a copy restored from this backup is healthy".into(),
        BackupNote::CopyRemoved { service, dry_run } => {
            let done = if *dry_run { "would be removed" } else { "removed" };
            format!("{done}: leftovers of a killed restore of {service}")
        }
    }
}

fn warning(warning: &Warning) -> String {
    match warning {
        Warning::StoredImageUsed { reason } => format!("{reason}; using the image in the store"),
        Warning::OtherPlatform { offered, wanted } => {
            format!("the image is for {offered}, not for {wanted}")
        }
        Warning::NotVerified { policy, source } => format!(
            "the policy {policy} requires {source} to be signed; svp does not verify it, as --allow-unverified says"
        ),
        Warning::ProcessesKilled { processes, memory } => format!(
            "the kernel killed {processes} of the script's processes, which were over --memory ({}), but the script \
             succeeded: its files may be incomplete",
            size(*memory)
        ),
        Warning::ProcessesRefused { pids } => format!(
            "the script had all the {pids} processes and threads that --pids allows, and succeeded: if it needed more, \
             its files may be incomplete"
        ),
        Warning::PackDiffers { pack } => format!(
            "{pack} is not the pack that the base image was built with; the image's own is used \
             (--update-pack replaces it with yours, `svp build` builds a new base)"
        ),
        Warning::ContainerNetwork { reason, evidence } => {
            format!("{reason}: using the network of the container that svp runs in ({evidence})")
        }
        Warning::Unreadable { holder, reason } => {
            format!("{holder} can't be read: {reason}")
        }
        Warning::PruneBlocked { holder, reason } => {
            format!("{holder} can't be read, so nothing can be pruned: {reason}")
        }
        Warning::LayersUnreadable { reason } => {
            format!("can't check the unpacked layers: {reason}")
        }
        Warning::ServiceUnreadable { reason } => reason.clone(),
        Warning::ServiceDiscarded { reason } => {
            format!("{reason}; `svp prune` removes its files")
        }
        Warning::LinkVariables { service, link, variables, winner } => format!(
            "the link {link} of {service} sets variables that others set too ({}): {service} gets those of {winner}; \
             an alias, --link NAME:ALIAS, keeps them apart",
            variables.join(", ")
        ),
        Warning::SharedVolume { service, volume } => format!(
            "{service} is running with the same volume, {volume}: its files may change while they are copied"
        ),
        Warning::VolumeOfUnknownSetup { volume } => format!(
            "the volume {volume} was created with secrets that svp does not know any more: if those that you gave are \
             others, nobody can log in"
        ),
        Warning::VolumesOfEarlierSetup { volumes, instance } => format!(
            "{} has data with the secrets of an earlier setup of {instance}: `svp run {instance}` will refuse it; \
             `svp volume rm` removes it, `svp setup --keep-secrets` keeps the secrets",
            volumes.join(", ")
        ),
        Warning::OtherImage { image, digest } => {
            format!("the backup was created with another image named {image}: {}", short(digest))
        }
        Warning::BackupEmpty => "the backup is empty: bin/backup printed nothing".into(),
        Warning::BackupFailed { exit_code, file, file_kept } => {
            let kept = file.as_ref().map_or(String::new(), |file| match file_kept {
                true => format!(": {file} is unchanged"),
                false => format!(": {file} was not written"),
            });
            format!("bin/backup exited with {exit_code}{kept}")
        }
        Warning::RestoreFailed { exit_code, verifying: true } => {
            format!("bin/restore exited with {exit_code}: the backup can't be restored")
        }
        Warning::RestoreFailed { exit_code, verifying: false } => {
            format!("bin/restore exited with {exit_code}: not restored, everything is as it was")
        }
    }
}
