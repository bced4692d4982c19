//! `svp exec`, `shell`, `client` and `extra`: a command in a service that runs, with the caller's terminal
//! or pipes.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use super::super::common::{Context, env_argument};
use super::super::terminal;
use super::find;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::{End, JoinSpec, Joined, Stdio, join};
use crate::service::control::{Ask, ask};
use crate::service::environment;
use crate::service::place::Place;
use crate::service::record::Record;
use crate::service::status::shell_code;
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
#[derive(Debug, clap::Args)]
struct HowArgs {
    /// Set a variable for the command
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = env_argument)]
    env: Vec<(String, String)>,
    /// The directory to run it in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
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
    run(name, [&argv[..], arguments].concat(), &HowArgs::plain(), context)
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
    run(name, argv, &HowArgs::plain(), context)
}

impl HowArgs {
    fn plain() -> HowArgs {
        HowArgs { env: Vec::new(), workdir: None, no_tty: false, interactive: false, tty: false }
    }
}

/// Runs a command in a service; the exit code is the command's.
fn run(name: &str, argv: Vec<String>, how: &HowArgs, context: &Context) -> Result<ExitCode> {
    let (root, place) = find(name)?;
    let record = place.record()?;
    let spec = {
        let store = Store::open(&root)?;
        spec(&store, &record, argv, how)?
    };
    let mut join_it = |stdio| enter(&place, &spec, stdio);
    let stdin = std::io::stdin();
    let on_terminal = !how.no_tty && stdin.is_terminal() && std::io::stdout().is_terminal();
    context.finish();
    let end = if on_terminal {
        terminal::with_terminal(&mut join_it)?
    } else {
        terminal::with_pipes(&mut join_it)?
    };
    Ok(ExitCode::from(u8::try_from(shell_code(end)).unwrap_or(255)))
}

fn spec(store: &Store, record: &Record, argv: Vec<String>, how: &HowArgs) -> Result<JoinSpec> {
    let image = store.load_image(&record.manifest)?;
    let mut env = record.environment(&image);
    if let (false, Ok(term)) = (how.no_tty, std::env::var("TERM")) {
        environment::set(&mut env, "TERM", &term);
    }
    for (name, value) in &how.env {
        environment::set(&mut env, name, value);
    }
    let cwd = how.workdir.clone().unwrap_or_else(|| record.cwd.clone());
    Ok(JoinSpec { argv, env, cwd, user: None })
}

/// Joins the container of a service.
fn enter(place: &Place, spec: &JoinSpec, stdio: Stdio) -> Result<Joined> {
    let fds = ask(place, &Ask::Join)?;
    let [user_namespace, process_1] = &fds[..] else {
        return Err(Error::sandbox("the monitor gave no container"));
    };
    join(user_namespace.as_fd(), process_1.as_fd(), spec, stdio)
}

/// Runs a command in a service without input, and gives what it printed, the end of it if it is long.
pub(super) fn run_quietly(
    store: &Store,
    place: &Place,
    record: &Record,
    argv: Vec<String>,
) -> Result<(End, String)> {
    const MOST: usize = 64 << 10;
    let failed = |error| Error::new(Kind::Storage, "can't make a pipe").source(error);
    let spec = spec(store, record, argv, &HowArgs::plain())?;
    let (output, theirs) = std::io::pipe().map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    let errors = theirs.try_clone().map_err(failed)?;
    let stdio = Stdio::Pipes([null.into(), theirs.into(), OwnedFd::from(errors)]);
    let joined = enter(place, &spec, stdio)?;
    let reader = std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 8192];
        let mut output = output;
        while let Ok(length @ 1..) = std::io::Read::read(&mut output, &mut buffer) {
            kept.extend_from_slice(&buffer[..length]);
            let excess = kept.len().saturating_sub(MOST);
            kept.drain(..excess);
        }
        kept
    });
    let end = joined.wait()?;
    interrupt::check()?;
    // What the command left behind may hold the pipe for ever.
    let since = std::time::Instant::now();
    while !reader.is_finished() && since.elapsed() < std::time::Duration::from_secs(1) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kept = if reader.is_finished() { reader.join().unwrap_or_default() } else { Vec::new() };
    Ok((end, String::from_utf8_lossy(&kept).into_owned()))
}
