//! Maps unsuccessful status codes to faults.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use super::fault::{Fault, FaultKind, Retry, excerpt};
use super::response::Response;
use super::retry::parse_retry_after;
use crate::error::Error;

const LARGEST_ERROR: u64 = 64 << 10;

/// The body of an error response (distribution-spec, "Error Codes"); registries behind other software send only a
/// message.
#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<RegistryError>,
    #[serde(default, alias = "error", alias = "error_description")]
    message: Value,
}

#[derive(Default, Deserialize)]
struct RegistryError {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    detail: Value,
}

/// Returns the error code and message in the response; empty if there are none.
pub(super) fn explanation(response: Response) -> (String, String) {
    let html = response.content_type().is_some_and(|media_type| media_type.contains("html"));
    let body = response.read(LARGEST_ERROR, "an error message").unwrap_or_default();
    let Ok(errors) = serde_json::from_slice::<Errors>(&body) else {
        let text = String::from_utf8_lossy(&body);
        let text = if html { without_tags(&text) } else { text.into_owned() };
        return (String::new(), excerpt(&text, 200));
    };
    let Some(first) = errors.errors.into_iter().next() else {
        return (String::new(), excerpt(&text_of(&errors.message), 200));
    };
    let (message, detail) = (text_of(&first.message), text_of(&first.detail));
    let message = match (message.is_empty(), detail.is_empty() || message.contains(&detail)) {
        (_, true) => message,
        (true, false) => detail,
        (false, false) => format!("{message}: {detail}"),
    };
    (excerpt(&text_of(&first.code), 60), excerpt(&message, 200))
}

/// Returns a JSON value as text: details may be objects.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// Returns the text of a web page, as proxies send it.
fn without_tags(page: &str) -> String {
    let mut text = String::new();
    for (number, part) in page.split('<').enumerate() {
        let shown = if number == 0 { part } else { part.split_once('>').map_or("", |p| p.1) };
        text.extend([" ", shown]);
    }
    text
}

/// Returns the server's words in parentheses, after a space; empty if there are none.
fn said(response: Response) -> String {
    in_parentheses(&explanation(response))
}

fn in_parentheses((code, message): &(String, String)) -> String {
    match (code.is_empty(), message.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!(" ({message})"),
        (false, true) => format!(" ({code})"),
        (false, false) => format!(" ({code}: {message})"),
    }
}

/// Returns whether a refusal of a request with a body is about its size, by its status or the server's words.
pub(super) fn is_about_size(status: u16, said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let words = ["too large", "too big", "larger than", "exceed", "size limit", "maximum", "chunk"];
    match status {
        413 => true,
        // Smaller requests don't help against a quota.
        400 | 416 | 422 => !said.contains("quota") && words.iter().any(|word| said.contains(word)),
        _ => false,
    }
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
    let asked = response
        .header("retry-after")
        .and_then(|value| parse_retry_after(value, SystemTime::now()));
    let said = said(response);
    let error = match status {
        401 if push => {
            Error::registry(format!("{server} requires a login to store {what}{said}")).hint(LOG_IN)
        }
        401 => Error::registry(format!("{server} requires a login for {what}{said}")).hint(LOG_IN),
        403 if push => Error::registry(format!("{server} forbids svp to store {what}{said}"))
            .hint("log in as a user who may write there, or ask the repository's owner for access"),
        403 => Error::registry(format!("{server} forbids svp {what}{said}"))
            .hint("log in as a user who may read it, or ask its owner for access"),
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
    Fault { error, retry, kind: FaultKind::Other }
}

/// The hint for a refused or missing login.
pub(super) const LOG_IN: &str = "log in with `svp login`, `podman login`, `skopeo login` or `docker login`, or name a \
     file with --authfile (else svp reads REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, \
     ~/.config/containers/auth.json and ~/.docker/config.json); some registries answer the same for a \
     repository that does not exist";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_web_page() {
        let page = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body><hr></body>";
        assert_eq!(excerpt(&without_tags(page), 99), "413 Request Entity Too Large");
        assert_eq!(excerpt(&without_tags("plain < open"), 99), "plain");
    }

    #[test]
    fn refusals_about_the_size() {
        for (status, said, expected) in [
            (413, "", true),
            (416, "", false),
            (416, "chunk must not exceed 4194304 bytes", true),
            (400, "Size limit is 4 MiB", true),
            (400, "digest invalid", false),
            (500, "too large", false),
        ] {
            assert_eq!(is_about_size(status, said), expected, "{status} {said}");
        }
    }
}
