//! The stage that executes the command of a container.
//!
//! It starts *before* pivot_root: afterwards the dynamic loader would load the image's C library.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::thread::set_no_new_privs;
use serde::{Deserialize, Serialize};

use super::{capabilities, mknod, mounts, seccomp};
use crate::channel::Channel;
use crate::error::{Cause, Error, Result};
use crate::sandbox::landlock::{self, Access};
use crate::sandbox::stage::process::{die_with_parent, reset_signals};
use crate::sandbox::stage::protocol::{Descriptors, Request, reply, reply_with};

/// Request: execute the command. Descriptors: stdout, stderr.
#[derive(Serialize, Deserialize)]
pub(in crate::sandbox) struct ExecRequest {
    pub(in crate::sandbox) argv: Vec<String>,
    pub(in crate::sandbox) env: Vec<(String, String)>,
    pub(in crate::sandbox) cwd: String,
    pub(in crate::sandbox) no_new_privs: bool,
    /// Whether the root file system has the host's programs.
    pub(in crate::sandbox) host_tools: bool,
}

impl Request for ExecRequest {
    const NAME: &'static str = "exec";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        exec(channel, self, fds.take()?, fds.take()?)
    }
}

/// Confines this process and executes the command.
fn exec(channel: &Channel, request: ExecRequest, stdout: OwnedFd, stderr: OwnedFd) -> Result<()> {
    reply(channel, &())?;
    // The container's init reports when pivot_root is done.
    let go = channel.recv::<()>().map_err(|error| Error::sandbox("init").source(error))?;
    if go.is_none() {
        return Ok(());
    }
    confine(channel)?;
    if request.no_new_privs {
        set_no_new_privs(true).map_err(|error| {
            Error::sandbox("can't set no_new_privs").source(std::io::Error::from(error))
        })?;
        seccomp::install_for_queries()?;
    }
    if request.host_tools {
        restrict_to_host_tools()?;
    }
    let program = &request.argv[0];
    let error = Command::new(program)
        .args(&request.argv[1..])
        .env_clear()
        .envs(request.env)
        .current_dir(&request.cwd)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .exec();
    Err(cannot_run(program, &request.cwd, error))
}

/// Adds a second wall to the read-only mounts of the host's files: Landlock refuses to write anywhere but in the
/// directories of the container's own.
fn restrict_to_host_tools() -> Result<()> {
    let mut rules = vec![(open_directory("/")?, Access::Execute)];
    for path in mounts::WRITABLE {
        rules.push((open_directory(path)?, Access::Write));
    }
    let rules: Vec<_> = rules.iter().map(|(fd, access)| (fd.as_fd(), *access)).collect();
    landlock::restrict(&rules)
}

fn open_directory(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        Error::sandbox(format!("can't open {path}")).source(std::io::Error::from(error))
    })
}

/// Confines this process like a component, and sends the listener for `mknod` over `channel`.
pub(super) fn confine(channel: &Channel) -> Result<()> {
    seccomp::install()?;
    reply_with(channel, &(), &Vec::from_iter(mknod::install()))?;
    capabilities::drop_capabilities()?;
    die_with_parent();
    reset_signals();
    Ok(())
}

/// Returns the error for a command that could not be executed. ENOENT may mean that the program, its interpreter or the
/// working directory is missing.
pub(in crate::sandbox) fn cannot_run(program: &str, cwd: &str, error: std::io::Error) -> Error {
    let text = format!("can't run {program} in the container");
    let unfit = |text: String| Error::bad_input(text).cause(Cause::CommandNotExecutable);
    if error.kind() != std::io::ErrorKind::NotFound {
        return unfit(text).source(error);
    }
    if !Path::new(cwd).is_dir() {
        return unfit(format!("{text}: the directory {cwd} does not exist"));
    }
    // A name without a slash was searched for in PATH.
    if !program.contains('/') || !Path::new(program).exists() {
        return Error::bad_input(format!("{text}: no such file")).cause(Cause::CommandNotFound);
    }
    let mut head = [0; 256];
    let length = std::fs::File::open(program)
        .and_then(|mut file| std::io::Read::read(&mut file, &mut head))
        .unwrap_or(0);
    let head = String::from_utf8_lossy(&head[..length]);
    let Some(line) = head.strip_prefix("#!").and_then(|rest| rest.split('\n').next()) else {
        return unfit(format!("{text}: its dynamic loader is not in the image")).source(error);
    };
    if line.ends_with('\r') {
        return unfit(format!(
            "{text}: its #! line ends in CRLF, which makes the CR part of the interpreter's name"
        ))
        .hint("save the script with LF line ends; `svp lint` finds all such lines");
    }
    let interpreter = line.trim().split(' ').next().unwrap_or_default();
    unfit(format!("{text}: its interpreter {interpreter:?} is not in the image")).hint(
        "install the interpreter in the base image, or name an interpreter that the image contains",
    )
}
