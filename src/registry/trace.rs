//! Diagnostics of requests. Never includes URL queries and headers, which may have credentials.

use std::time::Instant;

use log::debug;

use super::url::Url;

/// Sends one request by `send` and logs its method, its URL without the query, the status of the answer if one came,
/// and its duration.
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
        Err(_) => debug!("{method} {url}: no proper answer after {took:.1?}"),
    }
    answer
}
