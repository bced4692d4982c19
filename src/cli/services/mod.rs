//! The commands for running services, one file for each group.

pub(super) mod backup;
pub(super) mod exec;
pub(super) mod export;
mod find;
pub(super) mod health;
mod health_text;
pub(super) mod lifecycle;
pub(super) mod logs;
pub(super) mod show;
pub(super) mod upgrade;

use std::process::ExitCode;

use super::common::Context;
use super::progress::Style;
use super::{report_error, run};
use crate::error::Result;

/// The commands that start services and act on them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create and start a service from the image of an instance
    Run(Box<run::Args>),
    /// List running services
    Ps(show::PsArgs),
    /// Show the logs of a service
    Logs(logs::Args),
    /// Start stopped services
    Start(lifecycle::StartArgs),
    /// Stop services
    Stop(lifecycle::StopArgs),
    /// Restart a service, or some of its components
    Restart(lifecycle::RestartArgs),
    /// Remove services, keeping their volumes unless --volumes is given
    Rm(lifecycle::RemoveArgs),
    /// Wait until services exit, and print their exit codes
    Wait(lifecycle::WaitArgs),
    /// Check the health of a service
    Health(health::Args),
    /// Show details of a service
    Info(show::InfoArgs),
    /// Print the environment for clients of a service, secrets included
    Env(show::EnvArgs),
    /// Run the pack's client in a service; its output is not escaped
    Client(exec::ScriptArgs),
    /// Run a shell in a service; its output is not escaped
    Shell(exec::ScriptArgs),
    /// Run a command in a service; its output is not escaped
    Exec(exec::ExecArgs),
    /// Run an extra command of the pack in a service (`help` lists them); its output is not escaped
    Extra(exec::ScriptArgs),
    /// Write a backup of a service
    Backup(backup::BackupArgs),
    /// Restore a backup into a fresh copy, which replaces the service once it is healthy
    Restore(backup::RestoreArgs),
    /// Upgrade a service to the image that its tag names now, keeping its volumes, address and secrets
    Upgrade(upgrade::Args),
    /// Export a service for podman, systemd or Kubernetes
    Export(export::Args),
}

impl Command {
    /// Runs the command and returns the exit code.
    pub(super) fn run(self, context: &Context, style: Style) -> ExitCode {
        // These exit with the code of a service or script, so svp's own failures need a distinct one.
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
            let code = report_error::report(&error, style);
            if is_script { report_error::own_code(&error) } else { code }
        })
    }

    fn dispatch(self, context: &Context) -> Result<ExitCode> {
        match self {
            Command::Run(args) => run::run(&args, context),
            Command::Ps(args) => show::ps(&args, context),
            Command::Logs(args) => logs::run(&args, context),
            Command::Start(args) => lifecycle::start(&args, context),
            Command::Stop(args) => lifecycle::stop(&args, context),
            Command::Restart(args) => lifecycle::restart(&args, context),
            Command::Rm(args) => lifecycle::remove(&args, context),
            Command::Wait(args) => lifecycle::wait(&args, context),
            Command::Health(args) => health::run(&args, context),
            Command::Info(args) => show::info(&args, context),
            Command::Env(args) => show::env(&args, context),
            Command::Client(args) => exec::client(&args, context),
            Command::Shell(args) => exec::shell(&args, context),
            Command::Exec(args) => exec::exec(&args, context),
            Command::Extra(args) => exec::extra(&args, context),
            Command::Backup(args) => backup::backup(&args, context),
            Command::Restore(args) => backup::restore(&args, context),
            Command::Upgrade(args) => upgrade::run(&args, context),
            Command::Export(args) => export::run(&args, context),
        }
    }
}
