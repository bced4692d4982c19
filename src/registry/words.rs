//! What a server says about a failure: the errors of the distribution-spec, other JSON, plain text, or a web page.

use serde_json::Value;

use super::complaint::Complaint;
use super::fault::excerpt;
use super::response::Response;

const LARGEST_BODY: u64 = 64 << 10;
/// Maximum length of an explanation, in characters.
const LONGEST: usize = 300;
/// Maximum number of errors shown.
const MOST_ERRORS: usize = 3;

/// An explanation of a server, safe to print.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The code of the first error, such as `NAME_UNKNOWN`; empty if there is none.
    pub(super) code: String,
    /// ` (CODE: message)`, or empty.
    pub(super) said: String,
}

impl Words {
    /// Reads the explanation in the body of `response`.
    pub(super) fn of(response: Response) -> Self {
        let page = response.content_type().is_some_and(|kind| kind.contains("html"));
        let body = response.read(LARGEST_BODY, "an error message").unwrap_or_default();
        Self::parse(&body, page)
    }

    fn parse(body: &[u8], page: bool) -> Self {
        let text = String::from_utf8_lossy(body);
        let (code, said) = match serde_json::from_slice::<Value>(body) {
            Ok(value @ Value::Object(_)) => of_json(&value),
            Ok(Value::String(text)) => (String::new(), text),
            _ if page || text.trim_start().starts_with('<') => (String::new(), of_page(&text)),
            _ => (String::new(), text.into_owned()),
        };
        let said = excerpt(&said, LONGEST);
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        Words { code: excerpt(&code, 60), said }
    }

    /// Classifies the explanation of a refused upload. Registries have no codes for this, only words.
    pub(super) fn complaint(&self) -> Complaint {
        let said = self.said.to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if any(&["digest_invalid", "digest did not match", "digest mismatch", "quota"]) {
            Complaint::Other
        } else if any(&["too small", "toosmall", "at least", "minimum"]) {
            Complaint::TooSmall
        } else if any(&[
            "too large",
            "too big",
            "too long",
            "exceed",
            "maximum",
            "larger than",
            "limit",
        ]) {
            Complaint::TooLarge
        } else if any(&[
            "chunk",
            "range",
            "length",
            "size_invalid",
            "blob_upload_invalid",
            "monolithic",
            "unsupported",
        ]) {
            Complaint::Form
        } else {
            Complaint::Other
        }
    }
}

/// Returns the first code, and the text of all errors.
fn of_json(value: &Value) -> (String, String) {
    let Some(errors) = value["errors"].as_array().filter(|errors| !errors.is_empty()) else {
        let other = ["errors", "message", "error_description", "error", "detail", "details"];
        let text = other.iter().find_map(|name| sentence(&value[*name]));
        return (String::new(), text.unwrap_or_default());
    };
    let code = errors[0]["code"].as_str().unwrap_or_default().to_owned();
    let texts: Vec<_> = errors.iter().take(MOST_ERRORS).map(of_error).collect();
    (code, texts.join("; "))
}

/// Returns `CODE: message: detail`, as far as they exist.
fn of_error(error: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in ["code", "message", "detail"] {
        let part = sentence(&error[part]).unwrap_or_default();
        // Many details only repeat the message.
        if !part.is_empty() && !parts.iter().any(|other| other.contains(&part)) {
            parts.push(part);
        }
    }
    match (parts.is_empty(), error.as_str()) {
        (true, Some(text)) => text.to_owned(),
        _ => parts.join(": "),
    }
}

/// Returns the text of a value: a string, the message of an object, or its JSON.
fn sentence(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Object(fields) if fields.is_empty() => None,
        Value::Object(fields) => {
            let message = fields.get("message").and_then(Value::as_str);
            Some(message.map_or_else(|| value.to_string(), str::to_owned))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(sentence).collect();
            (!items.is_empty()).then(|| items.join(", "))
        }
        other => Some(other.to_string()),
    }
}

/// Returns a web page's title, else its text.
fn of_page(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    if let Some((_, rest)) = lower.split_once("<title>")
        && let Some((title, _)) = rest.split_once("</title>")
        && !title.trim().is_empty()
    {
        let start = lower.len() - rest.len();
        return page.get(start..start + title.len()).unwrap_or(title).to_owned();
    }
    let mut text = String::new();
    let mut in_tag = false;
    for character in page.chars() {
        match character {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                text.push(' ');
            }
            _ if !in_tag => text.push(character),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart_by_their_words() {
        let cases = [
            ("chunk is larger than the maximum of 4 MiB", Complaint::TooLarge),
            ("413 Request Entity Too Large", Complaint::TooLarge),
            ("Layer parts must be at least 5 MiB", Complaint::TooSmall),
            ("invalid Content-Range", Complaint::Form),
            (r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"x"}]}"#, Complaint::Form),
            (r#"{"errors":[{"code":"DIGEST_INVALID","message":"length"}]}"#, Complaint::Other),
            ("the quota of 5 GiB is exceeded", Complaint::Other),
            ("no", Complaint::Other),
            ("", Complaint::Other),
        ];
        for (body, expected) in cases {
            assert_eq!(Words::parse(body.as_bytes(), false).complaint(), expected, "{body}");
        }
    }

    #[test]
    fn every_kind_of_explanation_is_read() {
        let cases: &[(&str, &str, &str)] = &[
            ("", "", ""),
            ("{}", "", ""),
            ("null", "", " (null)"),
            (r#"{"errors":[]}"#, "", ""),
            (r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, "DENIED", " (DENIED: no)"),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED", " (DENIED)"),
            (r#"{"errors":[{"message":"no"}]}"#, "", " (no)"),
            (r#"{"errors":[{"code":7,"message":null,"detail":{}}]}"#, "", " (7)"),
            (
                r#"{"errors":[{"code":"SIZE_INVALID","message":"chunk","detail":{"limit":4194304}},{"code":"B"}]}"#,
                "SIZE_INVALID",
                " (SIZE_INVALID: chunk: {\"limit\":4194304}; B)",
            ),
            (
                r#"{"errors":[{"code":"X","message":"same words","detail":"same words"}]}"#,
                "X",
                " (X: same words)",
            ),
            (r#"{"errors":"all wrong"}"#, "", " (all wrong)"),
            (r#"{"message":"access forbidden"}"#, "", " (access forbidden)"),
            (r#"{"error":{"message":"in here"}}"#, "", " (in here)"),
            (r#"{"error":"a","error_description":"b"}"#, "", " (b)"),
            (r#""just a string""#, "", " (just a string)"),
            ("chunk too\n\x1b[31mlarge", "", " (chunk too [31mlarge)"),
            (
                "<html><head><TITLE>413 Request Entity Too Large</TITLE></head><body>x</body></html>",
                "",
                " (413 Request Entity Too Large)",
            ),
            ("<html><body><h1>No</h1>way", "", " (No way)"),
        ];
        for (body, code, said) in cases {
            let words = Words::parse(body.as_bytes(), false);
            assert_eq!((words.code.as_str(), words.said.as_str()), (*code, *said), "{body}");
        }
        assert!(Words::parse(&b"x".repeat(5000), false).said.chars().count() < 310);
        assert!(!Words::parse(b"\xff\xfe", true).said.is_empty());
    }
}
