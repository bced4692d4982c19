//! The command line: one file for each command, which turns its arguments into a request to the library and
//! prints the result. Only this module prints.

mod args;
mod build;
mod check;
mod common;
mod completions;
mod copy;
mod df;
mod diff;
mod escape;
mod field;
mod history;
mod images;
mod import;
mod index;
mod inspect;
mod lint;
mod login;
mod man;
mod new;
mod progress;
mod prune;
mod query;
mod report_error;
mod rmi;
mod run;
mod services;
mod setup;
mod table;
mod tag;
mod terminal;
mod unpack;
mod verbosity;
mod volume;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::interrupt;
use common::Context;
pub(crate) use progress::line;

/// Builds servicepacks into OCI images and sets up instances of them, without root and without a daemon.
#[derive(Debug, Parser)]
#[command(name = "svp", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: common::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Paths:
  the store          SVP_ROOT, else $XDG_DATA_HOME/svp, else ~/.local/share/svp
  the configuration  $XDG_CONFIG_HOME/svp/config.toml, else ~/.config/svp/config.toml

Diagnostics, on standard error:
  -v, -vv            what svp does, step by step; placed before a command whose own -v differs
  SVP_LOG            the same, by module: debug, svp::registry=trace

Exit codes:
  0   done
  1   a script of the pack failed
  2   the command line is invalid
  65  bad input: an image, layer, layout or pack is invalid
  69  a registry or the network failed
  74  storage: the disk is full, or reading or writing failed
  77  the sandbox can't be created on this host: see `svp check`
  124 a script of the pack ran for longer than --timeout
  130 interrupted
run, exec, client, shell, extra, backup and restore exit with the code of the program that they run; 125 if svp
itself fails, 126 or 127 if the program can't be run.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the base image of a service type from a pack
    Build(build::Args),
    /// Set up one instance of a service on a base image, with fresh secrets
    Setup(setup::Args),
    /// Query one key of a pack, such as os, secrets or env
    Query(query::Args),
    /// List the ports that a pack or a service listens on
    Ports(query::PortsArgs),
    /// Report every fault of a pack
    Lint(lint::Args),
    /// Create a new pack that builds without changes
    New(new::Args),
    /// List the images of the store
    Images(images::Args),
    /// Show the config, labels and layers of an image
    Inspect(inspect::Args),
    /// Show the build steps of an image, newest first
    History(history::Args),
    /// Compare the files of two images, or show the changes of one layer
    Diff(diff::Args),
    /// Add a tag to an image
    Tag(tag::Args),
    /// Remove tags, and images without any other tag
    Rmi(rmi::Args),
    /// Pull an image from a registry, a layout or an archive into the store
    Pull(copy::PullCommand),
    /// Push an image to a registry, uploading only the blobs it lacks
    Push(copy::PushArgs),
    /// Log in to a registry, for svp, podman and skopeo
    Login(login::LoginArgs),
    /// Remove the login of a registry
    Logout(login::LogoutArgs),
    /// Copy an image between registries, layouts and archives, keeping its digest
    Copy(copy::CopyArgs),
    /// Create a multi-platform index
    Index(index::Args),
    /// Save an image to an archive or a layout
    Save(copy::SaveArgs),
    /// Load all images of an archive into the store
    Load(copy::LoadArgs),
    /// Remove unused blobs, unpacked layers, states, logs and unfinished files
    Prune(prune::Args),
    /// List, show, remove, export and import volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// Show the disk use of the store, counting shared blobs once
    Df(df::Args),
    /// Create an image from the tar of a root file system
    Import(import::Args),
    /// Unpack the root file system of an image into a directory
    Unpack(unpack::Args),
    #[command(flatten)]
    Service(services::Command),
    /// Check whether this host can build and run rootless, and print the fix for each fault
    Check(check::Args),
    /// Print completions for a shell, to be sourced or saved
    Completions(completions::Args),
    /// Write the manual pages of svp and of each command into a directory
    #[command(hide = true)]
    Man(man::Args),
}

/// Parses the command line, runs the command, and returns the exit code.
pub(crate) fn main() -> ExitCode {
    interrupt::install();
    let (cli, verbosity) = match verbosity::parse::<Cli>() {
        Ok(parsed) => parsed,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // The reader may have closed its end.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let style = cli.global.style();
    let context = match verbosity.start(style) {
        Ok(diagnosed) => Context::new(style, verbosity, diagnosed),
        Err(error) => return report_error::report(&error, style),
    };
    let mut done = ExitCode::SUCCESS;
    let result = match cli.command {
        Command::Build(args) => build::run(args, &context),
        Command::Setup(args) => setup::run(args, &context),
        Command::Query(args) => query::run(args, &context),
        Command::Ports(args) => query::run_ports(args, &context),
        Command::Lint(args) => lint::run(&args, &context),
        Command::New(args) => new::run(&args, &context),
        Command::Images(args) => images::run(args, &context),
        Command::Inspect(args) => inspect::run(args, &context),
        Command::History(args) => history::run(&args, &context),
        Command::Diff(args) => diff::run(args, &context).map(|code| done = code),
        Command::Tag(args) => tag::run(args, &context),
        Command::Rmi(args) => rmi::run(args, &context),
        Command::Pull(args) => copy::pull(args, &context),
        Command::Push(args) => copy::push(args, &context),
        Command::Login(args) => login::login(args, &context),
        Command::Logout(args) => login::logout(args, &context),
        Command::Copy(args) => copy::copy(args, &context),
        Command::Index(args) => index::run(args, &context),
        Command::Save(args) => copy::save(args, &context),
        Command::Load(args) => copy::load(args, &context),
        Command::Prune(args) => prune::run(&args, &context),
        Command::Volume(command) => command.run(&context),
        Command::Df(args) => df::run(&args, &context),
        Command::Import(args) => import::run(args, &context),
        Command::Unpack(args) => unpack::run(args, &context),
        Command::Check(args) => check::run(&args, &context),
        Command::Completions(args) => {
            completions::run(&args, verbosity::command::<Cli>(), &context)
        }
        Command::Man(args) => man::run(&args, verbosity::command::<Cli>()),
        Command::Service(command) => return command.run(&context, style),
    };
    context.finish();
    match result {
        Ok(()) => done,
        Err(error) => report_error::report(&error, style),
    }
}
