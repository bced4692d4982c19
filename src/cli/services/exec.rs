//! `svp exec`, `shell`, `client` and `extra`: a command in a service that runs, with the caller's terminal
//! or pipes.

use std::process::ExitCode;

use super::super::common::{Context, env_argument};
use super::super::terminal;
use super::find;
use crate::error::{Cause, Error, Result};
use crate::sandbox::JoinSpec;
use crate::service::record::Record;
use crate::service::status::shell_code;
use crate::service::{command, environment};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExecArgs {
    /// The service
    name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// How a command runs in a service.
#[derive(Debug, Default, clap::Args)]
struct HowArgs {
    /// Set a variable for the command
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = env_argument)]
    env: Vec<(String, String)>,
    /// The directory to run it in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user to run it as, and the group: names of the service's, or numbers; root if not said
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give it no terminal, even if there is one
    #[arg(short = 'T', long)]
    no_tty: bool,
    // Habits of podman's users: that is what happens anyway.
    #[arg(short, hide = true)]
    interactive: bool,
    #[arg(short, hide = true)]
    tty: bool,
}

/// A command of the pack's in a service.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScriptArgs {
    /// The service, if not the first argument
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// The service, then what the script gets
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME|ARGS")]
    arguments: Vec<String>,
}

impl ScriptArgs {
    fn split(&self) -> Result<(&str, &[String])> {
        match (&self.container, &self.arguments[..]) {
            (Some(name), arguments) => Ok((name, arguments)),
            (None, [name, arguments @ ..]) => Ok((name, arguments)),
            (None, []) => Err(Error::usage("which service?").hint("`svp ps` lists those that run")),
        }
    }
}

pub(in crate::cli) fn exec(args: &ExecArgs, context: &Context) -> Result<ExitCode> {
    run(&args.name, args.command.clone(), &args.how, context)
}

pub(in crate::cli) fn shell(args: &ScriptArgs, context: &Context) -> Result<ExitCode> {
    let (name, arguments) = args.split()?;
    // The best shell that is there.
    let script =
        "if command -v bash >/dev/null 2>&1; then exec bash \"$@\"; else exec sh \"$@\"; fi";
    let argv = ["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    run(name, [&argv[..], arguments].concat(), &HowArgs::default(), context).map_err(|error| {
        or_hint(error, || format!("`svp exec {name} -- COMMAND` runs any program that is there"))
    })
}

pub(in crate::cli) fn client(args: &ScriptArgs, context: &Context) -> Result<ExitCode> {
    script("client", args, context)
}

pub(in crate::cli) fn extra(args: &ScriptArgs, context: &Context) -> Result<ExitCode> {
    script("extra", args, context)
}

fn script(script: &str, args: &ScriptArgs, context: &Context) -> Result<ExitCode> {
    let (name, arguments) = args.split()?;
    let argv = [&[format!("/service/bin/{script}")], arguments].concat();
    run(name, argv, &HowArgs::default(), context).map_err(|error| {
        or_hint(error, || {
            format!(
                "the pack has no bin/{script}, or the service has lost it; `svp shell {name}` and \
                 `svp exec {name} -- COMMAND` need none"
            )
        })
    })
}

/// The way out where there is no such command.
fn or_hint(error: Error, hint: impl FnOnce() -> String) -> Error {
    let missing = error.hint_text().is_none() && error.is(Cause::CommandNotFound);
    if missing { error.hint(hint()) } else { error }
}

/// Runs a command in a service; the exit code is the command's.
fn run(name: &str, argv: Vec<String>, how: &HowArgs, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(name)?;
    let record = service_dir.record()?;
    let spec = {
        let store = Store::open(&root)?;
        spec(&store, &record, argv, how)?
    };
    let mut join_it = |stdio| command::enter(&service_dir, &spec, stdio);
    context.finish();
    let end = if !how.no_tty && terminal::is_ours() {
        terminal::with_terminal(&mut join_it)?
    } else {
        terminal::with_pipes(&mut join_it)?
    };
    Ok(ExitCode::from(u8::try_from(shell_code(end)).unwrap_or(255)))
}

fn spec(store: &Store, record: &Record, argv: Vec<String>, how: &HowArgs) -> Result<JoinSpec> {
    let mut spec = command::spec(store, record, argv)?;
    if let (false, Ok(term)) = (how.no_tty, std::env::var("TERM")) {
        environment::set(&mut spec.env, "TERM", &term);
    }
    for (name, value) in &how.env {
        environment::set(&mut spec.env, name, value);
    }
    spec.user.clone_from(&how.user);
    if let Some(workdir) = &how.workdir {
        workdir.clone_into(&mut spec.cwd);
    }
    Ok(spec)
}
