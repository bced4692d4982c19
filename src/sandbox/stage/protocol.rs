//! The protocol of stages: one typed request with descriptors, and typed answers.
//!
//! Each stage's module implements [`Request`]; only the table (`stages`) knows all of them.

use std::os::fd::{AsFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::channel::Channel;
use crate::error::{Error, Result, WireError};

/// A stage: its request, its work and its answer.
pub(in crate::sandbox) trait Request: Serialize + DeserializeOwned {
    /// The stage's name in the table.
    const NAME: &'static str;
    /// The type of the last answer; [`reply_with`] sends earlier ones.
    type Answer: Serialize + DeserializeOwned;

    /// Does the work, in the stage's process.
    fn serve(self, channel: &Channel, fds: Descriptors) -> Result<Self::Answer>;
}

/// The descriptors of a request, in the order in which they were sent.
#[derive(Debug)]
pub(in crate::sandbox) struct Descriptors(std::vec::IntoIter<OwnedFd>);

impl Descriptors {
    /// Takes the next descriptor.
    pub(in crate::sandbox) fn take(&mut self) -> Result<OwnedFd> {
        self.0.next().ok_or_else(|| Error::sandbox("a stage was started without a descriptor"))
    }

    /// Takes the next descriptor, if there is one.
    pub(in crate::sandbox) fn take_optional(&mut self) -> Option<OwnedFd> {
        self.0.next()
    }

    /// Takes all remaining descriptors.
    pub(in crate::sandbox) fn rest(self) -> Vec<OwnedFd> {
        self.0.collect()
    }
}

/// A request as sent.
#[derive(Serialize)]
struct Sent<'a, R> {
    stage: &'static str,
    request: &'a R,
}

/// A request as received, before its stage is looked up.
#[derive(Deserialize)]
pub(in crate::sandbox) struct Received {
    /// The stage's name.
    pub(in crate::sandbox) stage: String,
    request: Value,
}

/// Sends a request.
pub(super) fn send_request<R: Request>(
    channel: &Channel,
    request: &R,
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> std::io::Result<()> {
    channel.send(&Sent { stage: R::NAME, request }, fds)
}

/// Receives a request, in the stage's process; `None` if svp has ended.
pub(in crate::sandbox) fn receive_request(
    channel: &Channel,
) -> std::io::Result<Option<(Received, Descriptors)>> {
    let received = channel.recv::<Received>()?;
    Ok(received.map(|(request, fds)| (request, Descriptors(fds.into_iter()))))
}

/// Runs stage `R` on a request, and sends the last answer.
pub(in crate::sandbox) fn serve<R: Request>(
    channel: &Channel,
    received: Received,
    fds: Descriptors,
) -> Result<()> {
    let request: R = serde_json::from_value(received.request)
        .map_err(|error| Error::sandbox("malformed request to a stage").source(error))?;
    let answer = request.serve(channel, fds)?;
    reply(channel, &answer)
}

/// Sends an answer.
pub(in crate::sandbox) fn reply<T: Serialize>(channel: &Channel, value: &T) -> Result<()> {
    reply_with(channel, value, &[])
}

/// Sends an answer with descriptors.
pub(in crate::sandbox) fn reply_with<T: Serialize>(
    channel: &Channel,
    value: &T,
    fds: &[OwnedFd],
) -> Result<()> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    channel
        .send(&Ok::<_, WireError>(value), &fds)
        .map_err(|error| Error::sandbox("svp has ended").source(error))
}

/// Sends the error that ended the stage.
pub(in crate::sandbox) fn reply_error(channel: &Channel, error: Error) -> std::io::Result<()> {
    channel.send(&Err::<(), _>(WireError::from(error)), &[])
}

/// Receives an answer; `None` if the stage has ended.
pub(super) fn receive_answer<T: DeserializeOwned>(
    channel: &Channel,
) -> std::io::Result<Option<(Result<T>, Vec<OwnedFd>)>> {
    let received = channel.recv::<std::result::Result<T, WireError>>()?;
    Ok(received.map(|(answer, fds)| (answer.map_err(Error::from), fds)))
}
