//! The table of all stages, and the entry point of a stage's process, which only `main` calls.

use std::process::ExitCode;

use super::stage::fd_limit;
use super::stage::launch::STAGE_NAME;
use super::stage::process::{check_parent, close_inherited, die_with_parent};
use super::stage::protocol::{Descriptors, Received, Request, receive_request, reply_error, serve};
use super::{container, network, trees, userns};
use crate::channel::Channel;
use crate::diagnostics;
use crate::error::{Error, Result};

type Serve = fn(&Channel, Received, Descriptors) -> Result<()>;

const STAGES: &[(&str, Serve)] = &[
    stage::<userns::namespace::UserNamespaceRequest>(),
    stage::<trees::unpack::UnpackRequest>(),
    stage::<trees::diff::DiffRequest>(),
    stage::<trees::remove::RemoveRequest>(),
    stage::<trees::layer_cache::MeasureRequest>(),
    stage::<trees::verify::CompareRequest>(),
    stage::<trees::unpack_directory::DirectoryRequest>(),
    stage::<trees::unpack_directory::ClearRequest>(),
    stage::<container::run::RunRequest>(),
    stage::<container::init::InitRequest>(),
    stage::<container::exec::ExecRequest>(),
    stage::<container::service::ServiceRequest>(),
    stage::<container::service::ServiceInitRequest>(),
    stage::<container::component_init::ComponentInitRequest>(),
    stage::<container::join::JoinRequest>(),
    stage::<container::join::JoinExecRequest>(),
    stage::<trees::volume::FillRequest>(),
    stage::<trees::image_files::LookRequest>(),
    stage::<trees::volume_export::ExportRequest>(),
    stage::<trees::volume_import::ImportRequest>(),
    stage::<trees::volume_transfer::PackVolumeRequest>(),
    stage::<trees::volume_transfer::UnpackVolumeRequest>(),
    stage::<network::pasta::PastaRequest>(),
    stage::<network::pasta::PastaInitRequest>(),
    stage::<network::egress_filter::EgressFilterRequest>(),
    stage::<network::port_forwarder::PortForwarderRequest>(),
];

const fn stage<R: Request>() -> (&'static str, Serve) {
    (R::NAME, serve::<R>)
}

/// Runs the stage if this process was started as one; `main` calls it before anything else.
pub(crate) fn run_if_stage() -> Option<ExitCode> {
    if std::env::args_os().next()? != STAGE_NAME {
        return None;
    }
    Some(match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(()) => ExitCode::FAILURE,
    })
}

fn run() -> Result<(), ()> {
    let closed = close_inherited();
    diagnostics::start_inherited();
    die_with_parent();
    fd_limit::lower_limit();
    // A new session: the container gets no controlling terminal, and svp alone handles Ctrl-C.
    let session = nix::unistd::setsid();
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let channel = Channel::from_stdin().map_err(drop)?;
    let (request, fds) = receive_request(&channel).map_err(drop)?.ok_or(())?;
    check_parent(&channel).map_err(drop)?;
    let closed = closed.map_err(|error| {
        Error::sandbox("can't close the caller's files in a stage")
            .source(error)
            .hint("mount /proc: as root: mount -t proc proc /proc")
    });
    let session = session.map_err(|errno| Error::sandbox("can't create a session").source(errno));
    let ready = closed.and(session.map(drop));
    ready.and_then(|()| dispatch(&channel, request, fds)).map_err(|error| {
        // The peer may be gone.
        let _ = reply_error(&channel, error);
    })
}

fn dispatch(channel: &Channel, request: Received, fds: Descriptors) -> Result<()> {
    let found = STAGES.iter().find(|(name, _)| *name == request.stage);
    let (_, serve) =
        found.ok_or_else(|| Error::sandbox(format!("unknown stage: {}", request.stage)))?;
    serve(channel, request, fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_names_are_unique() {
        let names: std::collections::BTreeSet<_> = STAGES.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), STAGES.len());
    }
}
