//! Writes a systemd unit that runs the service with svp itself.

use super::super::record::Record;
use super::unit::{Dollar, Unit, word};
use super::{Exported, File, Request, Secrets, linked_services, systemctl, systemd_timeout};
use crate::error::{Error, Result};

pub(super) fn export(record: &Record, request: &Request) -> Result<Exported> {
    if matches!(request.secrets, Secrets::Only | Secrets::PodmanSecret) {
        return Err(Error::usage("a systemd unit contains no secrets to export")
            .hint("they stay in svp's own store: leave --secrets out"));
    }
    let name = &record.name;
    let file = format!("svp-{name}.service");
    let control = systemctl(request.system);
    let (dir, target) = match request.system {
        true => ("/etc/systemd/system", "multi-user.target"),
        false => ("~/.config/systemd/user", "default.target"),
    };
    let program = word(&request.program.to_string_lossy(), Dollar::Doubled);
    let mut unit = Unit::new(&[
        format!("{dir}/{file}"),
        format!("{control} daemon-reload && {control} enable --now svp-{name}"),
    ]);
    let what = format!("{name}, a service of {}", record.image);
    unit.section("Unit").set("Description", what.replace('%', "%%"));
    // Linked services start first, if they have units.
    let linked = linked_services(record);
    let mut before: Vec<String> = linked.iter().map(|name| format!("svp-{name}.service")).collect();
    if request.system {
        before.push("network-online.target".into());
    }
    if !before.is_empty() {
        let before = before.join(" ");
        unit.set("Wants", &before).set("After", &before);
    }
    unit.section("Service").set("Type", "exec");
    if let Some(root) = &request.root {
        let variable = format!("SVP_ROOT={}", root.display());
        unit.set("Environment", word(&variable, Dollar::Plain));
    }
    // svp itself restarts components, by the service's --restart; this setting restarts svp.
    unit.set("ExecStart", format!("{program} start --attach {name}"))
        .set("ExecStop", format!("{program} stop {name}"))
        .set("SuccessExitStatus", 128 + record.stop_signal)
        .set("KillMode", "mixed")
        .set("TimeoutStopSec", systemd_timeout(record.stop_seconds()))
        .set("Restart", "on-failure")
        .set("RestartSec", 2)
        .set("Delegate", "yes");
    unit.section("Install").set("WantedBy", target);
    let mut notes =
        vec![format!("the unit starts the service itself: svp stop {name}, if it runs now")];
    for link in linked {
        notes.push(format!("it uses {link}: svp export {link} --format systemd, too"));
    }
    if record.remove {
        notes.push(format!(
            "{name} was run with --rm: it is removed when it ends, and can't be started again"
        ));
    }
    if !request.system {
        notes.push("it starts at boot, not at login, after: loginctl enable-linger".into());
    }
    Ok(Exported { files: vec![File { name: file, text: unit.into_text(), secret: false }], notes })
}
