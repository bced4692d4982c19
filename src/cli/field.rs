//! Looks up one field of a JSON document by a dotted name or a JSON pointer.

use serde_json::Value;

use crate::error::{Error, Result};

/// Returns the field `name`: `config.Labels.a.b`, or as a JSON pointer (RFC 6901) `/config/Labels/a.b`.
/// Keys may contain dots: if a name is ambiguous, the longest key wins; a quoted key is taken
/// literally.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such field; the hint lists those that exist.
pub(super) fn find<'a>(document: &'a Value, name: &str) -> Result<&'a Value> {
    let found = if name.is_empty() || name.starts_with('/') {
        document.pointer(name)
    } else {
        by_dots(document, name)
    };
    found.ok_or_else(|| {
        let error = Error::bad_input(format!("there is no field {name:?}"));
        match document.as_object() {
            Some(map) => {
                let names: Vec<_> = map.keys().map(String::as_str).collect();
                error.hint(format!("the top-level fields are {}", names.join(", ")))
            }
            None => error,
        }
    })
}

fn by_dots<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    // A quoted name is one key, even if it contains dots.
    if let Some((quoted, rest)) = name.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        let found = step(value, quoted)?;
        return match rest.strip_prefix('.') {
            Some(rest) => by_dots(found, rest),
            None => rest.is_empty().then_some(found),
        };
    }
    if let Some(found) = step(value, name) {
        return Some(found);
    }
    name.rmatch_indices('.').find_map(|(at, _)| by_dots(step(value, &name[..at])?, &name[at + 1..]))
}

fn step<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(name),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Formats a field for shells: a string verbatim, anything else as one line of JSON, then a newline.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text}\n"),
        other => format!("{other}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_dots_and_by_pointer() {
        let document = json!({
            "config": {"Labels": {"a.b": "dotted", "a": {"b": "nested"}, "x": {"y.z": 1}}, "Env": ["A=1"]},
            "size": 5, "none": null,
        });
        let cases = [
            ("size", "5\n"),
            ("none", "null\n"),
            ("config.Env", "[\"A=1\"]\n"),
            ("config.Env.0", "A=1\n"),
            ("config.Labels.a.b", "dotted\n"),
            (r#"config.Labels."a.b""#, "dotted\n"),
            (r#"config."Labels".a.b"#, "dotted\n"),
            (r#"config.Labels."a"."b""#, "nested\n"),
            ("/config/Labels/a/b", "nested\n"),
            ("/config/Labels/a.b", "dotted\n"),
            ("config.Labels.x.y.z", "1\n"),
        ];
        for (name, shown) in cases {
            assert_eq!(show(find(&document, name).unwrap()), shown, "{name}");
        }
        for name in [
            r#"config."Env"0"#,
            r#""config.Env""#,
            "config.env",
            "config.Env.1",
            "size.",
            ".",
            "/",
            "config.Env.-1",
        ] {
            let error = find(&document, name).unwrap_err();
            assert!(error.hint_text().unwrap().contains("config, none, size"), "{name}");
        }
    }
}
