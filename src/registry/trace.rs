//! Diagnostics of requests. Never logs URL queries or headers, which may contain credentials.

use std::time::Instant;

use log::debug;

use super::url::Url;

/// Calls `send` and logs the request's method, its URL without the query, the status of the response, if any, and the
/// duration.
pub(super) fn request<T, E>(
    method: &str,
    url: &Url,
    status: impl FnOnce(&T) -> u16,
    send: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let since = Instant::now();
    let answer = send();
    let took = since.elapsed();
    match &answer {
        Ok(answer) => debug!("{method} {url}: status {} after {took:.1?}", status(answer)),
        Err(_) => debug!("{method} {url}: no valid response after {took:.1?}"),
    }
    answer
}
