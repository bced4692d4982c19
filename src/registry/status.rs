//! Maps unsuccessful status codes to faults.

use std::time::SystemTime;

use super::fault::{Fault, FaultKind, Retry};
use super::response::Response;
use super::retry::{parse_date, parse_retry_after};
use super::words::Words;
use crate::error::Error;

/// Returns what the response says about the failure: ` (CODE: message)`, or nothing.
pub(super) fn said(response: Response) -> String {
    Words::of(response).said
}

/// Maps a status other than 2xx, 401 and 404 to a fault, for a request for `what`.
pub(super) fn fault(response: Response, what: &str) -> Fault {
    to_fault(response, what, false)
}

/// As [`fault`], for a request to store `what`.
pub(super) fn push_fault(response: Response, what: &str) -> Fault {
    to_fault(response, what, true)
}

fn to_fault(response: Response, what: &str, push: bool) -> Fault {
    let status = response.status;
    let server = response.url.authority();
    // The server's clock is the one that its date refers to.
    let now = response.header("date").and_then(parse_date).unwrap_or_else(SystemTime::now);
    let asked = response.header("retry-after").and_then(|value| parse_retry_after(value, now));
    let words = Words::of(response);
    let (complaint, said) = (words.complaint(), words.said);
    let error = match status {
        401 if push => {
            Error::registry(format!("{server} requires a login to store {what}{said}")).hint(LOG_IN)
        }
        401 => Error::registry(format!("{server} requires a login for {what}{said}")).hint(LOG_IN),
        403 if push => Error::registry(format!("{server} forbids svp to store {what}{said}"))
            .hint(
                "log in as a user who may write there (again, if the login has expired), or ask the repository's \
                 owner for access",
            ),
        403 => Error::registry(format!("{server} forbids svp {what}{said}"))
            .hint("log in as a user who may read it, or ask its owner for access"),
        407 => Error::registry(format!("the proxy to {server} requires a login{said}"))
            .hint("write it as http://USER:PASSWORD@HOST:PORT into HTTP_PROXY"),
        404 if push => Error::registry(format!("{server} finds no repository for {what}{said}"))
            .hint("check the image's name: does the repository exist, and is it a registry?"),
        404 => Error::registry(format!("{server} does not have {what}{said}")),
        413 => Error::registry(format!("{server} says that {what} is too large{said}")).hint(
            "the registry, or a proxy before it, limits the size of requests: contact its operator",
        ),
        429 => Error::registry(format!("{server} limits the rate of requests{said}"))
            .hint("wait a while, or log in: many registries allow more requests with a login"),
        416 if !push => Error::registry(format!("{server} does not send the rest of {what}{said}")),
        500.. => {
            let act = if push { "store" } else { "send" };
            Error::registry(format!("{server} failed to {act} {what}: status {status}{said}"))
                .hint("the failure is the registry's: try again later")
        }
        _ if push => Error::registry(format!("{server} refuses {what} with status {status}{said}")),
        _ => Error::registry(format!(
            "{server} answers with status {status} when asked for {what}{said}"
        )),
    };
    let retry = match status {
        408 | 429 | 500 | 502..=504 => Retry::After(asked),
        _ => Retry::Never,
    };
    Fault { error, retry, kind: FaultKind::Status(status, complaint) }
}

/// The hint for a refused or missing login.
pub(super) const LOG_IN: &str = "log in with `svp login`, `podman login`, `skopeo login` or `docker login`, or name a \
     file with --authfile (else svp reads REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, \
     ~/.config/containers/auth.json and ~/.docker/config.json); some registries answer the same for a \
     repository that does not exist";
