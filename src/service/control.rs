//! The monitor's control socket: requests of other commands to a running service.
//!
//! The socket is in the service's directory, which only the user can access. Its path goes through a descriptor of
//! the directory, because a socket's path is limited to 107 bytes and the store's path may be longer.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::service_dir::ServiceDir;
use crate::channel::Channel;
use crate::error::{Cause, Error, IoContext, Result, WireError};

/// Time limit for sending or receiving one message.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a monitor may take to answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed `accept()`: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request to a monitor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Stop the service: with its stop signal, and with SIGKILL after this many seconds.
    Stop(u32),
    /// Stop one component in the same way, and start it again.
    Restart(String, u32),
    /// Send descriptors of the user namespace and of init, so that a command can join the container.
    Join,
}

/// The listening end.
#[derive(Debug)]
pub(crate) struct Listener(UnixListener);

/// A connected client.
#[derive(Debug)]
pub(crate) struct Connection(Channel);

impl Listener {
    /// Creates the socket, replacing one left by a killed monitor.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn bind(service_dir: &ServiceDir) -> Result<Listener> {
        let path = service_dir.dir().join("control");
        // Only a killed monitor leaves one.
        let _ = fs::remove_file(&path);
        let dir = File::open(service_dir.dir()).io("open", service_dir.dir())?;
        let listener = UnixListener::bind(short_path(&dir)).io("create the socket", &path)?;
        listener.set_nonblocking(true).io("create the socket", &path)?;
        Ok(Listener(listener))
    }

    /// Accepts the next request, if any.
    pub(crate) fn next(&self) -> Option<(Connection, Request)> {
        let (stream, _) = match self.0.accept() {
            Ok(connection) => connection,
            Err(error) => {
                // There may be no descriptors left.
                if error.kind() != io::ErrorKind::WouldBlock {
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                return None;
            }
        };
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(IO_TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(IO_TIMEOUT)).ok()?;
        let channel = Channel::from_fd(stream.into());
        let (request, _) = channel.recv::<Request>().ok()??;
        Some((Connection(channel), request))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    /// Sends the answer.
    pub(crate) fn answer(&self, answer: Result<()>, fds: &[BorrowedFd<'_>]) {
        // The client may be gone.
        let _ = self.0.send(&answer.map_err(WireError::from), fds);
    }
}

/// Sends a request to a service's monitor; returns the descriptors in its answer.
///
/// # Errors
/// [`Cause::ServiceNotRunning`] if the service isn't running; the monitor's error.
pub(crate) fn request(service_dir: &ServiceDir, request: &Request) -> Result<Vec<OwnedFd>> {
    let name = service_dir.name();
    let not_running = || {
        Error::usage(format!("the service {name} is not running"))
            .cause(Cause::ServiceNotRunning)
            .hint(format!("`svp start {name}` starts it; `svp logs {name}` shows its output"))
    };
    let dir = File::open(service_dir.dir()).io("open", service_dir.dir())?;
    let stream = UnixStream::connect(short_path(&dir)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(),
        _ => Error::io("connect to", service_dir.dir().join("control"), error),
    })?;
    let channel = Channel::from_fd(stream.into());
    let socket = || service_dir.dir().join("control");
    channel.set_timeout(Some(REPLY_TIMEOUT)).io("listen at", socket())?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => no_answer(service_dir),
        // The monitor ended during the request.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => not_running(),
        _ => Error::io("talk to", socket(), error),
    };
    channel.send(request, &[]).map_err(failed)?;
    match channel.recv::<Result<(), WireError>>().map_err(failed)? {
        Some((Ok(()), fds)) => Ok(fds),
        Some((Err(error), _)) => Err(error.into()),
        None => Err(not_running()),
    }
}

fn no_answer(service_dir: &ServiceDir) -> Error {
    let name = service_dir.name();
    let (process, number) = match service_dir.monitor() {
        Some(number) => (format!(" (process {number})"), number.to_string()),
        None => (String::new(), "PID".to_owned()),
    };
    let seconds = REPLY_TIMEOUT.as_secs();
    Error::sandbox(format!("the monitor of {name}{process} has not answered for {seconds} s")).hint(format!(
        "unless it is only busy, `kill -9 {number}` ends it and the service; `svp start {name}` starts both again"
    ))
}

fn short_path(dir: &File) -> String {
    format!("/proc/self/fd/{}/control", dir.as_raw_fd())
}
