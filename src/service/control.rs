//! The monitor's socket: what other commands ask of a service that runs.
//!
//! The socket is in the service's place, which is the user's alone. It is reached by a descriptor of the
//! directory, because a socket's path may have 107 bytes and the store's path may be longer.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::channel::Channel;
use crate::error::{Cause, Error, IoContext, Result, Wire};

/// How long the other side may take to say a sentence.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a monitor may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);
/// How long to leave who asks alone when the kernel can't hand him over: without a pause this would be asked
/// for again and again.
const BREATH: Duration = Duration::from_millis(100);

/// What may be asked of a monitor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Stop the service: with its signal first, by force after so many seconds.
    Stop(u32),
    /// Stop one component in the same way, and start it again.
    Restart(String, u32),
    /// Hand over the user namespace and process 1, so that a command can join the container.
    Join,
}

/// The listening end.
#[derive(Debug)]
pub struct Listener(UnixListener);

/// Someone who asks.
#[derive(Debug)]
pub struct Asker(Channel);

impl Listener {
    /// Makes the socket; one that a killed monitor left is replaced.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn bind(place: &Place) -> Result<Listener> {
        let path = place.dir().join("control");
        let _ = fs::remove_file(&path);
        let dir = File::open(place.dir()).io("open", place.dir())?;
        let listener = UnixListener::bind(short_path(&dir)).io("make the socket", &path)?;
        listener.set_nonblocking(true).io("make the socket", &path)?;
        Ok(Listener(listener))
    }

    /// Takes the next question, if someone asks.
    pub fn next(&self) -> Option<(Asker, Ask)> {
        let (stream, _) = match self.0.accept() {
            Ok(asker) => asker,
            Err(error) => {
                // There may be no descriptors left.
                if error.kind() != io::ErrorKind::WouldBlock {
                    std::thread::sleep(BREATH);
                }
                return None;
            }
        };
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let channel = Channel::from_fd(stream.into());
        let (ask, _) = channel.recv::<Ask>().ok()??;
        Some((Asker(channel), ask))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Asker {
    /// Answers. Who asked may be gone.
    pub fn answer(&self, answer: Result<()>, fds: &[BorrowedFd<'_>]) {
        let _ = self.0.send(&answer.map_err(Wire::from), fds);
    }
}

/// Asks a service's monitor; gives the descriptors that it answers with.
///
/// # Errors
/// [`Cause::ServiceNotRunning`] if the service doesn't run; what the monitor says.
pub fn ask(place: &Place, ask: &Ask) -> Result<Vec<OwnedFd>> {
    let name = place.name();
    let not_running = || {
        Error::usage(format!("the service {name} does not run"))
            .cause(Cause::ServiceNotRunning)
            .hint(format!(
                "`svp start {name}` starts it; `svp logs {name}` tells what it said last"
            ))
    };
    let dir = File::open(place.dir()).io("open", place.dir())?;
    let stream = UnixStream::connect(short_path(&dir)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(),
        _ => Error::io("connect to", place.dir().join("control"), error),
    })?;
    let channel = Channel::from_fd(stream.into());
    let socket = || place.dir().join("control");
    channel.limit(ANSWERS).io("listen at", socket())?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => no_answer(place),
        // It has ended while it was asked.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => not_running(),
        _ => Error::io("talk to", socket(), error),
    };
    channel.send(ask, &[]).map_err(failed)?;
    match channel.recv::<Result<(), Wire>>().map_err(failed)? {
        Some((Ok(()), fds)) => Ok(fds),
        Some((Err(error), _)) => Err(error.into()),
        None => Err(not_running()),
    }
}

fn no_answer(place: &Place) -> Error {
    let name = place.name();
    let (process, number) = match place.monitor() {
        Some(number) => (format!(" (process {number})"), number.to_string()),
        None => (String::new(), "its process".to_owned()),
    };
    let seconds = ANSWERS.as_secs();
    Error::sandbox(format!("the monitor of {name}{process} has not answered for {seconds} s")).hint(format!(
        "if it is not just busy, `kill -9 {number}` ends it and the service; `svp start {name}` starts that again"
    ))
}

fn short_path(dir: &File) -> String {
    format!("/proc/self/fd/{}/control", dir.as_raw_fd())
}
