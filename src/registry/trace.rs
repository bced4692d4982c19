//! Diagnostics of requests. Never includes URL queries and headers, which may have credentials.

use std::time::Instant;

use log::debug;

use super::url::Url;

/// One request: its method, its URL without the query, the answer's status if one came, and how long it took.
pub(super) fn request(method: &str, url: &Url, since: Instant, status: Option<u16>) {
    let took = since.elapsed();
    match status {
        Some(status) => debug!("{method} {url}: status {status} after {took:.1?}"),
        None => debug!("{method} {url}: no proper answer after {took:.1?}"),
    }
}
