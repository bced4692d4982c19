//! The init of a command's container, PID 1 in it.
//!
//! Creates the container's file system, starts the command, reaps orphans, and reports how the command ended. When it
//! ends, the kernel kills the remaining processes of the container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::wait::{WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::create::Container;
use super::exec::ExecRequest;
use super::mknod;
use super::rootfs::{create_root, pivot};
use super::watch;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::sandbox::spec::{End, Rootfs, RunEnd};
use crate::sandbox::stage::launch::Stage;
use crate::sandbox::stage::protocol::{Descriptors, Request};

/// Request: be a container's init. Descriptors: stdout, stderr, and for host tools the pack's tar.
#[derive(Serialize, Deserialize)]
pub(in crate::sandbox) struct InitRequest {
    pub(in crate::sandbox) container: Container,
    pub(in crate::sandbox) argv: Vec<String>,
    pub(in crate::sandbox) env: Vec<(String, String)>,
    pub(in crate::sandbox) cwd: String,
    pub(in crate::sandbox) no_new_privs: bool,
}

impl Request for InitRequest {
    const NAME: &'static str = "init";
    type Answer = RunEnd;

    fn serve(self, _: &Channel, mut fds: Descriptors) -> Result<RunEnd> {
        init(self, fds.take()?, fds.take()?, fds.take_optional())
    }
}

fn init(
    request: InitRequest,
    stdout: OwnedFd,
    stderr: OwnedFd,
    pack: Option<OwnedFd>,
) -> Result<RunEnd> {
    let InitRequest { container, argv, env, cwd, no_new_privs } = request;
    let (root, mut provided) = create_root(&container, pack)?;
    watch::limit_resources(&container.bounds)?;
    let host_tools = matches!(container.rootfs, Rootfs::HostTools);
    let exec = ExecRequest { argv, env, cwd, no_new_privs, host_tools };
    let mut command = Stage::start(Path::new("/"), &exec, &[stdout.as_fd(), stderr.as_fd()])?;
    drop((stdout, stderr));
    // The stage has loaded the host's libraries: from here on it needs no file of the host.
    command.recv::<()>()?;
    pivot(&root)?;
    drop(root);
    let watch = watch::start(&container.bounds)?;
    command.send(&(), &[])?;
    let ((), listener) = command.recv()?;
    if let Some(listener) = listener.into_iter().next() {
        mknod::start_server(listener)?;
    }
    let started = command.wait_for_exec();
    let end = reap_until(command.pid())?;
    command.forget();
    started?;
    Ok(RunEnd { end, dropped: provided.changed(), reached: watch.reached() })
}

/// Reaps processes until the command has ended; returns how it ended.
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
