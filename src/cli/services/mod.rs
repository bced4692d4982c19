//! The commands that live with a service: a file for each sort of thing.

pub(super) mod backup;
pub(super) mod exec;
pub(super) mod export;
pub(super) mod health;
pub(super) mod life;
pub(super) mod logs;
pub(super) mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::common::Context;
use super::progress::Style;
use super::{error, run};
use crate::error::Result;
use crate::sandbox::Sandbox;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::store::Store;

/// The commands that start services and live with them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Start a service of an instance's image
    Run(Box<run::Args>),
    /// List the services that run
    Ps(show::PsArgs),
    /// Show what a service printed
    Logs(logs::Args),
    /// Start services that have stopped
    Start(life::StartArgs),
    /// Stop services
    Stop(life::StopArgs),
    /// Stop and start a service, or some of its components
    Restart(life::RestartArgs),
    /// Remove services; their volumes stay unless told otherwise
    Rm(life::RemoveArgs),
    /// Wait until a service has ended, and print its exit code
    Wait(life::WaitArgs),
    /// Tell whether a service is well
    Health(health::Args),
    /// Tell all about a service
    Info(show::InfoArgs),
    /// Print what a client of a service needs to know, its secrets too
    Env(show::EnvArgs),
    /// Run the pack's client in a service
    Client(exec::ScriptArgs),
    /// Run a shell in a service
    Shell(exec::ScriptArgs),
    /// Run a command in a service
    Exec(exec::ExecArgs),
    /// Run one of the pack's extra commands in a service: help lists them
    Extra(exec::ScriptArgs),
    /// Write a backup of a service
    Backup(backup::BackupArgs),
    /// Restore a backup in a fresh copy of a service, which takes its place when it is well
    Restore(backup::RestoreArgs),
    /// Write a service as podman, systemd or Kubernetes runs it, for other machines and for reboots
    Export(export::Args),
}

impl Command {
    /// Does what it says and gives the exit code.
    pub(super) fn run(self, context: &Context, style: Style) -> ExitCode {
        // Whose exit code is the service's or the script's: svp's own failures have one that is neither.
        let is_script = matches!(
            self,
            Command::Run(_)
                | Command::Client(_)
                | Command::Shell(_)
                | Command::Exec(_)
                | Command::Extra(_)
                | Command::Backup(_)
                | Command::Restore(_)
        );
        let result = self.dispatch(context);
        context.finish();
        result.unwrap_or_else(|error| {
            let code = error::report(&error, style);
            if is_script { error::own_code(&error) } else { code }
        })
    }

    fn dispatch(self, context: &Context) -> Result<ExitCode> {
        match self {
            Command::Run(args) => run::run(&args, context),
            Command::Ps(args) => show::ps(&args, context),
            Command::Logs(args) => logs::run(&args, context),
            Command::Start(args) => life::start(&args, context),
            Command::Stop(args) => life::stop(&args, context),
            Command::Restart(args) => life::restart(&args, context),
            Command::Rm(args) => life::remove(&args, context),
            Command::Wait(args) => life::wait(&args, context),
            Command::Health(args) => health::run(&args, context),
            Command::Info(args) => show::info(&args, context),
            Command::Env(args) => show::env(&args, context),
            Command::Client(args) => exec::client(&args, context),
            Command::Shell(args) => exec::shell(&args, context),
            Command::Exec(args) => exec::exec(&args, context),
            Command::Extra(args) => exec::extra(&args, context),
            Command::Backup(args) => backup::backup(&args, context),
            Command::Restore(args) => backup::restore(&args, context),
            Command::Export(args) => export::run(&args, context),
        }
    }
}

/// A service that exists, and the root of the store that it is in.
fn find(name: &str) -> Result<(PathBuf, ServiceDir)> {
    let root = Store::default_root()?;
    let service_dir = ServiceDir::existing(&root, name)?;
    Ok((root, service_dir))
}

/// Removes a service that could not be started; what can't be removed `svp rm` removes.
pub(super) fn discard(root: &Path, service_dir: &ServiceDir, record: &Record) {
    if let Ok(sandbox) = Sandbox::create(&root.join("trees")) {
        let _ = crate::service::remove(service_dir, record, &sandbox, false);
    }
}

/// Says a thing that is no data.
fn say(context: &Context, text: &str) {
    context.reporter().step(text);
}
