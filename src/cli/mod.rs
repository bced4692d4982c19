//! The command line: a file a command, each turning its arguments into a request for the library and
//! printing what comes back. Only this module prints.

mod build;
mod check;
mod common;
mod completions;
mod compression;
mod copy;
mod df;
mod diff;
mod error;
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
mod rmi;
mod run;
mod services;
mod setup;
mod table;
mod tag;
mod terminal;
mod unpack;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::interrupt;
use common::Context;

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
Places:
  the store          SVP_ROOT, else $XDG_DATA_HOME/svp, else ~/.local/share/svp
  the configuration  $XDG_CONFIG_HOME/svp/config.toml, else ~/.config/svp/config.toml

Exit codes:
  0   done
  1   a script of the pack failed
  2   the command line is wrong
  65  bad input: an image, layer, layout or pack is not what it must be
  69  a registry or the network failed
  74  storage: the disk is full, or reading or writing failed
  77  the sandbox can't be made on this host: see `svp check`
  130 interrupted
Of run, exec, client, shell, extra, backup and restore: what they run gives the code; 125 if svp itself
fails, 126 or 127 if the program can't be run.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the base image of a service type from a pack
    Build(build::Args),
    /// Set up one instance of a service on a base image, with fresh secrets
    Setup(setup::Args),
    /// Ask a pack one key, such as os, secrets or env
    Query(query::Args),
    /// List the ports that a pack's service listens on
    Ports(query::PortsArgs),
    /// Find every problem of a pack
    Lint(lint::Args),
    /// Start a new pack, which builds as it is
    New(new::Args),
    /// List the images of the store
    Images(images::Args),
    /// Show an image: its layers, its config, its labels
    Inspect(inspect::Args),
    /// Show how an image was made, the newest step first
    History(history::Args),
    /// Show the files that differ between two images, or that one layer added, changed and removed
    Diff(diff::Args),
    /// Give an image another tag
    Tag(tag::Args),
    /// Remove tags, and what only they had
    Rmi(rmi::Args),
    /// Bring an image of a registry, a layout or an archive into the store
    Pull(copy::PullCommand),
    /// Bring an image of the store to a registry: only what it lacks
    Push(copy::PushArgs),
    /// Log in to a registry, for svp, podman and skopeo
    Login(login::LoginArgs),
    /// Forget a login
    Logout(login::LogoutArgs),
    /// Carry an image from anywhere to anywhere, as it is
    Copy(copy::CopyArgs),
    /// Put an index together: one name for the images of several platforms
    Index(index::Args),
    /// Write an image to an archive or a layout
    Save(copy::SaveArgs),
    /// Bring all images of an archive into the store
    Load(copy::LoadArgs),
    /// Remove whatever no tag needs: blobs, unpacked layers, states, logs, staging
    Prune(prune::Args),
    /// Tell what uses the space of the store; what images share counts once
    Df(df::Args),
    /// Make an image from any root file system's tar
    Import(import::Args),
    /// Unpack an image's root file system into a directory
    Unpack(unpack::Args),
    #[command(flatten)]
    Service(services::Command),
    /// Tell whether this host can build without root, and if not, what to do
    Check(check::Args),
    /// Print the completions of a shell: source them, or save them where the shell looks for them
    Completions(completions::Args),
    /// Write the manual pages, one for svp and one for each command, into a directory
    #[command(hide = true)]
    Man(man::Args),
}

/// Parses the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    interrupt::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let context = Context::new(&cli.global);
    let style = cli.global.style();
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
        Command::Load(args) => copy::load(&args, &context),
        Command::Prune(args) => prune::run(&args, &context),
        Command::Df(args) => df::run(&args, &context),
        Command::Import(args) => import::run(args, &context),
        Command::Unpack(args) => unpack::run(args, &context),
        Command::Check(args) => check::run(&args, &context),
        Command::Completions(args) => completions::run(&args, &context),
        Command::Man(args) => man::run(&args),
        Command::Service(command) => return command.run(&context, style),
    };
    context.finish();
    match result {
        Ok(()) => done,
        Err(error) => error::report(&error, style),
    }
}
