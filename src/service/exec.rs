//! Runs commands in the container of a running service.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::{Request, request};
use super::links;
use super::record::Record;
use super::service_dir::ServiceDir;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::{End, JoinSpec, Joined, Stdio, join, output_pipe, set_nonblocking};
use crate::secret::{Redactor, Secret};
use crate::store::Store;

/// Poll interval for the exit of a command.
const TICK: Duration = Duration::from_millis(50);
/// How long the output of processes that a command left behind is read.
const LEFTOVER_TIME: Duration = Duration::from_secs(1);

/// Describes a command that runs with the environment of the service's scripts.
///
/// # Errors
/// [`Kind::BadInput`] if the service's image is damaged or gone.
pub(crate) fn spec(store: &Store, record: &Record, argv: Vec<String>) -> Result<JoinSpec> {
    let image = store.load_image(&record.manifest)?;
    let linked = links::existing(store.root(), record);
    let env = record.environment(&image, links::environment(record, &linked))?;
    Ok(JoinSpec {
        argv,
        env,
        cwd: record.cwd.clone(),
        cwd_or_root: true,
        user: None,
        bounded: !record.resources.is_unbounded(),
        kill_group: false,
    })
}

/// Starts a command in the container of a service.
///
/// # Errors
/// [`Kind::Usage`] if the service isn't running, [`Kind::BadInput`] if the command can't be executed,
/// [`Kind::Sandbox`].
pub(crate) fn join_container(
    service_dir: &ServiceDir,
    spec: &JoinSpec,
    stdio: Stdio,
) -> Result<Joined> {
    let fds = request(service_dir, &Request::Join)?;
    let [user_namespace, init_pidfd] = &fds[..] else {
        return Err(Error::sandbox("the monitor did not send the container's descriptors"));
    };
    join(user_namespace.as_fd(), init_pidfd.as_fd(), spec, stdio)
}

/// Runs a command in a service without input; returns how it ended, and the last 4 KiB of its output, without secrets.
/// After `limit` the command is killed: [`End::TimedOut`].
///
/// # Errors
/// Those of `join`, which starts the command; [`Kind::Storage`], [`Kind::Interrupted`].
pub(crate) fn run_captured(
    join: impl FnOnce(Stdio) -> Result<Joined>,
    secrets: &[(String, Secret)],
    limit: Duration,
) -> Result<(End, String)> {
    const MAX_OUTPUT: usize = 4 << 10;
    let failed = |error| Error::new(Kind::Storage, "can't create a pipe").source(error);
    let (output, theirs) = output_pipe()?;
    let null = File::open("/dev/null").map_err(failed)?;
    let errors = theirs.try_clone().map_err(failed)?;
    let stdio = Stdio::Pipes([null.into(), theirs, errors]);
    let joined = join(stdio)?;
    let signaller = joined.signaller()?;
    let output = File::from(output);
    let mut redactor = Redactor::new(secrets.iter().map(|(_, secret)| secret));
    let mut kept = Vec::new();
    let mut keep = |bytes: &[u8]| {
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(MAX_OUTPUT);
        kept.drain(..excess);
    };
    let ended = AtomicBool::new(false);
    let (sender, waits) = mpsc::channel::<()>();
    let (end, late) = std::thread::scope(|scope| {
        let ended = &ended;
        let end = scope.spawn(move || {
            let end = joined.wait();
            ended.store(true, Ordering::SeqCst);
            end
        });
        let killer = scope.spawn(move || {
            let late = waits.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                signaller.signal(libc::SIGKILL);
            }
            late
        });
        let mut over = None;
        // Processes that the command left behind may hold the pipe open and write for ever: then the rest is lost.
        let _ = drain(&output, ended, Duration::ZERO, &mut |bytes| {
            redactor.pass(bytes, &mut keep);
            let ended = ended.load(Ordering::SeqCst);
            let since = ended.then(|| *over.get_or_insert_with(Instant::now));
            if since.is_some_and(|since| since.elapsed() > LEFTOVER_TIME) {
                Err(())
            } else {
                Ok(())
            }
        });
        // Those that still write get SIGPIPE.
        drop(output);
        let end = end.join().unwrap_or_else(|_| Err(Error::sandbox("waiting panicked")));
        drop(sender);
        (end, killer.join().unwrap_or(false))
    });
    redactor.finish(&mut keep);
    let end = if late { End::TimedOut } else { end? };
    interrupt::check()?;
    Ok((end, String::from_utf8_lossy(&kept).into_owned()))
}

/// Copies the output of a command to `sink` until end of file. Once the command has `ended`, stops after `timeout`
/// without output, because processes that it started may hold the pipe open for ever. Returns whether end of file
/// was reached.
///
/// # Errors
/// Those of `sink`; the first one stops the copy.
pub(crate) fn drain<E>(
    mut from: &File,
    ended: &AtomicBool,
    timeout: Duration,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    set_nonblocking(from);
    let mut buffer = vec![0; 64 << 10];
    let mut silent_since = None;
    loop {
        // Test before polling: output from before the exit is then in the pipe.
        let over = ended.load(Ordering::SeqCst);
        let since = over.then(|| *silent_since.get_or_insert_with(Instant::now));
        let left = since.map_or(TICK, |since| timeout.saturating_sub(since.elapsed()));
        let pause = left.min(TICK);
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let mut fds = [PollFd::new(from, PollFlags::IN)];
        match poll(&mut fds, Some(&pause)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Ok(false),
            Ok(0) if over && left.is_zero() => return Ok(false),
            Ok(0) => continue,
            Ok(_) => {}
        }
        match from.read(&mut buffer) {
            Err(error) if is_temporary(&error) => {}
            // Reading a terminal whose other side is closed gives EIO.
            Ok(0) | Err(_) => return Ok(true),
            Ok(length) => {
                silent_since = None;
                sink(&buffer[..length])?;
            }
        }
    }
}

/// Whether a read may succeed later: it was interrupted, or the container has taken what was there.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
