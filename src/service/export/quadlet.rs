//! podman quadlet units: a container, or a pod of containers.
//!
//! The service keeps its address and its ports on the host, so that `%IP` and clients' settings stay valid.
//! podman itself creates volumes and fills new ones from the image. Secrets are podman secrets, referenced by name.

use super::super::health_watch::OnUnhealthy;
use super::super::mount::{Mount, MountSource};
use super::super::record::{Record, Restart};
use super::unit::{Dollar, Unit, line, word};
use super::{
    Exported, File, Model, Secrets, limits, linked_services, systemctl, systemd_timeout,
    unwritable, volumes_note,
};
use crate::error::{Error, Result};
use crate::sandbox::{Forward, Network, Transport};

const FORMAT: &str = "quadlet";

pub(super) fn export(model: &Model<'_>, secrets: Secrets) -> Result<Exported> {
    let name = &model.record.name;
    if secrets == Secrets::PodmanSecret {
        return Err(Error::usage("--secrets podman-4.3 is for --format kube"));
    }
    if secrets == Secrets::Only {
        let file = File { name: format!("{name}-secrets.sh"), text: script(model)?, secret: true };
        return Ok(Exported { files: vec![file], notes: Vec::new() });
    }
    let mut files = Vec::new();
    match &model.record.components[..] {
        [] => files.push(container(model, name, None)?),
        [only] => files.push(container(model, name, Some(only))?),
        several => {
            files.push(pod(model));
            for component in several {
                files.push(container(model, &format!("{name}-{component}"), Some(component))?);
            }
        }
    }
    Ok(Exported { files, notes: notes(model) })
}

fn file(name: String, unit: Unit) -> File {
    File { name, text: unit.into_text(), secret: false }
}

fn notes(model: &Model<'_>) -> Vec<String> {
    let name = &model.record.name;
    let mut notes = vec![
        format!("the units belong in {}, then: {}", directory(model), start_command(model)),
        model.image_note(),
    ];
    if !model.record.secrets.is_empty() {
        notes.push(format!("podman needs its secrets: {}", secrets_command(model)));
    }
    if !model.record.ports.is_empty() {
        notes.push(format!("they take the service's address: svp stop {name}, if it runs now"));
    }
    if model.record.host_access.host {
        notes.push(
            "--allow host is left out: in podman host.containers.internal is the host, not its loopback"
                .to_owned(),
        );
    }
    for link in linked_services(model.record) {
        notes.push(format!(
            "its link to {link} is left out: podman's containers can't reach that address"
        ));
    }
    if model.record.resources.pids.is_some() && model.record.components.len() > 1 {
        notes.push(
            "podman limits processes per container: every component gets the whole limit".into(),
        );
    }
    notes.push(volumes_note(name));
    if !model.system {
        notes.push(
            "a user's units start at boot, not at login, after: loginctl enable-linger".into(),
        );
    }
    notes
}

/// The comments at the top of the unit to start: all commands that are needed.
fn comments(model: &Model<'_>, podman: &str) -> Vec<String> {
    let mut commands = model.image_commands();
    if !model.record.secrets.is_empty() {
        commands.push(secrets_command(model));
    }
    commands.push(start_command(model));
    let head = format!("For podman {podman} or newer, in {}:", directory(model));
    std::iter::once(head).chain(commands.into_iter().map(|line| format!("  {line}"))).collect()
}

/// The directories that podman's generator reads.
fn directory(model: &Model<'_>) -> &'static str {
    if model.system { "/etc/containers/systemd" } else { "~/.config/containers/systemd" }
}

/// The command that starts the service once its units exist. At boot the generator's `WantedBy=` link does so;
/// `systemctl enable` rejects generated units.
fn start_command(model: &Model<'_>) -> String {
    let control = systemctl(model.system);
    // quadlet names services after their units, and adds a suffix for pods.
    let ending = if model.record.components.len() > 1 { "-pod" } else { "" };
    format!("{control} daemon-reload && {control} start {}{ending}", model.record.name)
}

fn secrets_command(model: &Model<'_>) -> String {
    format!("svp export {} --format quadlet --secrets only | sh", model.record.name)
}

fn pod(model: &Model<'_>) -> File {
    let name = &model.record.name;
    let mut unit = Unit::new(&comments(model, "5.0"));
    unit.section("Unit").set("Description", description(model, None));
    unit.section("Pod").set("PodName", name);
    network(model, &mut unit);
    podman_arguments(&mut unit, limits::podman(&model.record.resources));
    // By default a pod's host name is its name.
    if model.record.network != Network::Host && model.record.hostname() != name {
        podman_arguments(&mut unit, vec![format!("--hostname={}", model.record.hostname())]);
    }
    if let Some(seconds) = model.record.stop_seconds {
        // quadlet's own ExecStop, which follows this one, allows ten seconds.
        unit.section("Service")
            .set("ExecStop", format!("podman pod stop --ignore --time={seconds} {name}"))
            .set("TimeoutStopSec", systemd_timeout(seconds));
    }
    unit.section("Install").set("WantedBy", "default.target");
    file(format!("{name}.pod"), unit)
}

fn description(model: &Model<'_>, component: Option<&str>) -> String {
    let name = &model.record.name;
    match component {
        Some(component) => format!("{component} of the service {name}").replace('%', "%%"),
        None => format!("{name}, a service of {}", model.image),
    }
}

/// The network and the ports, of a container or a pod.
fn network(model: &Model<'_>, unit: &mut Unit) {
    match model.record.network {
        Network::Private => {
            for forward in model.record.ports.iter().chain(&model.record.published) {
                unit.set("PublishPort", publish(forward));
            }
        }
        Network::Host => {
            unit.set("Network", "host");
        }
        Network::None => {
            unit.set("Network", "none");
        }
    }
}

/// Sets options of podman for which quadlet has no key, or only in recent versions.
fn podman_arguments(unit: &mut Unit, options: Vec<String>) {
    if !options.is_empty() {
        unit.set("PodmanArgs", options.join(" "));
    }
}

/// The options for the stop signal and its time. quadlet's keys for them are younger than podman 5.0.
fn stop(model: &Model<'_>) -> Vec<String> {
    let signal = model.stop_signal.map(|signal| format!("--stop-signal={signal}"));
    let seconds = model.record.stop_seconds.map(|seconds| format!("--stop-timeout={seconds}"));
    signal.into_iter().chain(seconds).collect()
}

fn publish(forward: &Forward) -> String {
    let udp = if forward.protocol == Transport::Udp { "/udp" } else { "" };
    format!("{}:{}{udp}", forward.host, forward.container)
}

/// The unit of a container: of the whole service, or of one component of several, which are a pod.
fn container(model: &Model<'_>, name: &str, component: Option<&str>) -> Result<File> {
    let record = model.record;
    let in_pod = record.components.len() > 1;
    let is_first = component.is_none_or(|name| record.components[0] == name);
    // Like pods, Entrypoint= needs podman 5.0.
    let podman = if model.entrypoint.is_some() { "5.0" } else { "4.6" };
    let mut unit = Unit::new(&if in_pod { Vec::new() } else { comments(model, podman) });
    let described = description(model, component.filter(|_| in_pod));
    unit.section("Unit").set("Description", described);
    if let Restart::OnFailure(Some(most)) = record.restart {
        // An interval longer than any series of failures.
        unit.set("StartLimitIntervalSec", "1d").set("StartLimitBurst", most.saturating_add(1));
    }
    unit.section("Container").set("ContainerName", name).set("Image", &model.image);
    if !model.in_registry {
        unit.set("Pull", "never");
    }
    // As PID 1 a component would have to reap orphans, and would ignore SIGTERM without a handler of its own.
    unit.set("RunInit", "true");
    if in_pod {
        unit.set("Pod", format!("{}.pod", record.name));
    } else {
        if record.network != Network::Host {
            unit.set("HostName", record.hostname());
        }
        network(model, &mut unit);
    }
    // A pod's containers share its limits of memory and CPUs, but podman limits processes per container.
    let shared = if in_pod { Vec::new() } else { limits::podman(&record.resources) };
    let own = limits::podman_pids(&record.resources);
    podman_arguments(&mut unit, shared.into_iter().chain(own).chain(stop(model)).collect());
    if let Some(entrypoint) = model.entrypoint {
        let value =
            line(entrypoint).ok_or_else(|| unwritable("the entrypoint", entrypoint, FORMAT))?;
        unit.set("Entrypoint", value);
    }
    if let Some(component) = component {
        unit.set("Exec", word(component, Dollar::Doubled));
    }
    if let Some(cwd) = model.cwd {
        unit.set("WorkingDir", line(cwd).ok_or_else(|| unwritable("the directory", cwd, FORMAT))?);
    }
    variables(model, &mut unit);
    for mount in &record.mounts {
        unit.set("Volume", volume(mount)?);
    }
    if let Some(health) = record.health.as_deref().filter(|_| is_first) {
        unit.set("HealthCmd", health_command(health)?);
        watch(record, &mut unit);
    }
    let restart = if record.restart == Restart::Always { "always" } else { "on-failure" };
    unit.section("Service").set("Restart", restart);
    if let Some(seconds) = record.stop_seconds {
        unit.set("TimeoutStopSec", systemd_timeout(seconds));
    }
    if !in_pod {
        unit.section("Install").set("WantedBy", "default.target");
    }
    Ok(file(format!("{name}.container"), unit))
}

/// The times of the health check. podman can't restart a container that systemd manages; systemd does.
fn watch(record: &Record, unit: &mut Unit) {
    let Some(watch) = &record.health_watch else {
        unit.set("HealthInterval", "30s").set("HealthTimeout", "10s");
        return;
    };
    unit.set("HealthInterval", format!("{}s", watch.interval))
        .set("HealthTimeout", format!("{}s", watch.timeout))
        .set("HealthRetries", watch.retries);
    if watch.start_period > 0 {
        unit.set("HealthStartPeriod", format!("{}s", watch.start_period));
    }
    if watch.on_failure == OnUnhealthy::Restart {
        unit.set("HealthOnFailure", "kill");
    }
}

fn variables(model: &Model<'_>, unit: &mut Unit) {
    for (name, value) in model.environment(&model.record.ip().to_string()) {
        unit.set("Environment", word(&format!("{name}={value}"), Dollar::Doubled));
    }
    for (variable, _) in &model.record.secrets {
        unit.set("Secret", format!("{},type=env,target={variable}", secret_name(model, variable)));
    }
}

/// Formats a shell command: verbatim, or as a JSON list if podman would interpret its first word or a line can't
/// express it.
fn health_command(health: &str) -> Result<String> {
    let first = health.split_whitespace().next().unwrap_or_default();
    let is_podmans = ["none", "cmd", "cmd-shell"].contains(&first.to_ascii_lowercase().as_str());
    if !is_podmans
        && !health.starts_with('[')
        && let Some(value) = line(health)
    {
        return Ok(value);
    }
    let list = serde_json::json!(["/bin/sh", "-c", health]).to_string();
    line(&list).ok_or_else(|| unwritable("the health command", health, FORMAT))
}

/// Formats a volume for podman's `-v`, which can't express a colon. quadlet interprets a source that ends in `.volume`
/// as a unit.
fn volume(mount: &Mount) -> Result<String> {
    let read_only = if mount.read_only { ":ro" } else { "" };
    let source = match &mount.source {
        // No `.volume` unit: if that fails once at boot, as the first command of podman 5.4 after a power cut does,
        // the units that depend on it never start.
        MountSource::Volume(name) => name.clone(),
        MountSource::Host(path) => path.clone(),
    };
    let text = format!("{source}:{}", mount.at);
    let value =
        line(&text).filter(|_| text.matches(':').count() == 1 && !source.ends_with(".volume"));
    let value = value.ok_or_else(|| unwritable("the volume", &text, FORMAT))?;
    Ok(format!("{value}{read_only}"))
}

fn secret_name(model: &Model<'_>, variable: &str) -> String {
    format!("{}-{variable}", model.record.name)
}

/// Returns shell commands that create the podman secrets. No value appears on a command line, because printf is a
/// shell builtin.
fn script(model: &Model<'_>) -> Result<String> {
    if model.record.secrets.is_empty() {
        return Err(Error::usage(format!("{} has no secrets", model.record.name)));
    }
    let mut text = String::from("set -eu\n");
    for (variable, secret) in &model.record.secrets {
        let name = secret_name(model, variable);
        let value = secret.expose().replace('\'', r"'\''");
        text += &format!("podman secret rm {name} >/dev/null 2>&1 || true\n");
        text += &format!("printf %s '{value}' | podman secret create {name} -\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_commands() {
        let cases = [
            ("/service/bin/client ping", "/service/bin/client ping"),
            ("test $x = 5%", "test $$x = 5%%"),
            ("test a = \"b\"", r#"["/bin/sh","-c","test a = \"b\""]"#),
            ("none of it", r#"["/bin/sh","-c","none of it"]"#),
            ("[ -e\t/x ]", r#"["/bin/sh","-c","[ -e\t/x ]"]"#),
            ("a\\", r#"["/bin/sh","-c","a\\"]"#),
        ];
        for (health, expected) in cases {
            assert_eq!(health_command(health).unwrap(), expected);
        }
    }
}
