//! `svp exec`, `shell`, `client` and `extra`: run a command in a running service, on the caller's terminal
//! or with pipes.

use std::process::ExitCode;

use super::super::args::{EnvArg, parsed};
use super::super::common::Context;
use super::super::terminal;
use super::find::find;
use crate::error::{Cause, Error, Result};
use crate::sandbox::JoinSpec;
use crate::service::record::Record;
use crate::service::status::shell_code;
use crate::service::{environment, exec};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExecArgs {
    /// The name of the service
    name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// Options for a command in a service.
#[derive(Debug, Default, clap::Args)]
struct HowArgs {
    /// Set a variable for the command
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parsed::<EnvArg>)]
    env: Vec<EnvArg>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, and optionally group, by name or number [default: root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Do not allocate a terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
    // podman's options, accepted for compatibility: this is the default behaviour.
    #[arg(short, hide = true)]
    interactive: bool,
    #[arg(short, hide = true)]
    tty: bool,
}

/// A command of the pack, run in a service.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScriptArgs {
    /// The name of the service, instead of the first argument
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// The name of the service, then the arguments of the script
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME|ARGS")]
    arguments: Vec<String>,
}

impl ScriptArgs {
    fn split(&self) -> Result<(&str, &[String])> {
        match (&self.container, &self.arguments[..]) {
            (Some(name), arguments) => Ok((name, arguments)),
            (None, [name, arguments @ ..]) => Ok((name, arguments)),
            (None, []) => {
                Err(Error::usage("no service given").hint("`svp ps` lists the running ones"))
            }
        }
    }
}

pub(in crate::cli) fn exec(args: &ExecArgs, context: &Context) -> Result<ExitCode> {
    run(&args.name, args.command.clone(), &args.how, context)
}

pub(in crate::cli) fn shell(args: &ScriptArgs, context: &Context) -> Result<ExitCode> {
    let (name, arguments) = args.split()?;
    // The first shell that exists in the container.
    let script =
        "if command -v bash >/dev/null 2>&1; then exec bash \"$@\"; else exec sh \"$@\"; fi";
    let argv = ["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    run(name, [&argv[..], arguments].concat(), &HowArgs::default(), context).map_err(|error| {
        or_hint(error, || format!("`svp exec {name} -- COMMAND` runs any program of the container"))
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
                "the pack has no bin/{script}, or the service has removed it; `svp shell {name}` and \
                 `svp exec {name} -- COMMAND` work without it"
            )
        })
    })
}

/// Adds a hint to the error of a command that does not exist.
fn or_hint(error: Error, hint: impl FnOnce() -> String) -> Error {
    let missing = error.hint_text().is_none() && error.is(Cause::CommandNotFound);
    if missing { error.hint(hint()) } else { error }
}

/// Runs a command in a service; returns the command's exit code.
fn run(name: &str, argv: Vec<String>, how: &HowArgs, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(name)?;
    let record = service_dir.record()?;
    let spec = {
        let store = Store::open(&root)?;
        spec(&store, &record, argv, how)?
    };
    let mut join_it = |stdio| exec::join_container(&service_dir, &spec, stdio);
    context.finish();
    let end = if !how.no_tty && terminal::is_ours() {
        terminal::with_terminal(&mut join_it)?
    } else {
        terminal::with_pipes(&mut join_it)?
    };
    Ok(ExitCode::from(u8::try_from(shell_code(end)).unwrap_or(255)))
}

fn spec(store: &Store, record: &Record, argv: Vec<String>, how: &HowArgs) -> Result<JoinSpec> {
    let mut spec = exec::spec(store, record, argv)?;
    if let (false, Ok(term)) = (how.no_tty, std::env::var("TERM")) {
        environment::set(&mut spec.env, "TERM", &term);
    }
    for EnvArg { name, value } in &how.env {
        environment::set(&mut spec.env, name, value);
    }
    spec.user.clone_from(&how.user);
    if let Some(workdir) = &how.workdir {
        workdir.clone_into(&mut spec.cwd);
        spec.cwd_or_root = false;
    }
    Ok(spec)
}
