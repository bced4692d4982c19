//! A container's process 1, and the process that becomes the command.
//!
//! Process 1 makes the container's file system, starts the command, buries the dead, and says how the
//! command ended. When it ends, the kernel kills whatever the command has left behind.
//!
//! The process that becomes the command is started *before* pivot_root: afterwards a start of svp would
//! load the image's C library.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{chdir, pivot_root};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::mounts::{self, Step};
use super::spec::{End, Rootfs};
use super::stage::launch::Stage;
use super::stage::process::{die_with_parent, reset_signals};
use super::stage::protocol::{Descriptors, Request, reply, reply_with};
use super::{mknod, overlay, privileges, seccomp, trees};
use crate::channel::Channel;
use crate::error::{Cause, Error, IoContext, Result};

/// A container's init. Stdout, stderr, a pack's tar for host tools.
#[derive(Serialize, Deserialize)]
pub(super) struct InitRequest {
    pub(super) container: Container,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
}

impl Request for InitRequest {
    const NAME: &'static str = "init";
    type Answer = End;

    fn serve(self, _: &Channel, mut fds: Descriptors) -> Result<End> {
        init(self, fds.take()?, fds.take()?, fds.take_optional())
    }
}

/// The process that becomes the command. Stdout, stderr.
#[derive(Serialize, Deserialize)]
pub(super) struct ExecRequest {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
}

impl Request for ExecRequest {
    const NAME: &'static str = "exec";
    type Answer = ();

    fn serve(self, channel: &Channel, mut fds: Descriptors) -> Result<()> {
        exec(channel, self, fds.take()?, fds.take()?)
    }
}

fn init(
    request: InitRequest,
    stdout: OwnedFd,
    stderr: OwnedFd,
    pack: Option<OwnedFd>,
) -> Result<End> {
    let InitRequest { container, argv, env, cwd } = request;
    let root = make_root(&container, pack)?;
    let exec = ExecRequest { argv, env, cwd };
    let mut command = Stage::start(Path::new("/"), &exec, &[stdout.as_fd(), stderr.as_fd()])?;
    drop((stdout, stderr));
    // Its libraries are loaded: from here on it needs no file of the host's.
    command.recv::<()>()?;
    pivot(&root)?;
    drop(root);
    command.send(&(), &[])?;
    let ((), listener) = command.recv()?;
    if let Some(listener) = listener.into_iter().next() {
        std::thread::spawn(move || mknod::serve(&listener));
    }
    let started = command.wait_for_exec();
    let end = reap_until(command.pid())?;
    command.forget();
    started?;
    Ok(end)
}

/// Makes the container's file system and its name; gives its root.
pub(super) fn make_root(container: &Container, pack: Option<OwnedFd>) -> Result<OwnedFd> {
    // podman's own seccomp filter refuses it to svp in a container; nothing depends on the name.
    let _ = nix::unistd::sethostname(&container.hostname);
    match &container.rootfs {
        Rootfs::Layers(_) => layers_root(container),
        Rootfs::HostTools => host_tools_root(container, pack),
    }
}

/// The overlay with /proc, /dev, resolv.conf and hosts; gives its root.
fn layers_root(container: &Container) -> Result<OwnedFd> {
    let root = overlay::open("../merged")?;
    mounts::apply(root.as_fd(), &mounts::proc_and_dev(container.tty_group))?;
    let files = Path::new("../files");
    mount("tmpfs", files, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")
        .io("mount a file system at", files)?;
    for (name, content) in [("resolv.conf", &container.resolv_conf), ("hosts", &container.hosts)] {
        let file = files.join(name);
        std::fs::write(&file, content).io("write", &file)?;
        let source = file.to_string_lossy().into_owned();
        let step = Step::Bind { source, at: format!("etc/{name}"), read_only: false };
        // Only an image whose /etc is a link to nowhere has no place for them.
        let _ = mounts::apply(root.as_fd(), &[step]);
    }
    mounts::bind_all(root.as_fd(), &container.binds)?;
    Ok(root)
}

/// A tmpfs with the host's programs read-only and the pack at /service; gives its root.
fn host_tools_root(container: &Container, pack: Option<OwnedFd>) -> Result<OwnedFd> {
    let at = "/tmp";
    mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")
        .io("mount a file system at", at)?;
    let root = overlay::open(at)?;
    mounts::apply(root.as_fd(), &mounts::host_tools())?;
    mounts::apply(root.as_fd(), &mounts::proc_and_dev(container.tty_group))?;
    if let Some(pack) = pack {
        trees::unpack_pack(pack, &root)?;
    }
    mounts::apply(root.as_fd(), &[Step::ReadOnly("service".into())])?;
    Ok(root)
}

/// Makes `root` the root of every process here, and lets go of the host's.
pub(super) fn pivot(root: &OwnedFd) -> Result<()> {
    let failed = |errno: nix::errno::Errno| Error::sandbox("pivot_root").source(errno);
    nix::unistd::fchdir(root).map_err(failed)?;
    pivot_root(".", ".").map_err(failed)?;
    unmount(".", UnmountFlags::DETACH)
        .map_err(|error| Error::sandbox("pivot_root").source(std::io::Error::from(error)))?;
    chdir("/").map_err(failed)
}

/// Waits for the command to end, reaping whatever else ends meanwhile.
fn reap_until(command: u32) -> Result<End> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() as u32 == command => {
                return Ok(End::Exited(code));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == command => {
                return Ok(End::Signaled(signal as i32));
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::sandbox("can't wait for the command").source(errno)),
        }
    }
}

/// The process that becomes the command.
fn exec(channel: &Channel, request: ExecRequest, stdout: OwnedFd, stderr: OwnedFd) -> Result<()> {
    reply(channel, &())?;
    // Process 1 says when the file system is the container's.
    let go = channel.recv::<()>().map_err(|error| Error::sandbox("process 1").source(error))?;
    if go.is_none() {
        return Ok(());
    }
    seccomp::install()?;
    reply_with(channel, &(), &Vec::from_iter(mknod::install()))?;
    privileges::drop_capabilities()?;
    die_with_parent();
    reset_signals();
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

/// Says why the command could not be run: ENOENT may mean the script, its interpreter, or the directory.
pub(super) fn cannot_run(program: &str, cwd: &str, error: std::io::Error) -> Error {
    let text = format!("can't run {program} in the container");
    let unfit = |text: String| Error::bad_input(text).cause(Cause::CommandNotExecutable);
    if error.kind() != std::io::ErrorKind::NotFound {
        return unfit(text).source(error);
    }
    if !Path::new(cwd).is_dir() {
        return unfit(format!("{text}: there is no directory {cwd}"));
    }
    // Without a slash it was looked for in the PATH.
    if !program.contains('/') || !Path::new(program).exists() {
        return Error::bad_input(format!("{text}: there is no such file"))
            .cause(Cause::CommandNotFound);
    }
    let mut head = [0; 256];
    let length = std::fs::File::open(program)
        .and_then(|mut file| std::io::Read::read(&mut file, &mut head))
        .unwrap_or(0);
    let head = String::from_utf8_lossy(&head[..length]);
    let Some(line) = head.strip_prefix("#!").and_then(|rest| rest.split('\n').next()) else {
        return unfit(format!("{text}: its loader is not in the image")).source(error);
    };
    if line.ends_with('\r') {
        return unfit(format!(
            "{text}: its #! line ends in CRLF, and the CR counts as a part of the interpreter's name"
        ))
        .hint("save the script with LF line ends; `svp lint` finds all such lines");
    }
    let interpreter = line.trim().split(' ').next().unwrap_or_default();
    unfit(format!("{text}: its interpreter {interpreter:?} is not in the image")).hint(
        "install the interpreter in the base image, or write the script for one that is there",
    )
}
