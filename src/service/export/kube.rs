//! Kubernetes objects: ConfigMap, Secret, Deployment and Service.
//!
//! The pod's host name and the Service's name are the same, so that the name that replaces `%IP` is valid both in the
//! pod and for its clients.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::record::Record;
use super::names::{is_variable, label, labels};
use super::objects::{app_label, argument, container, object};
use super::volumes::{Claims, init_container, volume_mount, volumes};
use super::yaml::Yaml;
use super::{Exported, File, Model, Secrets, limits, linked_services, unwritable, volumes_note};
use crate::error::{Error, Result};
use crate::sandbox::{Forward, Network, Transport};

pub(super) fn export(model: &Model<'_>, secrets: Secrets) -> Result<Exported> {
    let name = label(&model.record.name);
    let has_secrets = !model.record.secrets.is_empty();
    if matches!(secrets, Secrets::Only | Secrets::PodmanSecret) {
        return secret_alone(model, &name, secrets);
    }
    let mut files = Vec::new();
    if has_secrets && secrets != Secrets::Without {
        let text = secret(model, &name, secrets == Secrets::Masked).document();
        files.push(File { name: format!("{name}-secret.yaml"), text, secret: true });
    }
    let env = model.environment(&name);
    if let Some((name, _)) = env.iter().find(|(name, _)| !is_variable(name)) {
        return Err(unwritable("the variable", name, "kube"));
    }
    let config = (!env.is_empty()).then(|| config_map(&name, env));
    let mut documents: Vec<Yaml> = config.clone().into_iter().collect();
    let claims = Claims::new(model);
    documents.extend(claims.objects(&name));
    documents.push(deployment(model, &name, &claims, config.as_ref()));
    if !model.ports.is_empty() && model.record.network != Network::None {
        documents.push(service(model, &name));
    }
    let documents: Vec<String> = documents.iter().map(Yaml::document).collect();
    let text = documents.join("---\n");
    files.push(File { name: format!("{name}.yaml"), text, secret: false });
    Ok(Exported { files, notes: notes(model, &name, secrets) })
}

/// Exports only the secrets.
fn secret_alone(model: &Model<'_>, name: &str, secrets: Secrets) -> Result<Exported> {
    if model.record.secrets.is_empty() {
        return Err(Error::usage(format!("{} has no secrets", model.record.name)));
    }
    let (ending, text) = if secrets == Secrets::Only {
        ("yaml", secret(model, name, false).document())
    } else {
        let pairs = model.record.secrets.iter();
        let pairs = pairs
            .map(|(variable, secret)| (variable.clone(), BASE64.encode(secret.expose()).into()));
        ("json", format!("{}\n", serde_json::Value::Object(pairs.collect())))
    };
    let file = File { name: format!("{name}-secret.{ending}"), text, secret: true };
    Ok(Exported { files: vec![file], notes: Vec::new() })
}

fn notes(model: &Model<'_>, name: &str, secrets: Secrets) -> Vec<String> {
    let own = &model.record.name;
    let mut notes = vec![model.image_note()];
    if !model.in_registry {
        notes.push(
            "for a cluster, push the image to a registry, and give its name there with --image"
                .into(),
        );
    }
    if secrets == Secrets::Without && !model.record.secrets.is_empty() {
        notes.push(format!(
            "the Secret {name} is left out: svp export {own} --format kube --secrets only | kubectl apply -f -"
        ));
    }
    if !model.record.secrets.is_empty() {
        notes.push(format!(
            "podman before 4.4 can't use a Secret for an environment: create it with svp export {own} --format kube \
             --secrets podman-4.3 | podman secret create {name} -, and play the rest, --secrets without"
        ));
    }
    if secrets == Secrets::Masked {
        notes.push("secrets are hidden on a terminal; add --show-secrets to print them".into());
    }
    if model.record.network == Network::None {
        notes.push(
            "Kubernetes has no pods without a network: this pod has one, but no Service".into(),
        );
    }
    if model.record.host_access.host {
        notes.push("--allow host is left out: a pod can't reach its node's loopback".to_owned());
    }
    if let Some(signal) = model.stop_signal.filter(|_| !model.stop_signal_in_image) {
        notes.push(format!(
            "Kubernetes stops with the signal that the image names, which is not {signal}: build the image again"
        ));
    }
    notes.extend(link_notes(model.record));
    if !model.record.resources.is_unbounded() && model.record.components.len() > 1 {
        notes.push(
            "Kubernetes limits each container: every component gets the whole limit here".into(),
        );
    }
    if model.record.resources.pids.is_some() {
        notes.push(
            "--pids is left out: the cluster decides how many processes a pod may have".into(),
        );
    }
    if !model.volumes().is_empty() {
        notes.push("each volume requests 1Gi: change that to the size needed".into());
    }
    notes.push(volumes_note(own));
    notes
}

fn link_notes(record: &Record) -> Vec<String> {
    let mut notes = Vec::new();
    for link in linked_services(record) {
        notes.push(format!("it uses {link}: svp export {link} --format kube, too"));
    }
    for link in &record.links {
        let (inside, service) = (link.host_name(), label(&link.service));
        if inside != service {
            notes.push(format!(
                "the link's name {inside} is left out: in Kubernetes it is {service}"
            ));
        }
    }
    if record.links.iter().any(|link| link.alias.is_some()) {
        notes.push("podman ignores the prefix of an alias's variables; Kubernetes adds it".into());
    }
    notes
}

fn secret(model: &Model<'_>, name: &str, masked: bool) -> Yaml {
    let data = model.record.secrets.iter().map(|(variable, secret)| {
        // Values of `data` are in base64.
        let value = if masked { "********".into() } else { BASE64.encode(secret.expose()) };
        (variable.clone(), value.into())
    });
    object("v1", "Secret", name, name)
        .with("type", "Opaque")
        .with("data", Yaml::Map(data.collect()))
}

fn config_map(name: &str, env: Vec<(String, String)>) -> Yaml {
    let data = env.into_iter().map(|(name, value)| (name, value.into()));
    object("v1", "ConfigMap", name, name).with("data", Yaml::Map(data.collect()))
}

/// podman's annotation for init containers: by default podman removes them once they have ended, and podman 4.3 fails
/// to do so if they run for long.
const INIT_TYPE: &str = "io.podman.annotations.init.container.type";

fn deployment(model: &Model<'_>, name: &str, claims: &Claims<'_>, config: Option<&Yaml>) -> Yaml {
    let template = Yaml::from([
        ("metadata", [("labels", app_label(name))].into()),
        ("spec", pod(model, name, claims, config)),
    ]);
    let spec = Yaml::from([
        ("replicas", 1u16.into()),
        // Two pods at once would write to the same volumes.
        ("strategy", [("type", "Recreate".into())].into()),
        ("selector", [("matchLabels", app_label(name))].into()),
        ("template", template),
    ]);
    let metadata = Yaml::from([("name", name.into()), ("labels", app_label(name))]);
    let keep = model.volume_mounts().next().map(|_| Yaml::from([(INIT_TYPE, "always".into())]));
    Yaml::from([
        ("apiVersion", "apps/v1".into()),
        ("kind", "Deployment".into()),
        ("metadata", metadata.with_some("annotations", keep)),
        ("spec", spec),
    ])
}

fn pod(model: &Model<'_>, name: &str, claims: &Claims<'_>, config: Option<&Yaml>) -> Yaml {
    let on_host = model.record.network == Network::Host;
    let mut spec = if on_host {
        Yaml::from([("hostNetwork", true.into()), ("dnsPolicy", "ClusterFirstWithHostNet".into())])
    } else {
        Yaml::from([("hostname", name.into())])
    };
    spec = spec
        .with("automountServiceAccountToken", false)
        // As PID 1 a component would have to reap orphans, and would ignore SIGTERM without a handler of its own.
        // svp's own container has an init too.
        .with("shareProcessNamespace", true)
        // Otherwise Kubernetes' own variables, such as REDIS_PORT, could be mistaken for the pack's.
        .with("enableServiceLinks", false);
    let mounted: Vec<_> = model.volume_mounts().collect();
    let grace = model.record.stop_seconds.map(|seconds| Yaml::Number(seconds.into()));
    spec = spec.with_some("terminationGracePeriodSeconds", grace);
    if !mounted.is_empty() {
        spec = spec.with("initContainers", vec![init_container(model, claims)]);
    }
    let containers = containers(model, name, claims, config);
    spec = spec.with("containers", containers).with("restartPolicy", "Always");
    let volumes = volumes(model, claims);
    spec.with_some("volumes", (!volumes.is_empty()).then_some(volumes))
}

fn containers(
    model: &Model<'_>,
    name: &str,
    claims: &Claims<'_>,
    config: Option<&Yaml>,
) -> Vec<Yaml> {
    let record = model.record;
    let names = if record.components.is_empty() {
        vec![name.to_owned()]
    } else {
        labels(&record.components)
    };
    let mut sources: Vec<Yaml> = Vec::new();
    // Optional: a linked service may have no variables or no secrets.
    for link in &record.links {
        let name = label(&link.service);
        for kind in ["configMapRef", "secretRef"] {
            let optional = [("name", name.as_str().into()), ("optional", true.into())].into();
            let prefix = link.alias.is_some().then(|| link.prefix());
            sources.push(Yaml::from([(kind, optional)]).with_some("prefix", prefix));
        }
    }
    if config.is_some() {
        sources.push([("configMapRef", [("name", name.into())].into())].into());
    }
    if !record.secrets.is_empty() {
        sources.push([("secretRef", [("name", name.into())].into())].into());
    }
    let mounts: Vec<Yaml> = record.mounts.iter().map(|mount| volume_mount(mount, claims)).collect();
    let mut out = Vec::new();
    for (index, (name, command)) in names.iter().zip(record.commands()).enumerate() {
        let command: Vec<Yaml> = command.iter().map(|word| argument(word).into()).collect();
        let mut one = container(model, name).with("command", command);
        one = one.with_some("workingDir", model.cwd);
        if !sources.is_empty() {
            one = one.with("envFrom", sources.clone());
        }
        one = one.with_some("resources", limits::kubernetes(&record.resources));
        if index == 0 {
            let ports = container_ports(model);
            one = one.with_some("ports", (!ports.is_empty()).then_some(ports));
        }
        for (kind, probe) in probes(model, index) {
            one = one.with(kind, probe);
        }
        out.push(one.with_some("volumeMounts", (!mounts.is_empty()).then(|| mounts.clone())));
    }
    out
}

/// Returns a container's probes. Health concerns the whole service, so only the first container checks it. A failure
/// restarts that container only if the pod has no other.
fn probes(model: &Model<'_>, index: usize) -> Vec<(&'static str, Yaml)> {
    let Some(health) = &model.record.health else {
        let mut tcp = model.ports.iter().filter(|(_, protocol)| *protocol == Transport::Tcp);
        // A probe checks one port: each container checks another one.
        let port = tcp.nth(index).map(|(port, _)| {
            let probe = Yaml::from([("tcpSocket", [("port", (*port).into())].into())]);
            ("readinessProbe", probe.with("periodSeconds", 10u16))
        });
        return port.into_iter().collect();
    };
    if index > 0 {
        return Vec::new();
    }
    let command = vec!["/bin/sh".into(), "-c".into(), argument(health).into()];
    let exec = Yaml::from([("exec", [("command", Yaml::List(command))].into())]);
    let watch = model.record.health_watch;
    let timeout = watch.map_or(10, |watch| watch.timeout);
    let number = |number: u32| Yaml::Number(number.into());
    let probe = |period: u32, failures: u32| {
        let exec = exec.clone().with("periodSeconds", number(period));
        exec.with("timeoutSeconds", number(timeout)).with("failureThreshold", number(failures))
    };
    let (often, seldom, retries) =
        watch.map_or((10, 30, 3), |watch| (watch.interval, watch.interval, watch.retries));
    let patience = watch.map_or(0, |watch| watch.start_period.div_ceil(5)).max(60);
    let mut out =
        vec![("startupProbe", probe(5, patience)), ("readinessProbe", probe(often, retries))];
    if model.record.components.len() < 2 {
        out.push(("livenessProbe", probe(seldom, retries)));
    }
    out
}

fn port_name(port: u16, protocol: Transport) -> String {
    format!("{}-{port}", protocol_name(protocol).to_ascii_lowercase())
}

fn protocol_name(protocol: Transport) -> &'static str {
    match protocol {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

fn container_ports(model: &Model<'_>) -> Vec<Yaml> {
    let mut out = Vec::new();
    for (port, protocol) in &model.ports {
        let plain = |named: Yaml| {
            named.with("containerPort", *port).with("protocol", protocol_name(*protocol))
        };
        let named = plain([("name", port_name(*port, *protocol).into())].into());
        let published = model.record.published.iter();
        let mut published = published.filter(|f| (f.container, f.protocol) == (*port, *protocol));
        out.push(match published.next() {
            Some(forward) => on_host(named, forward),
            // podman before 5.0 publishes the port even without a hostPort, on all addresses if none is named.
            // Kubernetes and later versions of podman don't.
            None => named.with_some("hostIP", model.record.address.map(|ip| ip.to_string())),
        });
        out.extend(published.map(|forward| on_host(plain(Yaml::Map(Vec::new())), forward)));
    }
    out
}

fn on_host(port: Yaml, forward: &Forward) -> Yaml {
    port.with("hostPort", forward.host.port()).with("hostIP", forward.host.ip().to_string())
}

fn service(model: &Model<'_>, name: &str) -> Yaml {
    let port = |(port, protocol): &(u16, Transport)| {
        let named = Yaml::from([("name", port_name(*port, *protocol).into())]);
        named.with("port", *port).with("protocol", protocol_name(*protocol))
    };
    let spec = Yaml::from([
        ("selector", app_label(name)),
        ("ports", model.ports.iter().map(port).collect::<Vec<_>>().into()),
    ]);
    object("v1", "Service", name, name).with("spec", spec)
}
