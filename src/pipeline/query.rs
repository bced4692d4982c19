//! Runs `bin/query`: on the host before there is an image, with access to only the host's programs; afterwards in the
//! image.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::pack_layer::PackLayer;
use crate::error::{Error, Result};
use crate::oci::Image;
use crate::pack::{Answers, Key, Pack, RawAnswer, query};
use crate::progress::{Reporter, Step, announce_if_slow};
use crate::sandbox::{Bound, End, Limits, Network, Rootfs, RunSpec, Sandbox, Stream, Watched};
use crate::service::environment;
use crate::store::Store;

/// Limits of a query.
const LIMITS: Limits = Limits {
    time: Some(Duration::from_secs(20)),
    output: Some(1 << 20),
    memory: Some(Bound::Watched(1 << 30)),
    pids: Some(Bound::Watched(PIDS)),
    shm: Some(16 << 20),
};

/// The number of processes and threads of a query.
const PIDS: u64 = 256;

/// How much of a query's standard error is kept.
const TAIL: usize = 4096;

/// A pack prepared for queries on the host.
pub(crate) struct HostPack {
    sandbox: Sandbox,
    tar: OwnedFd,
}

impl HostPack {
    /// Prepares a pack for queries on the host. Needs no store.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the pack can't be read,
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn new(pack: &Pack) -> Result<HostPack> {
        let tar = PackLayer::new(pack)?.tar()?;
        Ok(HostPack { sandbox: Sandbox::without_layer_store()?, tar })
    }

    /// Queries one key.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the script exceeds a limit of time or output or can't be
    /// run, [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn query(&self, key: Key, reporter: &dyn Reporter) -> Result<RawAnswer> {
        query_on_host(&self.sandbox, &self.tar, key, reporter)
    }
}

/// Queries all keys of a pack on the host.
pub(super) fn all_on_host(
    sandbox: &Sandbox,
    pack_layer: &PackLayer,
    reporter: &dyn Reporter,
) -> Result<Answers> {
    let tar = pack_layer.tar()?;
    query::query_all(&mut |key| query_on_host(sandbox, &tar, key, reporter))
}

fn query_on_host(
    sandbox: &Sandbox,
    tar: &OwnedFd,
    key: Key,
    reporter: &dyn Reporter,
) -> Result<RawAnswer> {
    let env = environment::plain();
    run_query(sandbox, Rootfs::HostTools, env, Some(tar), key, reporter)
}

/// Queries all keys with the `/service/bin/query` of an image, with the pack `more` on top if given.
pub(super) fn all_in_image(
    store: &Store,
    sandbox: &Sandbox,
    image: &Image,
    more: Option<&mut PackLayer>,
    reporter: &dyn Reporter,
) -> Result<Answers> {
    let build_rootfs =
        RefCell::new(super::script::build_rootfs(store, sandbox, image, more, reporter)?);
    query::query_all(&mut |key| {
        let rootfs = build_rootfs.borrow_mut().rootfs();
        run_query(sandbox, rootfs, environment::of_image(image)?, None, key, reporter)
    })
}

fn run_query(
    sandbox: &Sandbox,
    rootfs: Rootfs,
    env: Vec<(String, String)>,
    pack: Option<&OwnedFd>,
    key: Key,
    reporter: &dyn Reporter,
) -> Result<RawAnswer> {
    let spec = RunSpec {
        rootfs,
        argv: vec!["/service/bin/query".into(), key.as_str().into()],
        env,
        cwd: "/service".into(),
        hostname: "svp-query".into(),
        network: Network::None,
        no_new_privs: true,
    };
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    let mut keep = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => {
            stderr.extend_from_slice(bytes);
            let excess = stderr.len().saturating_sub(TAIL);
            stderr.drain(..excess);
        }
    };
    let ended = announce_if_slow(reporter, Step::RunQuery { key: key.to_string() }, || {
        sandbox.run(&spec, pack, LIMITS, reporter, &mut keep)
    })?;
    let refused = |why: String| {
        Error::bad_input(format!("`bin/query {key}` {why}"))
            .hint("a query must print its answer and exit; it has no network and no secrets")
    };
    match ended.reached.killed_for {
        Some(Watched::Pids) => {
            return Err(refused(format!("has more than {PIDS} processes and threads")));
        }
        Some(Watched::Memory) => return Err(refused("uses more than 1 GiB of memory".into())),
        // Without an answer, the key would count as unanswered.
        None if ended.reached.pids && stdout.is_empty() => {
            return Err(refused(format!("reaches the limit of {PIDS} processes and threads")));
        }
        None => {}
    }
    let status = match ended.end {
        End::Exited(code) => code,
        End::Signaled(signal) => 128 + signal,
        End::TimedOut => {
            let seconds = LIMITS.time.unwrap_or_default().as_secs();
            return Err(refused(format!("did not end within {seconds} seconds")));
        }
        End::TooMuchOutput => {
            let most = LIMITS.output.unwrap_or_default() >> 20;
            return Err(refused(format!("prints more than {most} MiB")));
        }
    };
    let stderr_tail = String::from_utf8_lossy(&stderr).into_owned();
    Ok(RawAnswer { stdout, status, stderr_tail })
}
